"""Output distributions that are autoregressive inside the frame: x_{t,d} depends on x_{t,<d}.

A factorised output leaves what the numbers of a frame have in common to the latent variables;
these do without.

References:
    Re-examination of the Role of Latent Variables in Sequence Modeling (Dai et al., 2019),
    https://arxiv.org/abs/1902.01388
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.nn.functional import softplus
from torch.utils.checkpoint import checkpoint

from vrnn.arguments import check_counts
from vrnn.layers.feedforward import Linear
from vrnn.layers.recurrent import GRU
from vrnn.layers.state import State, at_least_float32
from vrnn.likelihoods.base import Likelihood
from vrnn.likelihoods.factorised import Bernoulli, GaussianMixture

__all__ = [
    "Autoregressive",
    "AutoregressiveBernoulli",
    "AutoregressiveGaussianMixture",
    "AutoregressiveLikelihood",
]

KEPT = 2**26
"""Numbers that a density keeps for its gradient; where there are more, they are computed again
part by part, which bounds the memory of long batches and of many particles."""


class Autoregressive(Distribution):
    r"""A frame drawn number by number, or block by block.

    .. math:: p(x_t) = \prod_d p(x_{t,d} | x_{t,<d}, params)

    It has neither a mean nor a mode in closed form: `mode` is greedy.

    Args:
        likelihood: holds the networks.
        params: (*, P), the decoder's outputs.
        temperature: of every factor.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(
        self, likelihood: "AutoregressiveLikelihood", params: Tensor, temperature: float
    ) -> None:
        self.likelihood, self.temperature = likelihood, temperature
        self.params = at_least_float32(params)
        shape = torch.Size([likelihood.x_dim])
        super().__init__(params.shape[:-1], shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """All numbers of all frames at once. Shapes: (*, D) -> (*)."""
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        x = at_least_float32(value).expand(*shape, -1).reshape(-1, self.likelihood.x_dim)
        params = self.rows(shape)
        size = max(1, KEPT // self.likelihood.kept)
        with torch.autocast(params.device.type, enabled=False):
            if len(x) <= size:
                log_p = self.likelihood.log_density(params, x, self.temperature)
            else:
                parts = zip(params.split(size), x.split(size), strict=True)
                log_p = torch.cat([self.part(*p) for p in parts])
        return log_p.reshape(shape)

    def part(self, params: Tensor, x: Tensor) -> Tensor:
        log_p: Tensor = checkpoint(
            self.likelihood.log_density,
            params,
            x,
            self.temperature,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        return log_p

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        return self.unroll(torch.Size(sample_shape) + self.batch_shape, self.temperature)

    @property
    def mean(self) -> Tensor:
        raise NotImplementedError(
            f"{type(self.likelihood).__name__} has no mean in closed form, which open_loop feeds "
            "back; leave that bound out"
        )

    @property
    def mode(self) -> Tensor:
        """(*, D), each number the mode of its own factor, given those before; the product of the
        factors may be higher elsewhere."""
        return self.unroll(self.batch_shape, 0.0)

    @torch.no_grad()
    def unroll(self, shape: torch.Size, temperature: float) -> Tensor:
        params = self.rows(shape)
        with torch.autocast(params.device.type, enabled=False):
            x = self.likelihood.unroll(params, temperature)
        return x.reshape(*shape, -1)

    def rows(self, shape: torch.Size) -> Tensor:
        return self.params.expand(*shape, -1).reshape(-1, self.likelihood.size)


class AutoregressiveLikelihood(Likelihood):
    """Base of the likelihoods whose networks run over the frame; computes in float32 or better.

    Attributes:
        kept: numbers that the density of one frame keeps for its gradient, about.
    """

    kept: int

    def forward(self, params: Tensor, temperature: float = 1.0) -> Autoregressive:
        return Autoregressive(self, params, temperature)

    @abstractmethod
    def log_density(self, params: Tensor, x: Tensor, temperature: float) -> Tensor:
        """Log density of N frames. Shapes: (N, P), (N, D) -> (N,)."""

    @abstractmethod
    def unroll(self, params: Tensor, temperature: float) -> Tensor:
        """Draws N frames, number by number; with temperature 0 the mode of every factor.

        Shapes: (N, P) -> (N, D).
        """


class AutoregressiveBernoulli(AutoregressiveLikelihood):
    r"""Bits that depend on those before them, for piano rolls: the conditional NADE of RNN-NADE.

    .. math::
        p(x_d = 1 | x_{<d}) = \sigma(b_d + V_d \cdot \sigma(c + \sum_{j<d} x_j W_j))

    The decoder's outputs are b, D logits, and c, `hidden` pre-activations; V and W are parameters
    of the likelihood. With V = 0 it is `Bernoulli`, and b starts as its logits do.

    Args:
        x_dim: D.
        hidden: units that see the bits before.

    References:
        The Neural Autoregressive Distribution Estimator (Larochelle and Murray, 2011); Modeling
        Temporal Dependencies in High-Dimensional Sequences (Boulanger-Lewandowski et al., 2012),
        https://arxiv.org/abs/1206.6392
    """

    kinds = ("binary",)

    def __init__(self, x_dim: int, hidden: int = 128) -> None:
        super().__init__()
        check_counts("model.likelihood.", hidden=hidden)

        self.x_dim, self.hidden = x_dim, hidden
        self.size = x_dim + hidden
        self.kept = 2 * x_dim * hidden
        self.independent = Bernoulli(x_dim)
        # No bit sees the last one.
        self.seen = nn.Parameter(torch.empty(x_dim - 1, hidden).uniform_(-0.08, 0.08))
        self.weight = nn.Parameter(torch.empty(x_dim, hidden).uniform_(-0.08, 0.08))

    def bias(self, means: Tensor | None = None) -> Tensor:
        bias = self.independent.bias(means)
        return torch.cat([bias, bias.new_zeros(self.hidden)])

    def fit(self, frames: Tensor) -> Tensor:
        return self.bias(frames.mean(0))

    def log_density(self, params: Tensor, x: Tensor, temperature: float) -> Tensor:
        b, before = params.split([self.x_dim, self.hidden], dim=-1)
        # A bit at a time: sums over all bits at once leave the cache, and take ten times longer.
        columns, logits = x.unbind(-1), []
        for d in range(self.x_dim):
            before = before if d == 0 else self.see(before, columns[d - 1], d - 1)
            logits.append(b[:, d] + before.sigmoid() @ self.weight[d])
        stacked = torch.stack(logits, dim=-1) / temperature
        return (x * stacked - softplus(stacked)).sum(-1)

    def unroll(self, params: Tensor, temperature: float) -> Tensor:
        b, before = params.split([self.x_dim, self.hidden], dim=-1)
        bits: list[Tensor] = []
        for d in range(self.x_dim):
            before = before if d == 0 else self.see(before, bits[-1], d - 1)
            logit = b[:, d] + before.sigmoid() @ self.weight[d]
            bits.append(self.independent.draw(logit, temperature))
        return torch.stack(bits, dim=-1)

    def see(self, before: Tensor, bit: Tensor, d: int) -> Tensor:
        """Adds what the hidden units see of bit d. Shapes: (N, hidden), (N,) -> (N, hidden)."""
        return torch.addcmul(before, bit[:, None], self.seen[d])

    def extra_repr(self) -> str:
        return f"x_dim={self.x_dim}, hidden={self.hidden}"


class AutoregressiveGaussianMixture(AutoregressiveLikelihood):
    r"""A GRU that runs over the frame; each number is a mixture of Gaussians given those before.

    .. math::
        g_j = GRU([x_{block j-1}, a_j], g_{j-1}), \quad
        p(x_d | x_{<d}) = \sum_k \pi_{d,k} N(x_d; \mu_{d,k}, \sigma_{d,k}^2)

    with the mixture's parameters a linear function of [g_j, a_j], j the block of d. Inside a block
    the numbers are independent. The decoder's outputs are the `hidden` pre-activations (tanh) of
    g_0 and, for every block, `context` numbers a_j; GRU and output layer are parameters of the
    likelihood.

    Args:
        x_dim: D.
        components: K.
        hidden: units of the GRU.
        block: numbers that it advances by in a step; must divide D.
        context: numbers of the decoder's that it sees in a step.

    Raises:
        ValueError: if a size is below 1, or `block` does not divide D.
    """

    kinds = ("real", "audio")

    def __init__(
        self,
        x_dim: int,
        components: int = 10,
        hidden: int = 64,
        block: int = 1,
        context: int = 4,
    ) -> None:
        super().__init__()
        check_counts("model.likelihood.", hidden=hidden, block=block, context=context)
        if x_dim % block != 0:
            raise ValueError(f"model.likelihood.block={block} does not divide x_dim={x_dim}")

        self.x_dim, self.components, self.hidden = x_dim, components, hidden
        self.block, self.context, self.blocks = block, context, x_dim // block
        self.size = hidden + self.blocks * context
        self.each = GaussianMixture(1, components)
        self.rnn = GRU(block + context, hidden)
        self.out = Linear(hidden + context, block * self.each.size)
        self.kept = self.blocks * 6 * hidden + x_dim * 3 * self.each.size
        with torch.no_grad():
            self.out.bias.copy_(self.each.bias().repeat(block))

    @torch.no_grad()
    def fit(self, frames: Tensor) -> Tensor:
        """One mixture for the numbers of all places of a frame."""
        self.out.bias.copy_(self.each.fit(frames.reshape(-1, 1)).repeat(self.block))
        return self.bias()

    def log_density(self, params: Tensor, x: Tensor, temperature: float) -> Tensor:
        state, context = self.conditions(params)
        blocks = x.unflatten(-1, (self.blocks, self.block)).transpose(0, 1)
        before = torch.cat([torch.zeros_like(blocks[:1]), blocks[:-1]])
        g, _ = self.rnn.sequence(torch.cat([before, context], dim=-1), state)
        return (
            self.each(self.factors(g, context), temperature)
            .log_prob(blocks[..., None])
            .sum((0, 2))
        )

    def unroll(self, params: Tensor, temperature: float) -> Tensor:
        state, context = self.conditions(params)
        blocks = [params.new_zeros(len(params), self.block)]
        for a in context:
            state = self.rnn.step(torch.cat([blocks[-1], a], dim=-1), state)
            factors = self.factors(state[0][-1], a)
            blocks.append(self.each.draw(factors, temperature).squeeze(-1))
        return torch.cat(blocks[1:], dim=-1)

    def conditions(self, params: Tensor) -> tuple[State, Tensor]:
        """g_0, (1, N, hidden), and a, (blocks, N, context)."""
        g, context = params.split([self.hidden, self.blocks * self.context], dim=-1)
        context = context.unflatten(-1, (self.blocks, self.context)).transpose(0, 1)
        return (g.tanh()[None].contiguous(),), context

    def factors(self, g: Tensor, context: Tensor) -> Tensor:
        """Parameters of each number's mixture, (*, block, Q)."""
        out: Tensor = self.out(torch.cat([g, context], dim=-1))
        return out.unflatten(-1, (self.block, self.each.size))

    def extra_repr(self) -> str:
        return (
            f"x_dim={self.x_dim}, components={self.components}, hidden={self.hidden}, "
            f"block={self.block}, context={self.context}"
        )
