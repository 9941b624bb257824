"""Recurrences that are unlike an LSTM in parameters, state and start."""

import torch
from torch import nn

from vrnn.layers.feedforward import Linear
from vrnn.layers.recurrent import Recurrence


class Echo(Recurrence):
    """Its h reads what came in two steps ago, too. State: a slow and a fast h, and the last two
    inputs; the first h is learned."""

    def __init__(self, inputs, hidden, layers=1):
        super().__init__(inputs, hidden, layers)
        self.read = Linear((*self.parents, *self.parents), hidden)
        self.start = nn.Parameter(torch.rand(hidden))
        self.decay = nn.Parameter(torch.rand(2, hidden))

    def initial(self, batch):
        h = self.start.expand(2, batch, self.hidden)
        return h, self.start.new_zeros(2, batch, self.inputs)

    def step(self, x, state):
        (slow, fast), (before, last) = state
        decay = self.decay.sigmoid()
        seen = self.read(torch.cat([x, before], dim=-1))
        slow = decay[0] * slow + (1 - decay[0]) * seen
        fast = (decay[1] * fast + slow + seen).tanh()
        return torch.stack([slow, fast]), torch.stack([last, x])


class Elman(Recurrence):
    """The simplest there is, from torch's own parts."""

    def __init__(self, inputs, hidden, layers=1):
        super().__init__(inputs, hidden, layers)
        self.cell = nn.RNNCell(self.inputs, hidden)

    def step(self, x, state):
        h = torch.nn.functional.linear(x, self.cell.weight_ih, self.cell.bias_ih)
        h = h + torch.nn.functional.linear(state[0][0], self.cell.weight_hh, self.cell.bias_hh)
        return (h.tanh()[None],)
