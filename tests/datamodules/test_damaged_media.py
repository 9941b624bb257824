"""Damaged sound, music, handwriting, tables and archives: read, or refused in one sentence."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from support.damage import DAMAGE, MANY, damaged, one_sentence
from support.small_corpora import write_json, write_mat, write_unipen

from datamodules.audio.file import read_sound
from datamodules.files.arrays import read_arrays, read_csv
from datamodules.files.download import unpack
from datamodules.handwriting.unipen_files import read_file
from datamodules.music import read_json, read_mat

pytestmark = pytest.mark.slow

Damage = list[tuple[str, float, int]]


def read_or_refused(read: Callable[[Path], Any], path: Path) -> Any:
    try:
        return read(path)
    except (ValueError, OSError) as error:
        one_sentence(error, path)
        return None


def spoilt(whole: Path, damage: Damage) -> Path:
    path = whole.with_name(f"damaged_{whole.name}")
    path.write_bytes(damaged(whole.read_bytes(), damage))
    return path


SOUNDS = [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", None), ("NIST", None)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    noise = rng.integers(-9000, 9000, 4000).astype(np.int16)
    for kind, subtype in SOUNDS:
        soundfile.write(root / f"sound.{kind.lower()}", noise, 8000, subtype, format=kind)
    rolls = [(rng.random((6, 88)) < 0.05).astype(np.uint8) for _ in range(3)]
    write_mat(root / "rolls.mat", dict.fromkeys(("train", "valid", "test"), rolls))
    write_json(root / "rolls.json", dict.fromkeys(("train", "valid", "test"), rolls))
    np.savez(root / "arrays.npz", a=rng.random((5, 2)), b=rng.random((3, 2)))
    (root / "table.csv").write_text("a,b\n" + "".join(f"{i},{i / 7}\n" for i in range(20)))
    return root


@given(damage=DAMAGE, kind=st.sampled_from([kind.lower() for kind, _ in SOUNDS]))
@MANY
def test_damaged_sound(damage: Damage, kind: str, folder: Path) -> None:
    path = spoilt(folder / f"sound.{kind}", damage)
    sound = read_or_refused(lambda path: read_sound(path, 8000), path)
    if sound is not None:
        assert sound.samples.dtype == np.int16 and 0 < len(sound.samples) < 10**7


@given(damage=DAMAGE, name=st.sampled_from(["rolls.mat", "rolls.json"]))
@MANY
def test_damaged_rolls(damage: Damage, name: str, folder: Path) -> None:
    path = spoilt(folder / name, damage)
    splits = read_or_refused(read_mat if name.endswith("mat") else read_json, path)
    for rolls in (splits or {}).values():
        assert all(set(np.unique(roll)) <= {0, 1} for roll in rolls)


@given(damage=DAMAGE, name=st.sampled_from(["arrays.npz", "table.csv"]))
@MANY
def test_damaged_tables(damage: Damage, name: str, folder: Path) -> None:
    path = spoilt(folder / name, damage)
    found = read_or_refused(read_arrays if name.endswith("npz") else read_csv, path)
    assert all(np.isfinite(sequence.x).all() for sequence in found or [])


@given(damage=DAMAGE, which=st.floats(0, 1, exclude_max=True))
@MANY
def test_damaged_tablet_files(damage: Damage, which: float, tmp_path_factory: Any) -> None:
    """Of UNIPEN: the error names the file, which may be one that is included."""
    root = write_unipen(tmp_path_factory.mktemp("unipen"))
    files = sorted(path for path in root.rglob("*") if path.is_file())
    victim = files[int(which * len(files))]
    victim.write_bytes(damaged(victim.read_bytes(), damage))
    for path in sorted(path for path in (root / "data").rglob("*") if path.is_file()):
        try:
            segments = read_file(path, root / "include")
        except (ValueError, FileNotFoundError) as error:
            one_sentence(error, root)
        else:
            assert all(np.isfinite(segment.x).all() for segment in segments)


def archive(kind: str) -> bytes:
    content = io.BytesIO()
    texts = {"a/one.txt": b"one" * 50, "a/b/two.txt": bytes(300), "three.txt": b"3"}
    if kind == "zip":
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
            for name, text in texts.items():
                file.writestr(name, text)
    else:
        with tarfile.open(fileobj=content, mode=f"w:{kind}") as file:
            for name, text in texts.items():
                info = tarfile.TarInfo(name)
                info.size = len(text)
                file.addfile(info, io.BytesIO(text))
    return content.getvalue()


@given(damage=DAMAGE, kind=st.sampled_from(["zip", "gz", "bz2", "xz", ""]))
@MANY
def test_damaged_archives(damage: Damage, kind: str, tmp_path_factory: Any) -> None:
    root = tmp_path_factory.mktemp("archive")
    (root / "out").mkdir()
    path = root / ("x.zip" if kind == "zip" else f"x.tar.{kind}".rstrip("."))
    path.write_bytes(damaged(archive(kind), damage))
    read_or_refused(lambda path: unpack(path, root / "out", 10_000), path)
    assert set(root.iterdir()) == {path, root / "out"}
    assert not list(root.rglob(".unpacking*"))
    assert sum(file.stat().st_size for file in root.rglob("out/**/*")) < 10_000 + 3 * 4096
