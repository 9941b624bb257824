import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from support.helpers import build, configure
from support.small_corpora import MAT_KEYS, pieces, write_json, write_mat

import train
from datamodules.music import JSB, Nottingham, Piano, read_json, read_mat
from datamodules.ragged import Ragged
from vrnn.checkpoint import load_module

REPOSITORY = Path(__file__).resolve().parents[2]

ROOMS = {"train": "train", "val": "valid", "test": "test"}


@pytest.mark.parametrize("write", [write_mat, write_json])
def test_rolls_are_read_as_they_are(write, tmp_path: Path) -> None:
    splits = pieces()
    name = "JSB_Chorales.mat" if write is write_mat else "jsb-chorales-quarter.json"
    write(tmp_path / name, splits)
    data = JSB(tmp_path)
    data.setup()
    for split, key in ROOMS.items():
        assert len(data.splits[split]) == len(splits[key])
        for read, roll in zip(data.splits[split], splits[key], strict=True):
            np.testing.assert_array_equal(read, roll)
    for batch in data.test_dataloader():
        for b, i in enumerate(batch.ids):
            x = batch.x[batch.mask[:, b], b]
            np.testing.assert_array_equal(x, splits[ROOMS["test"]][i].astype(np.float32))


def test_the_columns_are_the_keys_of_a_piano(tmp_path: Path) -> None:
    chord = [[[21, 60, 64, 108]]]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"train": chord, "valid": chord, "test": chord}))
    roll = read_json(path)["train"][0]
    assert np.flatnonzero(roll[0]).tolist() == [0, 39, 43, 87]
    assert [JSB.columns[d] for d in (0, 39, 87)] == ["midi_21", "midi_60", "midi_108"]


def test_both_spaces_of_a_score_agree_and_the_mean_is_the_frequency(tmp_path: Path) -> None:
    splits = pieces(sizes=(4, 1, 1))
    write_mat(tmp_path / "Piano_midi.mat", splits)
    data = Piano(tmp_path)
    data.setup()
    about = data.description()
    assert about["log_scales"] == {"standardised": 0.0, "raw": 0.0}
    np.testing.assert_allclose(about["means"], np.concatenate(splits["train"]).mean(0))


@pytest.mark.parametrize("model", ["vrnn_bernoulli", "rnn_bernoulli"])
def test_a_trained_model_of_rolls(model: str, tmp_path: Path) -> None:
    """Its scores are in nats per step, the same in both spaces; it centres what it is fed, also
    after it was loaded."""
    write_mat(tmp_path / "JSB_Chorales.mat", pieces())
    choices = [f"model={model}", "data=jsb", f"data.root={tmp_path}", "data.centre=true"]
    cfg = configure(tmp_path / "run", *choices, "trainer.max_epochs=1", lines=False)
    _, start = build(cfg)
    means = np.concatenate(pieces()["train"]).mean(0)
    log_odds = torch.tensor(means).clamp(1e-4, 1 - 1e-4).logit().float()
    torch.testing.assert_close(start.model.out.bias.detach(), log_odds)
    figures = train.run(cfg)
    assert figures["test/elbo_per_step"] == figures["test/elbo_raw_per_step"]
    assert figures["test/elbo"] * 3 == pytest.approx(
        figures["test/elbo_per_step"] * figures["test/steps"]
    )
    loaded = load_module(tmp_path / "run").model
    rolls = torch.from_numpy(np.concatenate(pieces()["test"])).float()
    centred = rolls - torch.tensor(means).float()
    torch.testing.assert_close(loaded.normaliser.centred(rolls), centred)
    assert set(loaded.generate(5, 2, seed=0).unique().tolist()) <= {0.0, 1.0}


def test_mixtures_of_bits_are_refused_with_what_fits(tmp_path: Path) -> None:
    write_mat(tmp_path / "Nottingham.mat", pieces())
    cfg = configure(tmp_path, "data=nottingham", f"data.root={tmp_path}", lines=False)
    with pytest.raises(ValueError, match="nottingham.*model=vrnn_bernoulli, rnn_bernoulli"):
        train.run(cfg)


def broken(key: str, roll: np.ndarray) -> dict[str, np.ndarray]:
    cells = np.empty((1, 2), object)
    cells[0, :] = [np.zeros((3, 88)), roll]
    good = np.empty((1, 1), object)
    good[0, 0] = np.zeros((3, 88))
    return {name: cells if name == key else good for name in MAT_KEYS.values()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (broken("testdata", np.zeros((3, 87))), r"b.mat, testdata 1: .* \(T, 88\), not \(3, 87\)"),
        (broken("validdata", np.full((3, 88), 2)), "b.mat, validdata 1: .* 0 and 1 only"),
        (broken("validdata", np.full((3, 88), np.nan)), "b.mat, validdata 1: .* 0 and 1 only"),
        (broken("traindata", np.zeros((0, 88))), r"traindata 1: .*, not \(0, 88\)"),
        ({"traindata": np.zeros((2, 2))}, r"traindata 0: a roll must be \(T, 88\), not \(\)"),
        ({"other": 1}, "b.mat has no traindata"),
    ],
)
def test_broken_mat_files_are_named(content: dict, message: str, tmp_path: Path) -> None:
    savemat(tmp_path / "b.mat", content)
    with pytest.raises(ValueError, match=message):
        read_mat(tmp_path / "b.mat")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"train": [[[60], [20]]]}', "b.json, train 0, step 1: 20 is no MIDI pitch from 21 to"),
        ('{"train": [[[60.5]]]}', "train 0, step 0: 60.5 is no MIDI pitch"),
        ('{"train": [[["C4"]]]}', "train 0, step 0: 'C4' is no MIDI pitch"),
        ('{"train": [[60]]}', "train 0, step 0: 60 is no list of MIDI pitches"),
        ('{"train": [[]]}', r"train 0: a roll must be \(T, 88\), not \(0, 88\)"),
        ('{"train": [[[60]]]}', "b.json has no list 'valid'"),
        ('{"train": ', "b.json is no JSON, or damaged"),
        ("[1]", "b.json has no list 'train'"),
    ],
)
def test_broken_json_files_are_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_json(tmp_path / "b.json")


