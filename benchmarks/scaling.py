"""How time and memory of a training step grow.

    python -m benchmarks.scaling [--json FILE] [--quick]

A step is the objective and its gradient, float32, for a VRNN with a mixture output on frames of
three numbers. From a middle size, one number at a time grows: T, B, units, particles (K > 1: of
IWAE) and processes, each of which has B sequences of its own and shares gradients by gloo. A time
is the median of several steps; the last column is its growth by that of the work, 1 where time is
linear. Memory is the peak of a fresh process over its start, for one step, with and without
checkpoint_steps = sqrt(T).
"""

import math
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.progress import track
from torch import Tensor, nn

from benchmarks.common import benchmark, widths
from benchmarks.data import peak_memory
from vrnn import VRNN
from vrnn.likelihoods import GaussianMixture
from vrnn.objectives import ELBO, IWAE


class Size(NamedTuple):
    steps: int = 200
    batch: int = 16
    hidden: int = 128
    particles: int = 1
    processes: int = 1
    checkpoint_steps: int | None = None

    @property
    def work(self) -> int:
        """Rows that go through the network, of all processes."""
        return self.steps * self.batch * self.particles * self.processes


MIDDLE = Size()
GROWTH: dict[str, list[int]] = {
    "steps": [50, 200, 1000, 5000],
    "batch": [1, 4, 16, 64],
    "hidden": [64, 128, 256, 512],
    "particles": [1, 2, 4, 8],
    "processes": [1, 2],
}
LENGTHS = [500, 2000, 8000, 16000]
MEMORY = Size(batch=4)

QUICK = Size(steps=8, batch=2, hidden=8)
QUICK_GROWTH = {"steps": [4, 8], "particles": [1, 2], "processes": [1, 2]}
QUICK_LENGTHS = [36]


class Step(nn.Module):
    """The loss of one training step."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.objective = IWAE(size.particles) if size.particles > 1 else ELBO()
        self.model = VRNN(
            x_dim=3,
            z_dim=max(size.hidden // 8, 1),
            hidden=size.hidden,
            likelihood=GaussianMixture(3, 20),
            checkpoint_steps=size.checkpoint_steps,
            **widths(size.hidden // 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(x.shape[:2], dtype=torch.bool)
        loss: Tensor = self.objective(self.model, x, mask, torch.Generator(), 0).loss
        return loss


def run(size: Size, repetitions: int, rank: int = 0, meeting: str | None = None) -> list[float]:
    """Seconds of every step; the processes meet at a file."""
    step: nn.Module = Step(size)
    if meeting is not None:
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{meeting}",
            rank=rank,
            world_size=size.processes,
            timeout=timedelta(minutes=5),
        )
        step = nn.parallel.DistributedDataParallel(step)
    x = torch.randn(size.steps, size.batch, 3)
    seconds = []
    for _ in range(repetitions + 1):
        start = time.perf_counter()
        step.zero_grad()
        step(x).backward()
        seconds.append(time.perf_counter() - start)
    if meeting is not None:
        # Gloo's threads let go of Python objects while this one sleeps. The group's end waits for
        # them with the interpreter in hand, so that they would wait for each other.
        torch.distributed.barrier()
        time.sleep(0.2)
        torch.distributed.destroy_process_group()
    return seconds[1:]


def time_of(size: Size, repetitions: int) -> float:
    """Median seconds of a step."""
    if size.processes == 1:
        return statistics.median(run(size, repetitions))
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(size.processes, mp_context=context) as pool,
    ):
        meeting = str(Path(folder) / "meeting")
        jobs = [pool.submit(run, size, repetitions, n, meeting) for n in range(size.processes)]
        return statistics.median(
            max(times) for times in zip(*(job.result() for job in jobs), strict=True)
        )


def one_step(size: Size) -> tuple[float, float]:
    """Seconds of one step, and MB that it adds to the peak of this process."""
    run(size._replace(steps=4, checkpoint_steps=None), 0)
    before, start = peak_memory(), time.perf_counter()
    run(size, 0)
    return time.perf_counter() - start, peak_memory() - before


def measure_growth(
    middle: Size, growth: dict[str, list[int]], repetitions: int
) -> list[dict[str, Any]]:
    rows = []
    for key, values in growth.items():
        print(f"{key}, from {middle.steps} steps of {middle.batch} sequences")
        sizes = [middle._replace(**{key: value}) for value in values]
        first = None
        for size in track(sizes, key, transient=True):
            seconds = time_of(size, repetitions)
            first = first or seconds
            grown = seconds / first / (size.work / sizes[0].work)
            sequences = size.batch * size.processes / seconds
            print(
                f"  {key} {getattr(size, key):5}{seconds:9.3f} s{sequences:9.1f} sequences/s"
                f"{grown:7.2f}",
                flush=True,
            )
            rows.append({"size": size._asdict(), "seconds": {"ours": seconds}})
    return rows


def measure_memory(middle: Size, lengths: list[int]) -> list[dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    rows = []
    print(f"peak memory of a step, {middle.batch} sequences, {middle.hidden} units")
    for steps in track(lengths, "memory", transient=True):
        for checkpoint in (None, math.isqrt(steps)):
            size = middle._replace(steps=steps, checkpoint_steps=checkpoint)
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                seconds, peak = pool.submit(one_step, size).result()
            print(
                f"  steps {steps:6}  checkpoint_steps {checkpoint or 'null':>5}{peak:9,.0f} MB"
                f"{seconds:9.2f} s",
                flush=True,
            )
            row = {"size": size._asdict(), "seconds": {"ours": seconds}, "peak_mb": peak}
            rows.append(row)
    return rows


def rows(quick: bool) -> list[dict[str, Any]]:
    if quick:
        return measure_growth(QUICK, QUICK_GROWTH, 1) + measure_memory(QUICK, QUICK_LENGTHS)
    return measure_growth(MIDDLE, GROWTH, 5) + measure_memory(MEMORY, LENGTHS)


def main() -> None:
    benchmark(__doc__, rows)


if __name__ == "__main__":
    main()
