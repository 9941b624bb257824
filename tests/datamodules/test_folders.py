import json
from pathlib import Path

import numpy as np
import pytest
from support.audio_tree import write_all
from support.helpers import configure
from support.small_corpora import sequences, write_arrays, write_csvs, write_drawings
from support.small_folders import contents, keys, opened

import train
from datamodules.audio.corpus import AudioFolder
from datamodules.files.arrays import read_arrays, read_csv
from datamodules.folders import CSVFolder, NPZFolder, Stroke3
from datamodules.handwriting.pen import points
from datamodules.loading import load_data
from vrnn.checkpoint import load_module

SPLITS = ("train", "val", "test")


def test_csv_files_are_read_to_the_last_digit_with_their_columns(tmp_path: Path) -> None:
    data = opened(CSVFolder(write_csvs(tmp_path)))
    found = contents(data)
    assert data.columns == ("a", "b") and data.x_dim == 2
    for i, x in enumerate(sequences(8, 2)):
        np.testing.assert_array_equal(found[f"sub/{i}.csv"], x)


def test_csv_files_may_have_no_names_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf1, 2e3\r\n\r\n-0.5,4\r\n\r\n")
    (found,) = read_csv(path)
    assert found.x.tolist() == [[1, 2000], [-0.5, 4]] and found.columns == ()


def test_numbers_may_be_large_without_losing_what_varies(tmp_path: Path) -> None:
    """A second's sensor readings beside a clock of 1.7e9 seconds."""
    write_csvs(tmp_path)
    for i in range(8):
        clock = 1.7e9 + 0.01 * np.arange(6) + i
        lines = [f"{t!r},{i}.{k}" for k, t in enumerate(clock.tolist())]
        (tmp_path / "sub" / f"{i}.csv").write_text("\n".join(["a,b", *lines]))
    data = opened(CSVFolder(tmp_path))
    x = next(iter(data.train_dataloader())).x[:, 0, 0]
    np.testing.assert_allclose(np.diff(x), 0.01 / data.scale[0], rtol=1e-3)


def test_npy_and_npz_files_hold_one_or_many(tmp_path: Path) -> None:
    a, b, c = sequences(3, 2)
    np.save(tmp_path / "one.npy", a)
    np.savez(tmp_path / "many.npz", a, b)
    np.savez_compressed(
        tmp_path / "packed.npz", x=np.concatenate([a, b, c]), x_lengths=[*map(len, (a, b, c))]
    )
    np.save(tmp_path / "flat.npy", a[:, 0].astype(np.int16))
    assert [(f.key, f.x.tolist()) for f in read_arrays(tmp_path / "one.npy")] == [("", a.tolist())]
    many = {f.key: f.x.tolist() for f in read_arrays(tmp_path / "many.npz")}
    assert many == {"arr_0": a.tolist(), "arr_1": b.tolist()}
    packed = [f.x.tolist() for f in read_arrays(tmp_path / "packed.npz")]
    assert packed == [a.tolist(), b.tolist(), c.tolist()]
    (flat,) = read_arrays(tmp_path / "flat.npy")
    assert flat.x.shape == (len(a), 1) and flat.x.dtype == np.float32


