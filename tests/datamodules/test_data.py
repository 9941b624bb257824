from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.helpers import build, configure
from support.signals import Signals, epoch, signals

from datamodules.audio.synthetic import SyntheticSpeech
from datamodules.base import SequenceData, collate, moments
from datamodules.handwriting.synthetic import SyntheticHandwriting
from datamodules.loading import load_data
from datamodules.order import LengthBatches
from vrnn.evaluation import score
from vrnn.metrics import Scores
from vrnn.module import VRNNModule


@pytest.fixture
def lengths() -> np.ndarray:
    return np.random.default_rng(0).integers(5, 400, 1003)


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_sequence_is_seen_once_an_epoch(lengths: np.ndarray, shuffle: bool) -> None:
    batches = LengthBatches(lengths, 8, shuffle, seed=0)
    for number in range(3):
        seen = epoch(batches, number)
        assert sorted(i for batch in seen for i in batch) == list(range(len(lengths)))
        assert len(seen) == len(batches) == 126
        assert all(1 <= len(batch) <= 8 for batch in seen)


def test_the_order_is_a_function_of_seed_and_epoch(lengths: np.ndarray) -> None:
    def order(seed: int, number: int) -> list[list[int]]:
        return epoch(LengthBatches(lengths, 8, True, seed), number)

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4) and order(0, 3) != order(1, 3)
    batches = LengthBatches(lengths, 8, True, 0)
    epoch(batches, 7)
    assert epoch(batches, 3) == order(0, 3), "whatever came before"


def padding(lengths: np.ndarray, batches: list[list[int]]) -> float:
    cells = sum(lengths[batch].max() * len(batch) for batch in batches)
    return 1 - lengths.sum() / cells


def test_lengths_in_a_batch_are_similar(lengths: np.ndarray) -> None:
    random = np.random.default_rng(1).permutation(len(lengths))
    by_chance = [random[i : i + 8].tolist() for i in range(0, len(random), 8)]
    assert padding(lengths, by_chance) > 0.35
    assert padding(lengths, epoch(LengthBatches(lengths, 8, True, 0), 0)) < 0.05


@pytest.mark.parametrize("world", [2, 3, 5])
def test_ranks_train_equally_long_and_together_on_everything(
    lengths: np.ndarray, world: int
) -> None:
    ranks = [LengthBatches(lengths, 8, True, 0, rank, world) for rank in range(world)]
    plans = [epoch(rank, 2) for rank in ranks]
    assert {len(plan) for plan in plans} == {len(rank) for rank in ranks} == {-(-126 // world)}
    assert {i for plan in plans for batch in plan for i in batch} == set(range(len(lengths)))
    shared = [set(map(tuple, plan)) for plan in plans]
    assert len(set.union(*shared)) == 126


@pytest.mark.parametrize("world", [2, 3, 200])
def test_ranks_evaluate_every_sequence_exactly_once(lengths: np.ndarray, world: int) -> None:
    ranks = [LengthBatches(lengths, 8, False, 0, rank, world) for rank in range(world)]
    seen = [i for rank in ranks for batch in rank for i in batch.sequence.tolist()]
    assert sorted(seen) == list(range(len(lengths)))
    counts = [len(rank) for rank in ranks]
    assert [len(list(rank)) for rank in ranks] == counts
    # Lightning stops where one has nothing to score.
    assert min(counts) >= 1


def test_few_sequences_for_many_ranks() -> None:
    lengths = np.array([7, 5, 6])
    ranks = [LengthBatches(lengths, 8, True, 0, rank, 5) for rank in range(5)]
    assert [len(list(rank)) for rank in ranks] == [len(rank) for rank in ranks] == [1] * 5
    data = Signals({split: signals(0, 3) for split in ("train", "val", "test")})
    data.setup()
    data.trainer = SimpleNamespace(global_rank=0, world_size=4, overfit_batches=0)
    with pytest.raises(ValueError, match="val split of data=.* has 3 .* for 4 processes"):
        data.val_dataloader()


def test_collate_pads_at_the_end_and_marks_it() -> None:
    sequences = signals(0, 5)
    shift, scale = np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 4.0])
    x, mask, ids, _ = collate(sequences, np.arange(3, 8), shift, scale)
    assert x.dtype == torch.float32 and mask.dtype == torch.bool and ids.tolist() == [*range(3, 8)]
    assert x.shape == (max(map(len, sequences)), 5, 3) and mask.shape == x.shape[:2]
    for b, sequence in enumerate(sequences):
        assert mask[:, b].tolist() == [t < len(sequence) for t in range(len(x))]
        expected = (sequence.astype(np.float64) - shift) / scale
        np.testing.assert_allclose(x[: len(sequence), b], expected, rtol=1e-6, atol=1e-6)
        assert (x[len(sequence) :, b] == 0).all()


