"""How many steps a second are generated, beside what else could generate them.

    python -m benchmarks.generate [--json FILE] [--quick]

A step draws z and a frame and advances the state, float32, by one LSTM layer and one-layer MLPs:
  ours   `model.stream`, a frame at a time
  plain  the same by the plain loop, the specification
  jax    the same network in JAX, a jit-compiled step called frame by frame, if JAX is installed
  limit  the products of the step alone, by torch.addmm
Seconds are those of the median step. Repetitions are interleaved, so that whatever else runs on
the machine slows all alike. For speech the real-time factor is seconds of sound by second.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from benchmarks.common import benchmark, widths
from vrnn import VRNN
from vrnn.likelihoods import GaussianMixture, Likelihood, PenMixture

try:
    import jax  # type: ignore[import-not-found]
    import jax.numpy as jnp  # type: ignore[import-not-found]
except ImportError:
    jax = None

RATE = 16000
"""Samples a second of speech."""


class Size(NamedTuple):
    x: int
    features: int
    hidden: int
    z: int
    batch: int
    components: int

    @property
    def likelihood(self) -> Likelihood:
        return PenMixture(3, self.components) if self.x == 3 else GaussianMixture(self.x)


SIZES = [Size(x, 128, 256, 32, b, k) for x, k in ((3, 20), (200, 1)) for b in (1, 16, 64)]
QUICK = [Size(3, 8, 16, 4, 2, 3), Size(200, 8, 16, 4, 1, 1)]


def build(size: Size, engine: str) -> VRNN:
    torch.manual_seed(0)
    return VRNN(
        size.x, size.z, size.hidden, size.likelihood, engine=engine, **widths(size.features)
    )


def products(model: VRNN, batch: int) -> Callable[[], object]:
    cell, rnn = model.cell, model.cell.rnn
    networks = [model.phi_x, cell.phi_z, cell.prior, model.decoder, model.out]
    weights = [p for network in networks for p in network.parameters() if p.ndim == 2]
    weights += [p for p in rnn.parameters() if p.ndim == 2]
    transposed = [w.detach().t().contiguous() for w in weights]
    pairs = [(torch.zeros(w.shape[1]), torch.randn(batch, len(w)), w) for w in transposed]

    @torch.inference_mode()
    def step() -> None:
        for bias, x, weight in pairs:
            torch.addmm(bias, x, weight)

    return step


def jax_step(model: VRNN, size: Size) -> Callable[[], object]:
    p = {name: jnp.array(w.detach().numpy()) for name, w in model.named_parameters()}
    K, D = size.components, size.x

    def dense(p: Any, name: str, x: Any) -> Any:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def positive(a: Any) -> Any:
        return jax.nn.softplus(a) + 1e-4

    def draw(key: Any, params: Any) -> Any:
        if D != 3:
            mean, a = jnp.split(params, 2, -1)
            return mean + positive(a) * jax.random.normal(key, mean.shape)
        keys = jax.random.split(key, 3)
        cuts = [1, 1 + 2 * K, 1 + 4 * K, 1 + 5 * K]
        pen, mean, a, r, logits = jnp.split(params, cuts, -1)
        rows, k = jnp.arange(len(pen)), jax.random.categorical(keys[0], logits)
        mean, a = (part.reshape(-1, K, 2)[rows, k] for part in (mean, a))
        rho = (1 - 1e-4) * jnp.tanh(r[rows, k])
        e = jax.random.normal(keys[1], mean.shape)
        dy = rho * e[:, 0] + jnp.sqrt((1 - rho) * (1 + rho)) * e[:, 1]
        lift = jax.random.bernoulli(keys[2], jax.nn.sigmoid(pen))
        offset = mean + positive(a) * jnp.stack([e[:, 0], dy], -1)
        return jnp.concatenate([lift.astype(offset.dtype), offset], -1)

    def step(p: Any, h: Any, c: Any, key: Any) -> Any:
        key, of_z, of_x = jax.random.split(key, 3)
        relu = jax.nn.relu
        prior = dense(p, "cell.prior.out", relu(dense(p, "cell.prior.hidden.0", h)))
        mean, a = jnp.split(prior, 2, -1)
        z = mean + positive(a) * jax.random.normal(of_z, mean.shape)
        phi_z = relu(dense(p, "cell.phi_z.0", z))
        hidden = relu(dense(p, "decoder.0", jnp.concatenate([phi_z, h], -1)))
        x = draw(of_x, dense(p, "out", hidden))
        both = jnp.concatenate([relu(dense(p, "phi_x.0", x)), phi_z], -1)
        gates = both @ p["cell.rnn.input_weights.0"].T + p["cell.rnn.biases.0"]
        i, f, g, o = jnp.split(gates + h @ p["cell.rnn.hidden_weights.0"].T, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return x, jax.nn.sigmoid(o) * jnp.tanh(c), c, key

    compiled = jax.jit(step)
    zero = jnp.zeros((size.batch, size.hidden))
    state = [zero, zero, jax.random.PRNGKey(0)]

    def advance() -> None:
        x, *state[:] = compiled(p, *state)
        jax.block_until_ready(x)

    return advance


def measure(size: Size, rounds: int, steps: int) -> dict[str, float | None]:
    """Returns the median seconds of a step of each contender."""
    ours, plain = (build(size, engine).stream(size.batch) for engine in ("fast", "plain"))
    contenders: dict[str, Callable[[], Any]] = {
        "ours": lambda: next(ours),
        "plain": lambda: next(plain),
        "limit": products(build(size, "fast"), size.batch),
    }
    if jax is not None:
        contenders["jax"] = jax_step(build(size, "fast"), size)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(rounds + 1):
        for name, step in contenders.items():
            for _ in range(steps):
                start = time.perf_counter()
                step()
                if round_ > 0:  # The first one compiles, and packs weights.
                    seconds[name].append(time.perf_counter() - start)
    medians: dict[str, float | None] = dict.fromkeys(("ours", "plain", "jax", "limit"))
    return medians | {name: statistics.median(values) for name, values in seconds.items()}


def report(size: Size, seconds: dict[str, float | None]) -> None:
    print("  ".join(f"{key} {value}" for key, value in size._asdict().items()))
    ours = seconds["ours"] or 0.0
    for name, value in seconds.items():
        if value is None:
            print(f"  {name:5} not installed", flush=True)
            continue
        speech = f"{size.batch * size.x / RATE / value:9.1f} x real time" if size.x != 3 else ""
        rates = f"{1 / value:9,.0f} steps/s {size.batch / value:11,.0f} frames/s"
        print(f"  {name:5} {rates} {value / ours:7.2f} x ours{speech}", flush=True)


def rows(quick: bool) -> Iterator[dict[str, Any]]:
    for size in QUICK if quick else SIZES:
        seconds = measure(size, *((1, 5) if quick else (20, 100)))
        report(size, seconds)
        yield {"size": size._asdict(), "seconds": seconds}


def main() -> None:
    benchmark(__doc__, rows)


if __name__ == "__main__":
    main()