def test_without_a_list_files_are_held_back_by_a_seed(tmp_path: Path) -> None:
    write_csvs(tmp_path, n=60)
    splits = [keys(opened(CSVFolder(tmp_path, split_seed=seed))) for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
    assert {split: len(names) for split, names in splits[0].items()} == {
        "train": 54,
        "val": 3,
        "test": 3,
    }
    assert len({name for names in splits[0].values() for name in names}) == 60


def test_sequences_of_a_file_stay_together_unless_it_is_the_only_one(tmp_path: Path) -> None:
    for i in range(6):
        np.savez(tmp_path / f"{i}.npz", *sequences(3, 2, seed=i))
    files = [
        {key.partition(":")[0] for key in names}
        for names in keys(opened(NPZFolder(tmp_path))).values()
    ]
    assert sum(map(len, files)) == len(set.union(*files)) == 6
    for i in range(1, 6):
        (tmp_path / f"{i}.npz").unlink()
    assert {k: len(v) for k, v in keys(opened(NPZFolder(tmp_path))).items()} == dict.fromkeys(
        SPLITS, 1
    )


@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_list_decides(form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_csvs(tmp_path)
    rows = {"sub/0": "train", "sub/1.csv": "train", "sub/2": "valid", "sub/3": "test"}
    if form == "csv":
        lines = ["name,split", *(f"{name}, {split}" for name, split in rows.items())]
        (tmp_path / "splits.csv").write_text("\n".join(lines))
    else:
        (tmp_path / "splits.json").write_text(json.dumps(rows))
    assert keys(opened(CSVFolder(tmp_path))) == {
        "train": ["sub/0.csv", "sub/1.csv"],
        "val": ["sub/2.csv"],
        "test": ["sub/3.csv"],
    }
    assert "4 sequences are not in" in caplog.text and "sub/4.csv, sub/5.csv" in caplog.text


def test_a_list_means_the_same_in_a_folder_of_sounds(tmp_path: Path) -> None:
    rows = "name, split\nsub/0 ,train\nsub/0,train\n\n,\nsub/1, Validation\nsub/2,TEST\n"
    write_csvs(tmp_path / "numbers", n=3)
    write_all(tmp_path / "sounds", [f"sub/{i}.wav" for i in range(3)])
    for kind, folder in ((CSVFolder, "numbers"), (AudioFolder, "sounds")):
        (tmp_path / folder / "splits.csv").write_text(rows)
        found = keys(opened(kind(tmp_path / folder)))
        assert {split: [name[:5] for name in names] for split, names in found.items()} == {
            "train": ["sub/0"],
            "val": ["sub/1"],
            "test": ["sub/2"],
        }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "splits.csv",
            "sub/0,train\nsub/1,dev",
            "splits.csv, line 2: sub/1,dev is not `name,split` with one of train, val, test",
        ),
        (
            "splits.csv",
            "sub/0,train\nsub/0,val",
            "line 2: sub/0 cannot be in val, it is in train already",
        ),
        ("splits.csv", "sub/0", "splits.csv, line 1: sub/0 is not `name,split`"),
        ("splits.csv", "sub/0,train,", "splits.csv, line 1: sub/0,train, is not `name,split`"),
        ("splits.csv", "sub/9,train", "1 of 1 files cannot be used: .*names sub/9, which is not"),
        ("splits.csv", "sub/0,train", "data=csv_folder: the val split is empty"),
        ("splits.json", "[1]", r"splits.json cannot be read \(it should be {name: split}\)"),
        (
            "splits.json",
            '{"sub/0": 1}',
            "splits.json: sub/0,1 is not `name,split` with one of train",
        ),
        ("splits.json", "{", "splits.json cannot be read"),
    ],
)
def test_bad_lists_are_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    write_csvs(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        CSVFolder(tmp_path).setup()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", r"0.csv, line 3: 1 cells where the lines before have 2"),
        ("a,b\n1,2\n3,4,5\n", r"0.csv, line 3: 3 cells where the lines before have 2"),
        ("a,b\n1,2\n3,x\n", r"0.csv, line 3: 'x' is no finite number"),
        ("a,b\n1,2\n3,\n", r"0.csv, line 3: '' is no finite number"),
        ("a,b\n1,2\n\n3,nan\n", r"0.csv, line 4: 'nan' is no finite number"),
        ("a,b\n1,-inf\n", r"0.csv, line 2: '-inf' is no finite number"),
        ("a;b\n1;2\n", r"0.csv, line 2: '1;2' is no finite number; .* by commas, not by ';'"),
        ("a\tb\n1\t2\n", r"0.csv, line 2: .*; numbers are separated by commas, not by '\\t'"),
        ("a;b\n0,5;2\n", r"0.csv, line 2: 2 cells where .* have 1; .* by commas, not by ';'"),
        ("a,b\n", r"0.csv has no frames"),
        ("", r"0.csv has no frames"),
        ("a,c\n1,2\n", r"0.csv has the columns a, c where others have the columns a, b"),
        ("a,b,c\n1,2,3\n", r"0.csv has the columns a, b, c where others have the columns a, b"),
        ("\x00\x01", r"0.csv"),
    ],
)
def test_broken_csv_files_are_named_with_their_line_or_skipped_and_counted(
    text: str, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (write_csvs(tmp_path) / "sub" / "0.csv").write_text(text)
    with pytest.raises(ValueError, match=f"1 of 8 files cannot be used: .*{message}") as error:
        CSVFolder(tmp_path).setup()
    assert "\n" not in str(error.value)
    rest = contents(opened(CSVFolder(tmp_path, missing="skip")))
    assert sorted(rest) == [f"sub/{i}.csv" for i in range(1, 8)]
    assert "skipped: 1 of 8 files" in caplog.text


def objects() -> np.ndarray:
    ragged = np.empty(2, object)
    ragged[:] = sequences(2, 2)
    return ragged


BROKEN_ARRAYS = {
    r"0.npz holds pickled .*convert it once": {"a": objects()},
    r"0.npz, a must be an array \(T, D\), not \(2, 2, 2\)": {"a": np.zeros((2, 2, 2))},
    r"0.npz, a holds <U1, not numbers": {"a": np.array([["x"]])},
    r"0.npz, a has no frames": {"a": np.zeros((0, 2))},
    r"0.npz, a: frame 1, coordinate 0 is nan": {"a": np.array([[1, 2], [np.nan, 3]])},
    r"a_lengths must be whole numbers above 0 whose sum is 4": {
        "a": np.zeros((4, 2)),
        "a_lengths": [1, 2],
    },
    r"a_lengths must be .* whose sum is 3": {"a": np.zeros((3, 2)), "a_lengths": [3, 0]},
    r"0.npz has no arrays": {},
    r"0.npz has 3 unnamed columns where others have 2 unnamed": {"a": np.zeros((4, 3))},
}


@pytest.mark.parametrize("message", BROKEN_ARRAYS)
def test_broken_arrays_are_named_or_skipped(message: str, tmp_path: Path) -> None:
    write_arrays(tmp_path)
    np.savez(tmp_path / "0.npz", **BROKEN_ARRAYS[message])
    with pytest.raises(ValueError, match=f"1 of 9 files cannot be used: .*{message}"):
        NPZFolder(tmp_path).setup()
    assert len(contents(opened(NPZFolder(tmp_path, missing="skip")))) == 8


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_damaged_arrays_are_named(suffix: str, tmp_path: Path) -> None:
    save = np.save if suffix == "npy" else np.savez
    path = tmp_path / f"a.{suffix}"
    save(path, np.arange(600.0).reshape(-1, 2))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"nonsense"):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"a\.{suffix} is no \.npy or \.npz file, or damaged"
        ):
            read_arrays(path)