def test_statistics_are_those_of_the_training_split_alone() -> None:
    splits = {"train": signals(0, 40), "val": signals(1, 10), "test": signals(2, 10)}
    data, other = Signals(splits), Signals(splits | {"val": signals(3, 7), "test": signals(4, 9)})
    data.setup()
    other.setup()
    frames = np.concatenate(splits["train"]).astype(np.float64)
    np.testing.assert_allclose(data.shift, [0, *frames[:, 1:].mean(0)])
    np.testing.assert_allclose(data.scale, [1, *frames[:, 1:].std(0)])
    assert (data.shift == other.shift).all() and (data.scale == other.scale).all()
    mean, std = moments(data.splits["train"])
    np.testing.assert_allclose([mean, std], [frames.mean(0), frames.std(0)])


def test_the_description_is_plain_and_enough(tmp_path: Path) -> None:
    data = Signals({split: signals(0, 4) for split in ("train", "val", "test")})
    data.setup()
    about = data.description()
    assert about["sequences"] == {"train": 4, "val": 4, "test": 4}
    assert about["steps"]["test"] == sum(map(len, signals(0, 4)))
    assert about["log_scales"]["standardised"] == pytest.approx(np.log(data.scale).sum())
    torch.save(about, tmp_path / "about.pt")
    assert torch.load(tmp_path / "about.pt", weights_only=True) == about


@pytest.mark.parametrize(
    ("splits", "options", "message"),
    [
        ({"val": []}, {}, "the val split is empty"),
        ({"train": [np.ones((4, 3), np.float32)]}, {}, "constant in the training split: a, b"),
        ({}, {"normaliser": "best"}, "data.normaliser=best is not one of"),
        ({}, {"batch_size": 0}, "data.batch_size must be at least 1, not 0"),
        ({}, {"eval_batch_size": 0}, "data.eval_batch_size must be at least 1, not 0"),
        ({}, {"max_steps": 0}, "data.max_steps must be at least 1, not 0"),
        ({}, {"window": -1}, "data.window must be at least 1, not -1"),
        ({}, {"window": 4, "reset_every": 0}, "data.reset_every must be at least 1, not 0"),
        ({}, {"reset_every": 4}, "data.reset_every=4 needs data.window"),
    ],
)
def test_unusable_data_is_named(splits: dict, options: dict, message: str) -> None:
    given = {split: signals(0, 4) for split in ("train", "val", "test")} | splits
    with pytest.raises(ValueError, match=message):
        Signals(given, **options).setup()


def test_only_training_sequences_are_cut() -> None:
    given = {split: [np.eye(9, 3, dtype=np.float32)] for split in ("train", "val", "test")}
    data = Signals(given, normaliser="none", max_steps=4)
    data.setup()
    loaders = {split: getattr(data, f"{split}_dataloader")() for split in given}
    lengths = {split: len(next(iter(loader)).x) for split, loader in loaders.items()}
    assert lengths == {"train": 4, "val": 9, "test": 9}


def test_random_pieces_are_new_in_every_epoch_and_lie_anywhere() -> None:
    given = {split: [np.eye(9, 3, dtype=np.float32)] for split in ("train", "val", "test")}
    given["train"] = [np.arange(n, dtype=np.float32)[:, None] + np.zeros(3) for n in (50, 3, 80)]
    data = Signals(given, normaliser="none", max_steps=4, crop="random", batch_size=1)
    data.setup()

    def starts(epoch: int) -> list[tuple[int, float]]:
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        pieces = []
        for batch in loader:
            x = batch.x[:, 0, 0]
            assert len(x) == min(4, len(given["train"][int(batch.ids)]))
            assert x.tolist() == [x[0] + t for t in range(len(x))]
            pieces.append((int(batch.ids), float(x[0])))
        return sorted(pieces)

    epochs = [starts(epoch) for epoch in range(60)]
    assert epochs[5] == starts(5) and epochs[5] != epochs[6]
    first, short, last = zip(*epochs, strict=True)
    assert {start for _, start in short} == {0.0}
    assert min(first)[1] < 10 and max(first)[1] > 37 and max(last)[1] > 65
    assert max(first)[1] <= 46 and max(last)[1] <= 76
    with pytest.raises(ValueError, match=r"data\.crop=middle is not one of random, start"):
        Signals(given, crop="middle")


def test_beginnings_are_of_sequences_that_go_on() -> None:
    splits = {split: signals(0, 12) for split in ("train", "val", "test")}
    data = Signals(splits, normaliser="none")
    data.setup()
    beginnings = data.beginnings("test", 3, 4)
    longer = [sequence for sequence in splits["test"] if len(sequence) > 4]
    np.testing.assert_array_equal(beginnings, np.stack([s[:4] for s in longer[:3]], axis=1))
    with pytest.raises(ValueError, match="only .* have more than 8 frames"):
        data.beginnings("test", 12, 8)


