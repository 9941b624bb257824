"""What does not fill a training batch, left out by data.drop_incomplete."""

import numpy as np
import pytest
from support.signals import Signals, epoch, signals

from datamodules.order import LengthBatches, Remaining

LENGTHS = np.random.default_rng(0).integers(5, 400, 1003)


def test_what_does_not_fill_a_batch_is_left_out_by_chance() -> None:
    """1,003 sequences are 125 batches of 8, and 3 more."""
    batches = LengthBatches(LENGTHS, 8, True, 0, drop_incomplete=True)
    missed = []
    for number in range(200):
        seen = epoch(batches, number)
        assert len(seen) == len(batches) == 125 and {len(batch) for batch in seen} == {8}
        assert len({i for batch in seen for i in batch}) == 1000
        missed += sorted(set(range(1003)) - {i for batch in seen for i in batch})
    assert len(set(missed)) > 400
    # Neither the short ones nor the long ones: within four standard errors of the mean.
    error = LENGTHS.std() / len(missed) ** 0.5
    assert abs(LENGTHS[missed].mean() - LENGTHS.mean()) < 4 * error

    whole = epoch(LengthBatches(LENGTHS[:1000], 8, True, 0), 3)
    assert epoch(LengthBatches(LENGTHS[:1000], 8, True, 0, drop_incomplete=True), 3) == whole
    rest = Remaining(batches, 3, 120)
    assert [b.sequence.tolist() for b in rest] == epoch(batches, 3)[120:] and len(rest) == 125
    plans = [
        epoch(LengthBatches(LENGTHS, 8, True, 0, rank, 2, drop_incomplete=True), 3)
        for rank in (0, 1)
    ]
    assert [len(plan) for plan in plans] == [63, 63]
    together = [batch for pair in zip(*plans, strict=True) for batch in pair]
    assert together == [*epoch(batches, 3), together[0]]


@pytest.mark.parametrize("reset_every", [None, 2])
def test_dropping_all_batches_is_refused(reset_every: int | None) -> None:
    given = {split: signals(0, 3) for split in ("train", "val", "test")}
    for size in (3, 4):
        stream = {"window": 1000, "reset_every": reset_every} if reset_every else {}
        data = Signals(given, batch_size=size, drop_incomplete=True, **stream)
        data.setup()
        if size == 3:
            assert len(data.train_dataloader()) == 1
            continue
        assert len(data.val_dataloader()) == 1, "evaluation drops nothing"
        for refused in (data.description, data.train_dataloader):
            with pytest.raises(ValueError, match=r"drop_incomplete=true leaves no batch.* has 3"):
                refused()