def test_a_constant_column_is_named(tmp_path: Path) -> None:
    """In float32 and float64, 0.1 summed many times over is not its mean times their number."""
    for i, x in enumerate(sequences(8, 2)):
        np.save(tmp_path / f"{i}.npy", np.column_stack([x[:, 0], np.full(len(x), 0.1)]))
    message = r"constant in the training split: x1; leave it out by data.columns=\[x0\], or"
    with pytest.raises(ValueError, match=message):
        NPZFolder(tmp_path).setup()
    assert opened(NPZFolder(tmp_path, columns=["x0"])).columns == ("x0",)
    assert opened(NPZFolder(tmp_path, normaliser="none")).scale.tolist() == [1, 1]


def test_strokes_are_turned_to_our_order_and_upright(tmp_path: Path) -> None:
    write_drawings(tmp_path)
    down, up = (
        contents(opened(Stroke3(tmp_path))),
        contents(opened(Stroke3(tmp_path, y_down=False))),
    )
    for i in range(8):
        given = np.load(tmp_path / f"{i}.npy")
        np.testing.assert_array_equal(down[f"{i}.npy"][:, 0], given[:, 2])
        np.testing.assert_array_equal(points(up[f"{i}.npy"])[1:, 1:], given[:, :2].cumsum(0))
        np.testing.assert_array_equal(down[f"{i}.npy"][:, 2], -up[f"{i}.npy"][:, 2])


