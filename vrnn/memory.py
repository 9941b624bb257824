"""Memory that is kept from batch to batch, and what to say when it is full."""

import ctypes
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["check_memory", "keep_freed_memory", "memory_told"]

# Of mallopt in glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Lets the C library keep what a process frees, for the next update or score to use.

    It would give large tensors back to the system, and have every page of the next one cleared
    anew, which takes a tenth of a float32 update or of a score on a CPU, and up to half of an
    update in bfloat16.

    Returns:
        Whether the C library knows how; glibc does.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    options = M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    return mallopt is not None and all(mallopt(option, LARGEST) for option in options)


@contextmanager
def memory_told(
    shape: torch.Size, particles: int, checkpoint_steps: int | None, segments: bool
) -> Iterator[None]:
    """Turns torch's errors about memory into a sentence that says what would need less.

    Args:
        shape: of the batch, (T, B, D).
        particles: K.
        checkpoint_steps: of the model.
        segments: the objective can be computed by segments of time.

    Raises:
        ValueError: if torch cannot allocate what it wants.
    """
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate" in str(error)):
            raise
        T, B, N = *shape[:2], max(1, math.isqrt(shape[0]))
        remedies = [f"data.batch_size below {B:,}", f"data.max_steps below {T:,}"]
        if particles > 1:
            remedies.insert(0, f"objective.particles below {particles:,}")
        if segments and (checkpoint_steps is None or checkpoint_steps > 2 * N):
            part = N / min(T, checkpoint_steps or T)
            remedies.insert(
                0,
                f"model.checkpoint_steps={N}, which keeps activations of {part:.1%} of the steps",
            )
        raise ValueError(
            f"memory is full in a batch of {B:,} sequences and {T:,} steps"
            f"{f', {particles:,} particles of each' if particles > 1 else ''}: try "
            f"{', or '.join(remedies)}"
        ) from error


def check_memory(steps: int, particles: int, z_dim: int) -> None:
    """Refuses more particles of one sequence than memory holds: of each step their noise, and
    what the filter remembers, as measured."""
    needed = 4 * steps * particles * (z_dim + 15)
    if needed > (free := free_memory()):
        raise ValueError(
            f"{particles:,} particles over {steps:,} steps need {needed / 2**30:,.1f} GiB, but "
            f"{free / 2**30:,.1f} are free: {int(particles * free / needed):,} would fit "
            "(--k; in training particles=, and under objective=fivo objective.particles=)"
        )


def free_memory() -> int:
    """Bytes of main memory that are free, or hold no more than copies of files."""
    try:
        with open("/proc/meminfo") as file:
            kinds = dict(line.split(":") for line in file)
        return int(kinds["MemAvailable"].split()[0]) * 1024
    except (OSError, LookupError, ValueError):
        pass
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
