"""Writes small corpora of music, pens and own sequences, in the formats that are read."""

import json
from pathlib import Path

import numpy as np
from scipy.io import savemat

ROLLS = {
    "jsb": "JSB_Chorales",
    "nottingham": "Nottingham",
    "muse": "MuseData",
    "piano": "Piano_midi",
}

MAT_KEYS = {"train": "traindata", "valid": "validdata", "test": "testdata"}

WRITERS = {"sta": ["ann", "bob", "cid", "dan"], "aga": ["eve", "fay", "gus"]}

SEGMENTS = """.VERSION 1.0
.INCLUDE {part}/{part}.doc
.INCLUDE {part}/data/{writer}.dat
.SEGMENT TEXT 1-4 OK "What a \\"dirty\\" trick !"
.SEGMENT TEXT 5-6 ? "No one"
.SEGMENT TEXT 0-0 BAD "a test of the pen"
"""

# Component 3 is above the paper, the .PEN_UP before 2 is empty and has no number.
STROKES = """.COMMENT a file
\t # with art
.WRITER_ID {writer}
.PEN_DOWN
0 0
.PEN_DOWN
10 10
13 11
.PEN_UP
.PEN_DOWN
20 30
.PEN_UP
7 7
8 8
.PEN_DOWN
21 28
24 27
.PEN_DOWN
1 2
.DT 100
.PEN_DOWN
3 5
4 {last}
.PEN_UP
"""


def pieces(seed: int = 0, sizes: tuple[int, ...] = (5, 2, 3)) -> dict[str, list[np.ndarray]]:
    """Rolls (T, 88) of three splits."""
    rng = np.random.default_rng(seed)
    return {
        key: [np.uint8(rng.random((t, 88)) < 0.05) for t in rng.integers(4, 9, n)]
        for key, n in zip(MAT_KEYS, sizes, strict=True)
    }


def write_mat(path: Path, splits: dict[str, list[np.ndarray]]) -> Path:
    """Cells [0] of rolls, as the published files have them."""
    content = {}
    for key, rolls in splits.items():
        cells = np.empty((1, len(rolls)), object)
        for i, roll in enumerate(rolls):
            cells[0, i] = roll
        content[MAT_KEYS[key]] = cells
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, content)
    return path


def write_json(path: Path, splits: dict[str, list[np.ndarray]]) -> Path:
    content = {
        key: [[(21 + np.flatnonzero(step)).tolist() for step in roll] for roll in rolls]
        for key, rolls in splits.items()
    }
    path.write_text(json.dumps(content))
    return path


def write_unipen(root: Path) -> Path:
    for part, writers in WRITERS.items():
        segments = root / "data" / "8" / part / "inner"
        strokes = root / "include" / part / "data"
        segments.mkdir(parents=True, exist_ok=True)
        strokes.mkdir(parents=True, exist_ok=True)
        rate = {"sta": 200, "aga": 100}[part]
        (root / "include" / part / f"{part}.doc").write_text(
            f".COMMENT é\n.POINTS_PER_SECOND {rate}\n.COORD X Y\n", encoding="latin-1"
        )
        for i, writer in enumerate(writers):
            text = SEGMENTS.format(part=part, writer=writer)
            (segments / f"{writer}.dat").write_text(text, encoding="latin-1")
            text = STROKES.format(writer=f"{part}-{writer}", last=9 + i)
            (strokes / f"{writer}.dat").write_text(text, encoding="latin-1")
    return root


def sequences(n: int, width: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(3, 2, (t, width)).round(3) for t in rng.integers(3, 9, n)]


def write_csvs(root: Path, n: int = 8, header: str = "a,b") -> Path:
    (root / "sub").mkdir(parents=True, exist_ok=True)
    for i, x in enumerate(sequences(n, 2)):
        lines = [header, *(",".join(map(str, frame)) for frame in x)]
        (root / "sub" / f"{i}.csv").write_text("\n".join(lines) + "\n")
    return root


def write_arrays(root: Path, n: int = 8, width: int = 2) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for i, x in enumerate(sequences(n, width)):
        np.save(root / f"{i}.npy", x)
    return root


def write_drawings(root: Path, n: int = 8) -> Path:
    """[dx, dy, pen]."""
    root.mkdir(parents=True, exist_ok=True)
    for i, x in enumerate(sequences(n, 3)):
        x[:, 2] = np.arange(len(x)) % 3 == 2
        np.save(root / f"{i}.npy", x.astype(np.int16))
    return root


def write(data: str, root: Path) -> Path:
    """The corpus that data=... reads from a root."""
    if data in ROLLS:
        write_mat(root / f"{ROLLS[data]}.mat", pieces())
        return root
    writers = {
        "unipen": write_unipen,
        "csv_folder": write_csvs,
        "npz_folder": write_arrays,
        "stroke3": write_drawings,
    }
    return writers[data](root)
