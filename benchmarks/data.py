"""How fast a corpus of sound is read, beside how fast a model trains on it.

    python -m benchmarks.data [--hours 20] [--from FOLDER] [--json FILE]

Makes a corpus of ten-second clips in a temporary folder, of a rising tone in noise or, with
--from, of the sound files of a folder, end to end and at changing gain, and reports
  build  reading all files into shards, with as many processes as there are cores
  open   a new process: set-up with the statistics of the training split, then the first batch
  read   batches of 128 half seconds of the training split, shuffled, for one epoch at most
  train  steps of VRNN-Gauss in the size of conf/model/vrnn_gauss.yaml on such batches
each phase in a process of its own, with its peak of memory (resident, mapped files included), and
all of it for a quarter of the hours too: memory may grow with the number of windows, by less than
a hundred bytes each, but not with the sound.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from rich.progress import track

RATE = 16000
CLIP = 10 * RATE
FRAME, WINDOW, BATCH = 200, 40, 128
SECONDS = 20.0
"""At most, of reading and of training."""


def clips(source: Path | None) -> Iterator[np.ndarray]:
    """Ten seconds each, within -1 and 1, without end."""
    rng = np.random.default_rng(0)
    if source is None:
        t = np.arange(6 * CLIP, dtype=np.float32) / RATE
        base = np.sin(2 * np.pi * 40 * t * (1 + t / 60)) + 0.1 * rng.normal(size=len(t))
        while True:
            start = rng.integers(5 * CLIP)
            yield rng.uniform(0.02, 0.2) * base[start : start + CLIP]
    from datamodules.audio.file import read_sound
    from datamodules.audio.shards import find_sounds

    rest = np.zeros(0, np.float32)
    for name in itertools.cycle(find_sounds(source)):
        gain = rng.uniform(0.3, 1.0) / 2**15
        rest = np.concatenate([rest, gain * read_sound(source / name, RATE).samples])
        while len(rest) >= CLIP:
            yield rest[:CLIP]
            rest = rest[CLIP:]


def write_corpus(root: Path, hours: float, source: Path | None) -> None:
    count = max(20, round(hours * 3600 * RATE / CLIP))
    numbers = track(range(count), f"writing {hours:g} hours", transient=True)
    for i, clip in zip(numbers, clips(source), strict=False):
        folder = root / f"{i // 500:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{i:06d}.wav", clip.astype(np.float32), RATE, subtype="PCM_16")


def peak_memory() -> float:
    """MB, of this process alone."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def data_module(root: Path) -> Any:
    from datamodules.audio.corpus import AudioFolder

    return AudioFolder(root, window=WINDOW, batch_size=BATCH, frame=FRAME, rate=RATE)


def build(root: Path) -> dict[str, float]:
    from datamodules.audio.shards import Reading, find_sounds, read_sounds

    before, start = peak_memory(), time.perf_counter()
    read_sounds(root, find_sounds(root), root / ".vrnn-cache", Reading(RATE, FRAME, "drop"))
    seconds = time.perf_counter() - start
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {
        "seconds": seconds,
        "before_mb": before,
        "peak_mb": peak_memory(),
        "peak_mb_of_a_worker": workers,
    }


def open_first(root: Path) -> dict[str, float]:
    data = data_module(root)
    before, start = peak_memory(), time.perf_counter()
    data.setup()
    ready = time.perf_counter()
    next(iter(data.train_dataloader()))
    now = time.perf_counter()
    return {
        "seconds": now - start,
        "seconds_of_setup": ready - start,
        "before_mb": before,
        "peak_mb": peak_memory(),
    }


def run_batches(data: Any, use: Callable[[Any], object]) -> dict[str, float]:
    """Frames a second of going through the training split."""
    loader = data.train_dataloader()
    before, frames, start = peak_memory(), 0, time.perf_counter()
    for batch in loader:
        use(batch)
        frames += int(batch.mask.sum())
        if time.perf_counter() - start > SECONDS:
            break
    seconds = time.perf_counter() - start
    return {
        "frames": frames,
        "seconds": seconds,
        "frames_per_second": frames / seconds,
        "before_mb": before,
        "peak_mb": peak_memory(),
    }


def read(root: Path) -> dict[str, float]:
    data = data_module(root)
    data.setup()
    return run_batches(data, lambda batch: batch)


def train(root: Path) -> dict[str, float]:
    import torch

    from benchmarks.common import widths
    from vrnn import VRNN
    from vrnn.bounds import elbo
    from vrnn.likelihoods import GaussianMixture

    torch.manual_seed(0)
    model = VRNN(FRAME, 32, 256, GaussianMixture(FRAME), **widths(128))
    optimizer = torch.optim.Adam(model.parameters())

    def step(batch: Any) -> None:
        loss = -elbo(model.trace(batch.x, batch.mask), batch.x, batch.mask).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    data = data_module(root)
    data.setup()
    step(next(iter(data.train_dataloader())))
    return run_batches(data, step)


PHASES: dict[str, Callable[[Path], dict[str, float]]] = {
    "build": build,
    "open": open_first,
    "read": read,
    "train": train,
}


def measure(hours: float, source: Path | None) -> dict[str, dict[str, float]]:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder), hours, source)
        figures = {}
        for name, phase in PHASES.items():
            # Not a Pool, whose processes may not have children.
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                figures[name] = pool.submit(phase, Path(folder)).result()
    return figures


def report(hours: float, figures: dict[str, dict[str, float]]) -> None:
    print(f"{hours:g} hours of {RATE:,} Hz, {hours * 3600 * RATE / FRAME:,.0f} frames")
    for name, row in figures.items():
        speed = f"{row['frames_per_second']:12,.0f} frames/s" if "frames_per_second" in row else ""
        print(
            f"  {name:5} {row['seconds']:8.2f} s{speed:22}  peak {row['peak_mb']:7,.0f} MB, "
            f"{row['peak_mb'] - row['before_mb']:+,.0f} MB over the start",
            flush=True,
        )
    ratio = figures["read"]["frames_per_second"] / figures["train"]["frames_per_second"]
    print(f"  reading is {ratio:.1f} times as fast as training")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=20.0, help="(default: 20)")
    parser.add_argument("--from", dest="source", type=Path, help="folder of sound files to use")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()

    # Threads of the model; reading has one.
    threads = os.environ.get("OMP_NUM_THREADS", str(multiprocessing.cpu_count()))
    device = f"{platform.processor() or platform.machine()}, {threads} threads"
    print(device)
    rows = []
    for hours in (args.hours / 4, args.hours):
        figures = measure(hours, args.source)
        report(hours, figures)
        rows.append({"hours": hours, "figures": figures})
    if args.json:
        args.json.write_text(json.dumps({"device": device, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
