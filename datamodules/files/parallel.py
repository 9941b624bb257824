"""Many files, read by several processes."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import BaseContext
from typing import TypeVar

from rich.console import Console
from rich.progress import track

__all__ = ["in_processes"]

T = TypeVar("T")
R = TypeVar("R")


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