def test_sketch_rnn_files_are_read_after_the_conversion_that_the_message_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_drawings(tmp_path / "drawings")
    drawings = [np.load(path) for path in sorted((tmp_path / "drawings").iterdir())]
    ragged = {}
    for key, part in (("train", drawings[:5]), ("valid", drawings[5:6]), ("test", drawings[6:])):
        ragged[key] = np.empty(len(part), object)
        ragged[key][:] = part
    folder = tmp_path / "quickdraw"
    folder.mkdir()
    np.savez(folder / "cat.npz", **ragged)
    with pytest.raises(ValueError, match="cat.npz holds pickled") as error:
        Stroke3(folder).setup()
    command = str(error.value).partition("once: ")[2].partition(". Fix")[0]
    monkeypatch.chdir(tmp_path)
    exec(command, {"np": np, "f": folder / "cat.npz"})
    (folder / "cat.npz").unlink()
    (tmp_path / "plain.npz").rename(folder / "plain.npz")
    data = opened(Stroke3(folder, y_down=False))
    assert [len(data.splits[split]) for split in SPLITS] == [5, 1, 2]
    for read, given in zip([*contents(data).values()], drawings, strict=True):
        np.testing.assert_array_equal(read, given[:, [2, 0, 1]])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((3, 2)), r"0.npy: has frames of 2 numbers, not \[dx, dy, pen\]"),
        (np.full((3, 3), 0.5), "0.npy: has a third column, the pen, of other values than 0 and 1"),
    ],
)
def test_other_frames_are_no_strokes(x: np.ndarray, message: str, tmp_path: Path) -> None:
    np.save(write_drawings(tmp_path) / "0.npy", x)
    with pytest.raises(ValueError, match=message):
        Stroke3(tmp_path).setup()


def test_splits_named_in_some_files_only_are_refused(tmp_path: Path) -> None:
    write_arrays(tmp_path)
    np.savez(tmp_path / "a.npz", test=sequences(1, 2)[0])
    with pytest.raises(
        ValueError, match="named train, val or test, others not: 0.npy, 1.npy, 2.n"
    ):
        NPZFolder(tmp_path).setup()


def test_too_few_files_and_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no \.npy or \.npz files in .*data\.root="):
        NPZFolder(tmp_path).setup()
    with pytest.raises(ValueError, match="has 2 usable sequences, too few for three splits"):
        NPZFolder(write_arrays(tmp_path, n=2)).setup()


def test_the_model_takes_its_size_from_the_files(tmp_path: Path) -> None:
    root = write_arrays(tmp_path / "data", width=5)
    choices = ["data=npz_folder", f"data.root={root}", "model=rnn_gauss", "trainer.max_epochs=1"]
    cfg = configure(tmp_path / "run", *choices, lines=False)
    assert cfg.model.x_dim is None, "the configuration reads no files"
    figures = train.run(cfg)
    module = load_module(tmp_path / "run")
    assert module.model.x_dim == 5 and "test/elbo_raw_per_step" in figures
    other = write_arrays(tmp_path / "other", width=4)
    with pytest.raises(ValueError, match=r"frames of 5 numbers \(x0, .*npz_folder gives 4"):
        load_data(module.hparams["data"], [f"data.root={other}"])


def test_a_size_that_the_files_have_not_is_refused(tmp_path: Path) -> None:
    root = write_arrays(tmp_path / "data")
    choices = ["data=npz_folder", f"data.root={root}", "model=rnn_gauss", "x.dim=3"]
    cfg = configure(tmp_path / "run", *choices, lines=False)
    with pytest.raises(ValueError, match="x.dim=3, but data=npz_folder gives frames of 2 numbers"):
        train.run(cfg)
