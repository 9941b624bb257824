"""What corpora on disk share: a place for their caches, what these depend on, many readers."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import NamedTuple, TypeVar

from rich.console import Console
from rich.progress import track

__all__ = ["Stamp", "cache_root", "in_processes", "stamps"]

T = TypeVar("T")
R = TypeVar("R")


def cache_root(root: Path, cache: str | Path | None) -> Path:
    """The folder of a corpus's caches: <root>/.vrnn-cache, or another one."""
    return root / ".vrnn-cache" if cache is None else Path(cache).expanduser()


class Stamp(NamedTuple):
    """A file as a cache's fingerprint knows it."""

    name: str
    """Relative to the corpus's root, with slashes."""
    size: int
    changed: int
    """Nanoseconds."""


def stamps(root: Path, names: Iterable[str]) -> list[Stamp]:
    """What caches of these files depend on."""
    stats = ((name, os.stat(root / name)) for name in names)
    return [Stamp(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def in_processes(
    function: Callable[[T], R],
    items: Sequence[T],
    description: str,
    processes: int | None = None,
    context: BaseContext | None = None,
) -> list[R]:
    """Calls a function for every item, in order, with a progress bar.

    Args:
        description: of the bar.
        processes: how many call it, by default one for each CPU core; 1 for this one alone.
        context: how processes are started, by default as usual on the platform.
    """
    if processes is None:
        processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    processes = min(processes, len(items))
    console = Console(stderr=True)
    if processes < 2:
        return [*map(function, track(items, description, console=console, transient=True))]
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        results = pool.map(function, items)
        return [*track(results, description, len(items), console=console, transient=True)]
