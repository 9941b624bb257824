"""All lines of the IAM On-Line Handwriting Database, parsed once and cached."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np

from datamodules.files.cache import Stamp, cached, stamps
from datamodules.files.parallel import in_processes
from datamodules.files.problems import Missing, report, some
from datamodules.handwriting.iam_xml import LINE, find_lines, form_of, read_text, try_lines
from datamodules.handwriting.pen import offsets
from datamodules.ragged import Ragged

__all__ = ["no_corpus", "parse_lines", "read_corpus"]

log = logging.getLogger(__name__)

VERSION = 1
"""Counts in the cache's recipe: raise it whenever the same files give other sequences."""

DROPPED = frozenset({"z01-000z"})
"""Transcribed as "Please Enter Transcription here", and in none of the corpus's lists."""

CHUNK = 128
"""Files that a process parses at a time."""


def read_corpus(
    root: Path,
    forms: Mapping[str, Sequence[str]],
    cache: Path,
    *,
    missing: Missing = "error",
) -> dict[str, Ragged]:
    """Reads the lines of some forms as pen offsets.

    All lines below the root are parsed once, into one cache; each part selects from it. Lines
    of fewer than two points are left out.

    Args:
        root: the folder with `lineStrokes/` and, if there are transcriptions, `ascii/`.
        forms: the form ids of each part, e.g. from `split_forms`.
        cache: the folder for caches; a new one is made whenever a file of the corpus changes.
        missing: what to do about forms that are not on disk, and files that are broken.

    Returns:
        For each part its lines, each offsets (T, 3) in float32 (pen-up flag, dx, dy with
        y upwards, in the corpus's units), with the label "text" (empty if unknown).

    Raises:
        FileNotFoundError: if there is no corpus, or a part has no lines.
        ValueError: if forms are missing, or files broken. The other lines are in the cache
            nevertheless.
    """
    recipe = {"corpus": "IAM-OnDB", "version": VERSION, "files": list_files(root)}
    corpus = cached(cache / "iam", recipe, partial(parse_corpus, root))
    lines: dict[str, list[int]] = {}
    for i, key in enumerate(corpus.keys):
        lines.setdefault(form_of(key), []).append(i)
    wanted = set(chain.from_iterable(forms.values()))
    if absent := sorted(wanted - lines.keys()):
        message = (
            f"{len(absent)} of the {len(wanted)} forms in the lists have no lines in "
            f"{root / 'lineStrokes'}: {some(absent)}"
        )
        if missing == "error":
            raise ValueError(
                f"{message}. Complete the corpus, choose other lists by data.split, or go on "
                "without these forms by data.missing=skip"
            )
        log.warning("skipped: %s", message)
    chosen = {
        part: np.array([i for form in ids for i in lines.get(form, ())], dtype=np.int64)
        for part, ids in forms.items()
    }
    used = corpus.select(np.unique(np.concatenate([*chosen.values()])))
    broken = used.labels["problem"] != ""
    report(used.labels["problem"][broken].tolist(), len(used), missing)
    short = int(((used.lengths == 0) & ~broken).sum())
    if short:
        log.warning("skipped: %d lines of fewer than two points", short)
    parts = {}
    for part, index in chosen.items():
        whole = corpus.select(index[corpus.lengths[index] > 0])
        parts[part] = replace(whole, labels={"text": whole.labels["text"]})
        if not len(whole):
            raise FileNotFoundError(
                f"none of the {len(forms[part])} forms of {part!r} has lines in "
                f"{root / 'lineStrokes'}: choose other lists by data.{part}="
            )
    return parts


def no_corpus(root: Path) -> FileNotFoundError:
    """Returns the error which says that there is no corpus below this folder, and what to do."""
    return FileNotFoundError(
        f"there is no IAM-OnDB in {root.absolute()}: looked for stroke files such as "
        f"lineStrokes/a01/a01-000/a01-000u-01.xml. The IAM On-Line Handwriting Database is to be "
        f"requested from its makers (registration at the FKI, University of Bern). Unpack it and "
        f"name its folder by data.root=<folder> (default: $VRNN_DATA/iam), or use "
        f"data=synthetic_handwriting, which needs no download"
    )


def list_files(root: Path) -> list[Stamp]:
    """Stamps all stroke and text files."""
    strokes = sorted((root / "lineStrokes").rglob("*.xml"))
    if not strokes:
        raise no_corpus(root)
    texts = sorted((root / "ascii").rglob("*.txt"))
    return stamps(root, [path.relative_to(root).as_posix() for path in strokes + texts])


def parse_corpus(root: Path) -> Ragged:
    names = (name for _, _, files in os.walk(root / "lineStrokes") for name in files)
    forms = {match[1] for name in names if (match := LINE.fullmatch(name))}
    lines = find_lines(root, sorted(forms - DROPPED))
    keys = [key for key, _ in lines]
    sequences: list[np.ndarray] = []
    problems: list[str] = []
    for parsed in parse_lines([path for _, path in lines]):
        problems.append(parsed if isinstance(parsed, str) else "")
        if isinstance(parsed, str) or len(parsed) < 2:
            sequences.append(np.zeros((0, 3), dtype=np.float32))
        else:
            sequences.append(offsets(parsed))
    labels = {"text": texts_of(root, keys), "problem": problems}
    return Ragged.from_sequences(sequences, keys, labels)


def parse_lines(
    paths: Sequence[Path], processes: int | None = None, context: BaseContext | None = None
) -> list[np.ndarray | str]:
    """Parses lines in several processes, with a progress bar.

    Args:
        paths: the files.
        processes, context: of `in_processes`.

    Returns:
        The points (n, 3) of each line, or the error message of a broken file.
    """
    chunks = [list(paths[i : i + CHUNK]) for i in range(0, len(paths), CHUNK)]
    parsed = in_processes(try_lines, chunks, "parsing IAM-OnDB", processes, context)
    return [*chain.from_iterable(parsed)]


def texts_of(root: Path, keys: Iterable[str]) -> list[str]:
    texts: dict[str, list[str]] = {}
    found = []
    for key in keys:
        form, _, number = key.rpartition("-")
        if form not in texts:
            path = root / "ascii" / form[:3] / form[:7] / f"{form}.txt"
            texts[form] = read_text(path) if path.is_file() else []
        found.append(texts[form][int(number) - 1] if 0 < int(number) <= len(texts[form]) else "")
    return found