@pytest.mark.parametrize(
    ("n", "steps", "ways"),
    [
        (2, 8, "only 1 of 4 .* than 8 frames, not 2; choose --n 1 or --prime 5$"),
        (1, 99, "only 0 of 4 .*; choose --prime 8$"),
        (16, 99, "only 0 of 4 .*; choose --prime 2 --n 3$"),
    ],
)
def test_beginnings_that_are_not_there_name_some_that_are(n: int, steps: int, ways: str) -> None:
    splits = {split: [np.ones((t, 3)) for t in (3, 9, 1, 6)] for split in ("train", "val", "test")}
    data = Signals(splits, normaliser="none")
    data.setup()
    with pytest.raises(ValueError, match=ways):
        data.beginnings("test", n, steps)


def test_figures_do_not_depend_on_batches_or_ranks(tmp_path: Path) -> None:
    """What each rank of a world of three scores, put together, is what one process scores."""
    data, module = build(configure(tmp_path))
    module.eval()

    def scores(batch_size: int, world: int) -> dict[str, float]:
        gathered = Scores(module.hparams["data"]["log_scales"])
        for rank in range(world):
            order = LengthBatches(data.splits["test"].lengths, batch_size, False, 0, rank, world)
            for pieces in order:
                x, mask, ids, _ = data.batch("test", pieces)
                with torch.no_grad():
                    figures = score(module.model, x, mask, ids, particles=2)
                gathered.update(ids, mask.sum(0), figures)
        return gathered.compute()

    alone = scores(50, 1)
    assert alone["sequences"] == 6
    assert scores(2, 1) == pytest.approx(alone, rel=1e-6, abs=1e-6)
    assert scores(1, 3) == pytest.approx(alone, rel=1e-6, abs=1e-6)


def test_training_noise_differs_between_updates_and_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, module = build(configure(tmp_path))
    batch = next(iter(data.train_dataloader()))

    def noise(rank: int, update: int, seed: int = 0) -> torch.Tensor:
        module.seed = seed
        monkeypatch.setattr(VRNNModule, "global_rank", rank)
        monkeypatch.setattr(VRNNModule, "global_step", update)
        return module.objective.noise(module.model, batch.x, module.training_rng(0))

    first = noise(0, 0)
    assert torch.equal(first, noise(0, 0)) and first.shape == (*batch.mask.shape, 4)
    for other in (noise(1, 0), noise(0, 1), noise(0, 0, seed=1)):
        assert abs(torch.corrcoef(torch.stack([first.ravel(), other.ravel()]))[0, 1]) < 0.1
    assert abs(float(first.std()) - 1) < 0.1


def test_a_trained_model_brings_its_own_normaliser(tmp_path: Path) -> None:
    data, module = build(configure(tmp_path, "data.normaliser=coordinate"))
    elsewhere = load_data(module.hparams["data"], ["data.corpus_seed=7"])
    assert elsewhere.splits["train"].values.shape != data.splits["train"].values.shape
    np.testing.assert_array_equal(elsewhere.shift, data.shift)
    np.testing.assert_array_equal(elsewhere.scale, data.scale)


def test_a_description_that_lacks_something_is_refused(tmp_path: Path) -> None:
    data, _ = build(configure(tmp_path))
    whole = {**data.description(), "module": {"_target_": "datamodules.handwriting.iam.IAM"}}
    for key in ("module", "columns", "shift", "scale"):
        with pytest.raises(ValueError, match=f"description of its data lacks {key}"):
            load_data({name: value for name, value in whole.items() if name != key})


def test_beginnings_leave_a_frame_to_go_on_to() -> None:
    test = [np.full((n, 3), n, np.float32) for n in (4, 5)]
    data = Signals({split: test for split in ("train", "val", "test")}, normaliser="none")
    data.setup()
    assert (data.beginnings("test", 1, 4) == 5).all(), "the sequence of four frames is used up"


ONE = {"val_lines": 1, "test_lines": 1, "writers": 1, "lines": 1}
ONE_SPOKEN = {"utterances": 1, "val_utterances": 1, "test_utterances": 1, "speakers": 1}


@pytest.mark.parametrize(
    ("corpus", "sizes"), [(SyntheticHandwriting, ONE), (SyntheticSpeech, ONE_SPOKEN)]
)
def test_splits_and_corpora_of_other_seeds_share_nothing(
    corpus: type[SequenceData], sizes: dict[str, int]
) -> None:
    corpora = [corpus(corpus_seed=seed, **sizes).load() for seed in (0, 1)]
    assert len({part[0].tobytes() for parts in corpora for part in parts.values()}) == 6
