"""UNIPEN: lines of text by many writers on many tablets."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from datamodules.base import SequenceData
from datamodules.files.cache import cache_root, cached, stamps
from datamodules.files.problems import Missing, check_missing, report
from datamodules.files.splits import SPLITS, shares
from datamodules.handwriting.unipen_files import Segment, read_file
from datamodules.ragged import Ragged

__all__ = ["Unipen"]

log = logging.getLogger(__name__)

VERSION = 1
"""Counts in the cache's recipe: raise it whenever the same files give other sequences."""

SHARE = 0.1
"""Of a part's writers, for validation and for the test each."""


class Unipen(SequenceData):
    """Segments of UNIPEN train_r01_v07, each a sequence of [pen, dx, dy], y up.

    Units differ by tablet, hence a normaliser per coordinate. A tenth of each part's writers, at
    least one, is held back for validation and another for the test, so that no writer is in two
    splits. Keys and the label "writer" number the writers, whose names some files hold.

    Args:
        root: folder that holds data/ and include/.
        parts: such as ["sta", "aga"], folders below data/<category>/.
        category: of the corpus; "8" is text.
        split_seed: of the choice of writers.
        missing: what to do about files that cannot be used, "error" or "skip".
        cache: folder of the parsed corpus; None for <root>/.vrnn-cache.
        **kwargs: of `SequenceData`.
    """

    name = "unipen"
    kind = "pen"
    columns = ("pen", "dx", "dy")
    binary = (0,)
    rate = 100.0

    def __init__(
        self,
        root: str | Path,
        parts: Sequence[str] = ("sta", "aga"),
        category: str | int = "8",
        split_seed: int = 0,
        missing: Missing = "error",
        cache: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_missing(missing)
        if isinstance(parts, str) or not parts:
            raise ValueError(f"data.parts={parts} must be a list of parts, such as [sta,aga]")

        self.root = Path(root).expanduser()
        self.parts, self.category = list(parts), str(category)
        self.split_seed, self.missing = split_seed, missing
        self.cache = cache_root(self.root, cache)

    def load(self) -> dict[str, Ragged]:
        parts = [self.read_part(part) for part in self.parts]
        # A number that pictures want; most frames' tablet.
        rates = np.concatenate([np.repeat(p.labels["rate"], p.lengths) for p in parts])
        values, counts = np.unique(rates[np.isfinite(rates)], return_counts=True)
        self.rate = float(values[counts.argmax()]) if len(values) else Unipen.rate
        picked = [self.split_part(part) for part in parts]
        return {split: join([p[split] for p in picked]) for split in SPLITS}

    def read_part(self, part: str) -> Ragged:
        """Reads or opens one part; files that cannot be used are reported."""
        folder = self.root / "data" / self.category / part
        files = sorted(folder.rglob("*.dat"))
        if not files:
            raise FileNotFoundError(
                f"there is no UNIPEN part {part} in {self.root.absolute()}: looked for .dat files "
                f"below {folder}. UNIPEN train_r01_v07 is at doi.org/10.5281/zenodo.1195803; name "
                "the folder that holds data/ and include/ by data.root=<folder>, parts by "
                "data.parts=[sta,aga]"
            )
        sources = files + [f for f in (self.root / "include" / part).rglob("*") if f.is_file()]
        names = sorted(file.relative_to(self.root).as_posix() for file in sources)
        stamped = stamps(self.root, names)
        recipe = {"corpus": "UNIPEN", "version": VERSION, "files": stamped}
        build = partial(parse_part, part, files, self.root / "include")
        corpus = cached(self.cache / "unipen", recipe, build)
        problems = [str(problem) for problem in corpus.labels["problem"] if problem]
        report(problems, len(files), self.missing)
        short = int(((corpus.lengths == 0) & (corpus.labels["problem"] == "")).sum())
        if short:
            log.warning("skipped: %d segments of %s with fewer than two points", short, part)
        return corpus.select(np.flatnonzero(corpus.lengths))

    def split_part(self, part: Ragged) -> dict[str, Ragged]:
        writers = np.unique(part.labels["writer"])
        if len(writers) < 3:
            name = part.keys[0].partition("-")[0] if len(part) else "a part"
            raise ValueError(
                f"data=unipen: {name} has {len(writers)} writers, too few for three splits; "
                "choose other parts by data.parts="
            )
        chosen = shares(writers.tolist(), SHARE, SHARE, self.split_seed)
        return {
            split: part.select(np.flatnonzero(np.isin(part.labels["writer"], names)))
            for split, names in chosen.items()
        }


def parse_part(part: str, files: Sequence[Path], include: Path) -> Ragged:
    """Reads the files of a part; one that cannot be used leaves an empty sequence that says why
    by its label "problem".

    Raises:
        OSError: if a file cannot be opened; what may be otherwise tomorrow is not cached.
    """
    segments: list[Segment] = []
    problems: list[str] = []
    for file in track(files, f"reading UNIPEN {part}", transient=True):
        try:
            segments += read_file(file, include)
        except (ValueError, FileNotFoundError) as error:  # what is included may not be there
            problems.append(str(error))
    names = sorted({segment.writer for segment in segments})
    writers = [f"{part}-{names.index(segment.writer):02d}" for segment in segments]
    empty = [np.zeros((0, 3), np.float32)] * len(problems)
    counts: dict[str, int] = {}
    keys = []
    for writer in writers:
        counts[writer] = counts.get(writer, -1) + 1
        keys.append(f"{writer}-{counts[writer]:03d}")
    labels: dict[str, list[Any]] = {
        "text": [segment.text for segment in segments] + [""] * len(problems),
        "writer": writers + [""] * len(problems),
        "rate": [segment.rate for segment in segments] + [np.nan] * len(problems),
        "problem": [""] * len(segments) + problems,
    }
    unusable = [f"unusable-{i}" for i in range(len(problems))]
    return Ragged.from_sequences([s.x for s in segments] + empty, keys + unusable, labels)


def join(parts: Sequence[Ragged]) -> Ragged:
    """One after the other, with the labels that people ask for."""
    labels = {
        name: np.concatenate([part.labels[name] for part in parts]) for name in ("text", "writer")
    }
    keys = [key for part in parts for key in part.keys]
    return Ragged.from_sequences([x for part in parts for x in part], keys, labels)
