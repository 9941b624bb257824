"""How long one training step takes, beside what else could take it.

    python -m benchmarks.step [--json FILE] [--quick] [--busy]

A step is the trace, the ELBO and its gradient, float32, two-layer MLPs unless said otherwise:
  ours   the fast engine
  bf16   the same in mixed precision, on a GPU or a CPU with AMX or AVX512-BF16
  kernel, kernel16  on a GPU, the engine that runs the loop as one kernel, and in mixed precision
  plain  the plain engine
  jax    the same loss in JAX, jit and lax.scan, if JAX is installed
  lstm   torch.nn.LSTM of the same width, forwards and backwards: the recurrence alone
  limit  the multiply-adds of the step at the best rate of a large matrix product in this run
  mm     the same at the rate of torch.mm; the best may be that of oneDNN
Repetitions are interleaved, so that whatever else runs on the machine slows all alike. With --busy
every other one is beside two busy processes, as on a machine that others use. Where there is a GPU
it is used, at the paper's sizes, with TF32 products in torch as in JAX.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.common import DEVICE, benchmark, busy_processes, widths
from vrnn import VRNN
from vrnn.bounds import elbo
from vrnn.engine import native
from vrnn.likelihoods import GaussianMixture

try:
    import jax  # type: ignore[import-not-found]
    import jax.numpy as jnp  # type: ignore[import-not-found]
except ImportError:
    jax = None


class Size(NamedTuple):
    x: int
    features: int
    hidden: int
    z: int
    steps: int
    batch: int
    layers: int = 2
    """of every MLP"""

    @property
    def components(self) -> int:
        """of the likelihood, a mixture of Gaussians"""
        return 20 if self.x == 3 else 1


SIZES = [
    Size(3, 128, 256, 32, 600, 32, layers=1),
    Size(3, 64, 128, 16, 300, 32),
    Size(200, 512, 1024, 200, 40, 64),
    Size(3, 256, 1200, 50, 300, 32),
]
PAPER = [Size(3, 250, 1200, 50, 600, 64), Size(200, 500, 4000, 200, 40, 128, layers=4)]
"""IAM and Blizzard"""
QUICK = [Size(3, 16, 32, 4, 20, 8)]


def build(size: Size, engine: str) -> VRNN:
    torch.manual_seed(0)
    return VRNN(
        x_dim=size.x,
        z_dim=size.z,
        hidden=size.hidden,
        likelihood=GaussianMixture(size.x, size.components),
        mlp_layers=size.layers,
        engine=engine,
        **widths(size.features),
    ).to(DEVICE)


def torch_step(
    model: VRNN, x: torch.Tensor, noise: torch.Tensor, mixed: bool = False
) -> Callable[[], float]:
    mask = torch.ones(x.shape[:2], dtype=torch.bool, device=DEVICE)

    def step() -> float:
        model.zero_grad()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=mixed):
            loss = -elbo(model.trace(x, noise=noise), x, mask).mean()
        loss.backward()
        return loss.item()

    return step


def lstm_step(size: Size) -> Callable[[], float]:
    lstm = nn.LSTM(size.x, size.hidden).to(DEVICE)
    x = torch.randn(size.steps, size.batch, size.x, device=DEVICE)

    def step() -> float:
        lstm.zero_grad()
        loss = lstm(x)[0].sum()
        loss.backward()
        return loss.item()

    return step


def jax_step(model: VRNN, size: Size, x: torch.Tensor, noise: torch.Tensor) -> Callable[[], float]:
    """The step of an LSTM model in JAX, what does not depend on h outside the scan as well."""
    named = dict(model.named_parameters())
    parameters = {name: jnp.array(p.detach().cpu().numpy()) for name, p in named.items()}
    frames, draws = jnp.array(x.cpu().numpy()), jnp.array(noise.cpu().numpy())
    K, D, H = size.components, size.x, size.hidden

    def positive(a: Any) -> Any:
        return jax.nn.softplus(a) + 1e-4

    def log_normal(x: Any, mean: Any, std: Any) -> Any:
        log_p = jax.scipy.stats.norm.logpdf(x, mean, std)
        return log_p.sum(-1)

    def loss(p: dict[str, Any], x: Any, noise: Any) -> Any:
        def dense(name: str, x: Any) -> Any:
            return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

        def mlp(name: str, x: Any, first: int = 0) -> Any:
            for layer in range(first, size.layers):
                x = jax.nn.relu(dense(f"{name}.{2 * layer}", x))
            return x

        def gaussian(out: Any) -> tuple[Any, Any]:
            mean, a = jnp.split(out, 2, axis=-1)
            return mean, positive(a)

        phi_x = mlp("phi_x", x)
        encoder_u, encoder_h = jnp.split(p["cell.encoder.hidden.0.weight"], [size.features], 1)
        gates_x, gates_z = jnp.split(p["cell.rnn.input_weights.0"], [size.features], 1)
        from_u = phi_x @ encoder_u.T + p["cell.encoder.hidden.0.bias"]
        from_x = phi_x @ gates_x.T + p["cell.rnn.biases.0"]

        def step(state: tuple[Any, Any], inputs: tuple[Any, Any, Any]) -> tuple[Any, Any]:
            h, c = state
            from_u, from_x, noise = inputs
            hidden = mlp("cell.encoder.hidden", jax.nn.relu(from_u + h @ encoder_h.T), first=1)
            mean, std = gaussian(dense("cell.encoder.out", hidden))
            phi_z = mlp("cell.phi_z", mean + std * noise)
            gates = from_x + phi_z @ gates_z.T + h @ p["cell.rnn.hidden_weights.0"].T
            i, f, g, o = jnp.split(gates, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), (h, mean, std, phi_z)

        zero = jnp.zeros((size.batch, H))
        _, (h, mean, std, phi_z) = jax.lax.scan(step, (zero, zero), (from_u, from_x, noise))

        prior_mean, prior_std = gaussian(dense("cell.prior.out", mlp("cell.prior.hidden", h)))
        ratio, shift = std / prior_std, (mean - prior_mean) / prior_std
        kl = 0.5 * (ratio**2 + shift**2 - 1 - 2 * jnp.log(ratio)).sum(-1)

        out = dense("out", mlp("decoder", jnp.concatenate([phi_z, h], -1)))
        means, a, logits = jnp.split(out, [K * D, 2 * K * D], axis=-1)
        shape = (*x.shape[:2], K, D)
        log_p = log_normal(x[..., None, :], means.reshape(shape), positive(a).reshape(shape))
        log_w = jax.nn.log_softmax(logits) if K > 1 else 0.0
        log_p = jax.nn.logsumexp(log_p + log_w, axis=-1)
        return (kl - log_p).sum(0).mean()

    compiled = jax.jit(jax.value_and_grad(loss))

    def step() -> float:
        value, _ = jax.block_until_ready(compiled(parameters, frames, draws))
        return float(value)

    return step


Seconds = dict[str, float | None]
"""Of each contender the median, or None where it is not installed."""


def measure(size: Size, repetitions: int, busy: bool = False) -> dict[str, Seconds]:
    """Returns the seconds on the machine as it is and, if asked for, beside two busy processes."""
    ours = build(size, "fast")
    x = torch.randn(size.steps, size.batch, size.x, device=DEVICE)
    noise = torch.randn(size.steps, size.batch, size.z, device=DEVICE)
    square = torch.randn(2 * [8192 if DEVICE.type == "cuda" else 1536], device=DEVICE)
    contenders: dict[str, Callable[[], Any]] = {
        "ours": torch_step(ours, x, noise),
        "plain": torch_step(build(size, "plain"), x, noise),
        "lstm": lstm_step(size),
        "mm": lambda: (square @ square)[0, 0].item(),
    }
    if DEVICE.type == "cpu" and torch.backends.mkldnn.is_available():
        packed, onednn = square.to_mkldnn(), torch.ops.mkldnn._linear_pointwise
        contenders["onednn"] = lambda: onednn(square, packed, None, "none", [], "")
    if DEVICE.type == "cuda" or native.serves(DEVICE, torch.float32, torch.bfloat16):
        contenders["bf16"] = torch_step(ours, x, noise, mixed=True)
    if DEVICE.type == "cuda":
        kernel = build(size, "persistent")
        for name, mixed in {"kernel": False, "kernel16": True}.items():
            contenders[name] = torch_step(kernel, x, noise, mixed)
            try:
                contenders[name]()
            except ValueError as error:
                print(f"  {name}: {error}")
                del contenders[name]
    if jax is not None:
        contenders["jax"] = jax_step(ours, size, x, noise)

    loss, precision = contenders["ours"](), 1e-4 if DEVICE.type == "cpu" else 1e-2
    for name in contenders.keys() & {"kernel", "plain", "jax"}:
        assert abs(contenders[name]() - loss) < precision * abs(loss), f"{name} has another loss"

    states = ["seconds", "busy"] if busy else ["seconds"]
    seconds: dict[str, dict[str, list[float]]] = {
        state: {name: [] for name in contenders} for state in states
    }
    with busy_processes(2 if busy else 0) as run_others:
        for _ in range(repetitions):
            for state in states:
                run_others(state == "busy")
                for name, step in contenders.items():
                    start = time.perf_counter()
                    step()
                    seconds[state][name].append(time.perf_counter() - start)

    # Forwards each weight matrix meets each of the T * B rows once, and twice backwards.
    matrices = sum(p.numel() for p in ours.parameters() if p.ndim == 2)
    multiplications = 3 * matrices * size.steps * size.batch / len(square) ** 3
    return {state: medians(values, multiplications) for state, values in seconds.items()}


def medians(seconds: dict[str, list[float]], multiplications: float) -> Seconds:
    """Args:
    multiplications: of a step, as a multiple of those of a product that was measured.
    """
    found = {name: statistics.median(values) for name, values in seconds.items()}
    products = found.keys() & {"mm", "onednn"}
    found |= {name: found[name] * multiplications for name in products}
    found["limit"] = min(found[name] for name in products)
    some = [name for name in ("bf16", "kernel", "kernel16") if name in found]
    shown = ["ours", *some, "plain", "jax", "lstm", "limit", "mm"]
    return {name: found.get(name) for name in shown}


def report(size: Size, figures: dict[str, Seconds]) -> None:
    print("  ".join(f"{key} {value}" for key, value in size._asdict().items()))
    for state, seconds in figures.items():
        if state == "busy":
            print(" beside two busy processes")
        ours = seconds["ours"] or 0.0
        for name, value in seconds.items():
            cells = f"{value:9.3f} s {value / ours:7.2f} x ours" if value else "not installed"
            print(f"  {name:8} {cells}", flush=True)


def rows(quick: bool, busy: bool = False) -> Iterator[dict[str, Any]]:
    torch.set_float32_matmul_precision("highest" if DEVICE.type == "cpu" else "high")
    for size in QUICK if quick else SIZES if DEVICE.type == "cpu" else [*PAPER, *SIZES]:
        figures = measure(size, repetitions=3 if quick else 5, busy=busy)
        report(size, figures)
        yield {"size": size._asdict(), **figures}


def main() -> None:
    benchmark(__doc__, rows, busy="every other time beside two busy processes")


if __name__ == "__main__":
    main()