def test_a_damaged_mat_file_is_named(tmp_path: Path) -> None:
    whole = write_mat(tmp_path / "a.mat", pieces()).read_bytes()
    for content in (whole[: len(whole) // 2], b"nonsense"):
        (tmp_path / "b.mat").write_bytes(content)
        with pytest.raises(ValueError, match=r"b\.mat is no \.mat file, or damaged"):
            read_mat(tmp_path / "b.mat")


def test_an_absent_corpus_is_named_with_its_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no nottingham in .*Nottingham.mat, .*data.root="):
        Nottingham(tmp_path).setup()


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(os.environ.get("VRNN_DATA", ""), "music")
    archives = sorted((REPOSITORY / ".." / "shared" / "data").glob("music*.tar.xz"))
    if "VRNN_DATA" in os.environ and root.is_dir():
        return root
    if not archives:
        pytest.skip("no music in $VRNN_DATA/music")
    root = tmp_path_factory.mktemp("music")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(root, filter="data")
    return root


def find(root: Path, name: str) -> Path:
    found = next(root.rglob(name), None)
    if found is None:
        pytest.skip(f"no {name} in {root}")
    return found


COUNTS = {
    "JSB_Chorales.mat": [(229, 13_807, 3.90), (76, 4_602, 3.87), (77, 4_725, 3.89)],
    "Nottingham.mat": [(694, 176_561, 3.96), (173, 45_513, 3.96), (170, 44_463, 3.99)],
    "MuseData.mat": [(524, 245_202, 3.49), (135, 82_755, 3.48), (124, 64_339, 3.29)],
    "Piano_midi.mat": [(87, 75_911, 3.04), (12, 8_540, 3.24), (25, 19_036, 2.95)],
}
LONGEST = {
    "JSB_Chorales.mat": 160,
    "Nottingham.mat": 1_793,
    "MuseData.mat": 4_273,
    "Piano_midi.mat": 3_857,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_constants_of_the_real_corpora(name: str, corpora: Path) -> None:
    splits = read_mat(find(corpora, name))
    counts = [
        (len(rolls), int(rolls.lengths.sum()), round(float(rolls.values.sum(1).mean()), 2))
        for rolls in (splits[split] for split in ROOMS)
    ]
    assert counts == COUNTS[name]
    assert max(rolls.lengths.max() for rolls in splits.values()) == LONGEST[name]


@pytest.mark.slow
def test_both_forms_of_the_real_chorales_are_equal(corpora: Path) -> None:
    mat = read_mat(find(corpora, "JSB_Chorales.mat"))
    pitches = read_json(find(corpora, "jsb-chorales-quarter.json"))
    for split in ROOMS:
        for one, other in zip(mat[split], pitches[split], strict=True):
            np.testing.assert_array_equal(one, other)


def test_transposed_pieces_are_the_same_music_higher_or_lower(tmp_path: Path) -> None:
    write_mat(tmp_path / "JSB_Chorales.mat", pieces(sizes=(1, 1, 1)))
    data = JSB(tmp_path, transpose=3)
    data.setup()
    (piece,) = data.splits["train"]
    piece = np.array(piece)
    piece[:, :2] = 0  # The lowest note is the third key, so that two semitones down are possible.
    piece[0, 2] = 1
    piece[:, 60:] = 0
    moves = []
    for seed in range(200):
        moved = data.augment(piece, np.random.default_rng(seed))
        move = int(np.flatnonzero(moved.any(0))[0]) - 2
        np.testing.assert_array_equal(moved, np.roll(piece, move, axis=1))
        moves.append(move)
    assert set(moves) == {-2, -1, 0, 1, 2, 3}
    silent = np.zeros((4, 88), np.uint8)
    assert data.augment(silent, np.random.default_rng(0)) is silent
    data.splits["train"] = Ragged.from_sequences([piece], ["a"])
    loader, epochs = data.train_dataloader(), []
    for epoch in (0, 1, 2, 3, 0):
        loader.sampler.set_epoch(epoch)
        epochs.append(next(iter(loader)).x)
    assert len({x.sum().item() for x in epochs}) == 1 and torch.equal(epochs[0], epochs[4])
    assert any(not torch.equal(epochs[0], x) for x in epochs)
    with pytest.raises(ValueError, match="data.transpose must be 0 to 12"):
        JSB(tmp_path, transpose=13)
    with pytest.raises(ValueError, match="transpose=3 moves whole pieces, .* data.reset_every=2"):
        JSB(tmp_path, transpose=3, window=5, reset_every=2)


def test_the_highest_key_does_not_come_out_at_the_bottom(tmp_path: Path) -> None:
    data, piece = JSB(tmp_path, transpose=3), np.zeros((2, 88), np.uint8)
    piece[:, 86] = 1
    moved = {int(data.augment(piece, np.random.default_rng(s))[0].argmax()) for s in range(100)}
    assert moved == {83, 84, 85, 86, 87}
