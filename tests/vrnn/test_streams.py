"""Rows of consecutive windows: each continues its own, and carries its own state."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from support.helpers import build, configure, trainer

from callbacks.gradients import Gradients
from datamodules.base import SequenceData
from datamodules.order import StreamBatches
from datamodules.ragged import Ragged
from vrnn import bounds

LENGTHS = [23, 4, 9, 1, 17, 12]
OPTIONS = [
    "model=vrnn_gauss",
    "data.lines=6",
    "data.window=5",
    "data.reset_every=3",
    "data.max_steps=null",
]


class Counting(SequenceData):
    """Sequences that count upwards: x_t of sequence i is (i, t)."""

    name, kind, columns, rate = "counting", "real", ("sequence", "time"), 1.0

    def load(self) -> dict[str, Ragged]:
        rows = [np.stack([np.full(n, i), np.arange(n)], 1) for i, n in enumerate(LENGTHS)]
        ragged = Ragged.from_sequences([row.astype(np.float32) for row in rows], map(str, LENGTHS))
        return dict.fromkeys(("train", "val", "test"), ragged)


def counting(**options) -> Counting:
    data = Counting(normaliser="none", **options)
    data.setup()
    return data


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"window": 5, "reset_every": 2, "max_steps": 3, "crop": "random"},
            "reset_every=2 trains on all",
        ),
        (
            {"window": 5, "reset_every": 2, "max_steps": 9},
            r"neither data\.max_steps=9 nor data\.crop=",
        ),
        ({"window": 5, "max_steps": 5}, r"max_steps=5 cuts nothing, since data\.window=5"),
        ({"max_steps": 0}, "max_steps must be at least 1, not 0"),
        ({"eval_batch_size": 0}, "eval_batch_size must be at least 1, not 0"),
        ({"centre": True}, "centre=true is for binary data, and data=counting is of kind real"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Counting(**options)


def test_options_that_do_something_together_are_not_refused() -> None:
    assert max(len(batch.x) for batch in counting(window=5, max_steps=3).train_dataloader()) == 3
    counting(window=5, reset_every=2, crop="random")


SETTINGS = [(rows, reset_every, 0) for rows in (1, 3, 5, 40) for reset_every in (1, 2, 100)]


@pytest.mark.parametrize(("rows", "reset_every", "workers"), [*SETTINGS, (3, 2, 2)])
def test_every_row_continues_its_own_sequence(rows: int, reset_every: int, workers: int) -> None:
    data = counting(batch_size=rows, window=5, reset_every=reset_every, num_workers=workers)
    seen, last = [], [None] * rows
    batches = list(data.train_dataloader())
    for j, batch in enumerate(batches):
        assert batch.x.shape[1:] == (rows, 2) and batch.continues.dtype == torch.bool
        for b in range(rows):
            frames = batch.x[batch.mask[:, b], b]
            if len(frames) == 0:
                assert batch.ids[b] == -1 and not batch.continues[b]
                last[b] = None
                continue
            i, t = frames[0].int().tolist()
            assert batch.ids[b] == i
            assert frames.tolist() == [[i, t + s] for s in range(len(frames))]
            assert batch.continues[b] == (last[b] == (i, t - 1) and j % reset_every > 0)
            last[b] = (i, t + len(frames) - 1)
            seen += [(i, t + s) for s in range(len(frames))]
    assert sorted(seen) == [(i, t) for i, n in enumerate(LENGTHS) for t in range(n)]
    assert len(batches) == len(data.train_dataloader())


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_rows(world: int) -> None:
    lengths = np.array(LENGTHS)
    alone = StreamBatches(lengths, 5, 2 * world, 4)
    parts = [StreamBatches(lengths, 5, 2, 4, rank, world) for rank in range(world)]
    assert {len(part) for part in parts} == {len(alone)}
    for whole, *shares in zip(alone, *parts, strict=True):
        for name in ("sequence", "start", "steps", "continues"):
            together = np.concatenate([getattr(share, name) for share in shares])
            np.testing.assert_array_equal(together, getattr(whole, name))


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 16])
def test_no_row_is_idle_where_incomplete_batches_are_dropped(rows: int) -> None:
    """16 windows."""
    batches = list(StreamBatches(np.array(LENGTHS), 5, rows, 3, drop_incomplete=True))
    every = list(StreamBatches(np.array(LENGTHS), 5, rows, 3))
    assert len(batches) == 16 // rows and len(every) == -(-16 // rows)
    for batch, other in zip(batches, every, strict=False):
        assert (batch.steps > 0).all()
        assert batch.sequence.tolist() == other.sequence.tolist()
        assert batch.start.tolist() == other.start.tolist()


def test_evaluation_is_window_by_window() -> None:
    data = counting(batch_size=3, window=5)
    for split in ("train", "val"):
        lengths = [5, 5, 5, 5, 3, 4, 5, 4, 1, 5, 5, 5, 2, 5, 5, 2]
        assert data.splits[split].lengths.tolist() == lengths
        assert data.splits[split][4].tolist() == [[0, 20], [0, 21], [0, 22]]
        assert data.splits[split].keys[4] == "23"


def test_impossible_options_are_refused() -> None:
    for options in ({"window": 0}, {"reset_every": 2}, {"window": 5, "reset_every": 0}):
        with pytest.raises(ValueError, match=r"data\.(window|reset_every)"):
            Counting(**options)


@pytest.mark.parametrize("objective", ["elbo", "fivo"])
def test_the_state_is_carried_row_by_row(tmp_path: Path, objective: str) -> None:
    """Three windows with the state carried score as the frames in one piece."""
    data, module = build(configure(tmp_path, *OPTIONS, f"objective={objective}"))
    batches = list(data.train_dataloader())
    assert len(batches) > 4 and batches[1].continues.all() and not batches[3].continues.any()

    rng = module.training_rng
    module.training_rng = lambda batch_idx: rng(0)
    module.log = module.log_dict = lambda *_, **__: None
    trainer(tmp_path).strategy.connect(module)
    module.trainer = trainer(tmp_path)
    starts = []
    for j, batch in enumerate(batches[:4]):
        starts.append(module.initial_state(batch))
        module.training_step(batch, j)
    assert starts[0] is None and all((s == 0).all() for s in starts[3])
    if objective == "fivo":
        assert starts[1][0].shape[1] == 8 * len(batches[0].ids)
        return
    noise = module.objective.noise(module.model, batches[0].x, rng(0))
    x, mask = (torch.cat([getattr(b, name) for b in batches[:3]]) for name in ("x", "mask"))
    assert mask.all()
    whole = module.model.trace(x, noise=noise.repeat(3, 1, 1))
    parts = [
        module.model.trace(b.x, state=start, noise=noise)
        for b, start in zip(batches[:3], starts[:3], strict=True)
    ]
    terms = [bounds.elbo(p, b.x, b.mask) for p, b in zip(parts, batches, strict=False)]
    torch.testing.assert_close(sum(terms), bounds.elbo(whole, x, mask))


def test_a_row_that_starts_anew_forgets_and_the_others_do_not(tmp_path: Path) -> None:
    data, module = build(configure(tmp_path, *OPTIONS))
    batch = next(iter(data.train_dataloader()))
    state = tuple(torch.randn_like(s) for s in module.model.rnn.initial(len(batch.ids)))
    module.carried = state
    goes_on = torch.arange(len(batch.ids)) % 2 == 0
    start = module.initial_state(batch._replace(continues=goes_on))
    for s, kept in zip(start, state, strict=True):
        assert torch.equal(s[:, goes_on], kept[:, goes_on]) and (s[:, ~goes_on] == 0).all()


@pytest.mark.parametrize("objective", ["iwae", "fivo"])
def test_so_do_all_particles_of_a_row(tmp_path: Path, objective: str) -> None:
    options = [*OPTIONS, f"objective={objective}", "objective.particles=3"]
    data, module = build(configure(tmp_path, *options))
    batch = next(iter(data.train_dataloader()))
    rows = len(batch.ids)
    state = tuple(torch.randn_like(s) for s in module.model.rnn.initial(3 * rows))
    module.carried = state
    goes_on = torch.arange(rows) % 2 == 0
    start = module.initial_state(batch._replace(continues=goes_on))
    for s, kept in zip(start, state, strict=True):
        s, kept = (part.unflatten(1, (3, rows)) for part in (s, kept))
        assert (
            torch.equal(s[:, :, goes_on], kept[:, :, goes_on]) and (s[:, :, ~goes_on] == 0).all()
        )


def test_a_batch_that_is_not_finite_costs_one_update(tmp_path: Path) -> None:
    data, module = build(configure(tmp_path, *OPTIONS, "data.reset_every=100"))
    data.splits["train"][0][7, 1] = np.nan
    guard = Gradients("skip", str(tmp_path))
    trainer(tmp_path, guard, max_steps=8, limit_val_batches=0).fit(module, data)
    assert guard.skipped == 1


def test_the_carried_state_goes_into_the_checkpoint(tmp_path: Path) -> None:
    data, module = build(configure(tmp_path, *OPTIONS))
    fit = trainer(tmp_path, max_steps=2, limit_val_batches=0)
    fit.fit(module, data)
    fit.save_checkpoint(tmp_path / "two.ckpt")
    content = torch.load(tmp_path / "two.ckpt", weights_only=True)
    again = copy.deepcopy(module)
    again.carried = None
    again.on_load_checkpoint(content)
    for ours, other in zip(again.carried, module.carried, strict=True):
        assert torch.equal(ours, other) and other.abs().sum() > 0 and not other.requires_grad
