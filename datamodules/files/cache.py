"""Caches on disk: where they lie, what they depend on, and one builder for many readers."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from datamodules.ragged import Ragged

log = logging.getLogger(__name__)

__all__ = ["Stamp", "cache_folder", "cache_root", "cached", "stamps"]


def cache_root(root: Path, cache: str | Path | None) -> Path:
    """The folder of a corpus's caches: <root>/.vrnn-cache, or another one."""
    return root / ".vrnn-cache" if cache is None else Path(cache).expanduser()


class Stamp(NamedTuple):
    """A file as a cache's recipe names it."""

    name: str
    """Relative to the corpus's root, with slashes."""
    size: int
    changed: int
    """Nanoseconds."""


def stamps(root: Path, names: Iterable[str]) -> list[Stamp]:
    """What caches of these files depend on."""
    stats = ((name, os.stat(root / name)) for name in names)
    return [Stamp(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def cache_folder(folder: Path, recipe: Mapping[str, object]) -> Path:
    """Returns where `cached` keeps what the recipe describes."""
    text = json.dumps(recipe, sort_keys=True)
    return folder / hashlib.sha256(text.encode()).hexdigest()[:16]


def cached(folder: Path, recipe: Mapping[str, object], build: Callable[[], Ragged]) -> Ragged:
    """Opens the cache of what the recipe describes, or builds and saves it.

    Of several processes that ask at once, one builds and the others wait. A cache that is there
    is opened without a lock, hence also from a read-only folder; a damaged one is rebuilt.

    Args:
        folder: holds one sub-folder per recipe.
        recipe: all that the result depends on, as JSON-compatible values.
        build: makes the sequences; what it raises is passed on.

    Raises:
        OSError: if the cache cannot be written. Nothing is left behind.
    """
    target = cache_folder(folder, recipe)
    name = target.name
    found = open_if_whole(target)
    if found is not None:
        return found
    lock = FileLock(folder / f".{name}.lock")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        acquire(lock)
    try:
        found = open_if_whole(target, warn=True)
        if found is not None:
            return found
        for leftover in folder.glob(f".{name}.*.partial"):
            shutil.rmtree(leftover, ignore_errors=True)
        built = build()
        with writing(folder):
            built.save(target)
        return Ragged.open(target)
    finally:
        lock.release()


def acquire(lock: FileLock) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that builds the cache (%s)", lock.lock_file)
        lock.acquire()


def open_if_whole(folder: Path, warn: bool = False) -> Ragged | None:
    if not folder.exists():
        return None
    try:
        return Ragged.open(folder)
    except (ValueError, FileNotFoundError) as error:
        if warn:
            log.warning("rebuilding a cache: %s", error)
        return None


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            f"the cache folder {folder.absolute()} cannot be written "
            f"({error.strerror or error}): choose another one by data.cache=<folder>"
        ) from error
