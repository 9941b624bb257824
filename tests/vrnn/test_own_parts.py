"""What a user puts in the place of a part counts on every path, also on the fast ones."""

import pytest
import torch
from support.small_data import Rolls, Tones
from torch import nn

from runs.checks import check_kind
from vrnn import RNN, VRNN, bounds
from vrnn.cell import VRNNCell
from vrnn.layers.recurrent import LSTM
from vrnn.likelihoods import GaussianMixture, Likelihood
from vrnn.models.base import SequenceModel
from vrnn.objectives import FIVO

pytestmark = pytest.mark.usefixtures("float64")


class LoudVRNN(VRNN):
    def decode_features(self, phi_z, h):
        return super().decode_features(phi_z, h) + 100


class LoudRNN(RNN):
    def features(self, x):
        return 3 * super().features(x)


class HalfLSTM(LSTM):
    @staticmethod
    def update(wx, uh, state):
        return LSTM.update(0.5 * wx, uh, state)

    def sequence(self, x, state):
        rows = []
        for x_t in x:
            state = self.step(x_t, state)
            rows.append(state[0][-1])
        return torch.stack(rows), state


class WideCell(VRNNCell):
    def infer(self, u, h):
        mean, std = super().infer(u, h)
        return mean, 2 * std

    def features(self, z, h):
        return super().features(z, h).square()


class OwnPrior(nn.Module):
    def __init__(self, prior):
        super().__init__()
        self.inner = prior

    def forward(self, h):
        mean, std = self.inner(h)
        return mean + 1, std


def replaced(name):
    def change(model):
        if name == "cell":
            old = model.cell
            parts = (old.prior, old.encoder, old.phi_z, old.rnn)
            model.cell = WideCell(*parts, residual=old.residual)
        elif name == "prior":
            model.cell.prior = OwnPrior(model.cell.prior)
        elif name == "rnn":
            new = HalfLSTM(model.cell.rnn.parents, model.cell.rnn.hidden)
            new.load_state_dict(model.cell.rnn.state_dict())
            model.cell.rnn = new
        else:
            layers = {
                "decoder": model.decoder,
                "phi_x": model.phi_x,
                "phi_z": model.cell.phi_z,
                "encoder": model.cell.encoder.hidden,
            }
            layers[name][1] = nn.Tanh()

    return change


PARTS = ["cell", "prior", "rnn", "decoder", "phi_x", "phi_z", "encoder"]


@pytest.mark.parametrize("part", PARTS)
def test_a_replaced_part_counts_in_generation_and_training(part, make_model):
    options = {"residual": True}
    fast, plain = (make_model(VRNN, engine=engine, **options) for engine in ("fast", "plain"))
    plain.load_state_dict(fast.state_dict())
    x, noise, drawn = torch.randn(5, 2, 3), torch.randn(5, 2, 2), torch.randn(4, 2, 2)
    before = fast.trace(x, noise=noise).likelihood.log_prob(x)
    for model in (fast, plain):
        replaced(part)(model)
    traces = [model.trace(x, noise=noise) for model in (fast, plain)]
    values = [trace.likelihood.log_prob(x) for trace in traces]
    torch.testing.assert_close(*values)
    if part != "prior":
        assert not torch.allclose(values[0], before)
    frames = [list(m.frames(m.initial(2), iter(drawn), 0.0)) for m in (fast, plain)]
    for one, other in zip(*frames, strict=True):
        torch.testing.assert_close(one.params, other.params)
        torch.testing.assert_close(one.z, other.z)
    mask = torch.ones(5, 2, dtype=torch.bool)
    filtered = FIVO(1)(fast, x, mask, torch.Generator().manual_seed(0), 0)
    noise = FIVO(1).noise(fast, x, torch.Generator().manual_seed(0))
    log_w = bounds.log_weights(plain.trace(x, noise=noise), x, mask)
    torch.testing.assert_close(filtered.bound, log_w.sum())


@pytest.mark.parametrize("kind", [LoudVRNN, LoudRNN])
def test_a_method_of_a_subclass_counts_in_generation(kind, make_model):
    model = make_model(kind.__base__)
    model.__class__ = kind
    noise = torch.randn(4, 2, model.z_dim)
    ours = list(model.frames(model.initial(2), iter(noise), 0.0))
    plain = list(SequenceModel.frames(model, model.initial(2), iter(noise), 0.0))
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one.params, other.params)


def test_the_compiled_loop_says_whose_it_is(make_model):
    model = make_model(VRNN, engine="native")
    replaced("encoder")(model)
    with pytest.raises(ValueError, match="native cannot run: it does not know Tanh"):
        model.trace(torch.randn(2, 1, 3))
    model = make_model(VRNN, engine="native")
    replaced("cell")(model)
    with pytest.raises(ValueError, match="it is that of VRNNCell, not of WideCell"):
        model.trace(torch.randn(2, 1, 3))


class AnyKind(Likelihood):
    def __init__(self, x_dim):
        super().__init__()
        self.x_dim, self.size = x_dim, 2 * x_dim

    def forward(self, params, temperature=1.0):
        raise NotImplementedError


def test_a_likelihood_that_names_no_kinds_takes_all(make_model):
    for kind in (Tones, Rolls):
        data = kind()
        check_kind(make_model(RNN, AnyKind(data.x_dim)), data, "")
    with pytest.raises(ValueError, match="GaussianMixture describes real or audio frames"):
        check_kind(make_model(RNN, GaussianMixture(data.x_dim)), data, "")
