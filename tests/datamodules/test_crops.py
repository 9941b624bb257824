from pathlib import Path

import numpy as np
import pytest
import torch
from support.audio_tree import noise, write

from datamodules.audio.corpus import AudioFolder
from datamodules.order import LengthBatches


def test_random_crops_are_a_function_of_seed_epoch_and_sequence(tmp_path: Path) -> None:
    for i in range(12):
        write(tmp_path / f"{i:02d}.wav", noise(i, 200 * (i + 3)))
    data = AudioFolder(tmp_path, max_steps=5, crop="random", batch_size=4, seed=3)
    data.setup()
    train = data.splits["train"]

    def pieces(epoch: int, batch_size: int) -> dict[int, torch.Tensor]:
        order = LengthBatches(train.lengths, batch_size, True, 3, max_steps=5, crop="random")
        order.set_epoch(epoch)
        batches = [data.batch("train", cut) for cut in order]
        return {int(i): b.x[b.mask[:, n], n] for b in batches for n, i in enumerate(b.ids)}

    first, again, later = pieces(0, 4), pieces(0, 3), pieces(1, 4)
    assert first.keys() == set(range(len(train)))
    moved = 0
    for i, piece in first.items():
        torch.testing.assert_close(piece, again[i], msg="whatever the batches are")
        frames = torch.from_numpy(((train[i] - data.shift) / data.scale).astype(np.float32))
        assert len(piece) == min(5, len(frames))
        places = [s for s in range(len(frames) - len(piece) + 1)
                  if torch.equal(frames[s : s + len(piece)], piece)]  # fmt: skip
        assert len(places) == 1, "a piece of its own sequence"
        moved += not torch.equal(piece, later[i])
    assert moved > 3
    (whole,) = data.val_dataloader()
    assert whole.mask.sum() == data.splits["val"].lengths.sum() > 5


def test_every_place_of_a_crop_is_as_likely() -> None:
    order = LengthBatches(np.full(5000, 8), 5000, True, 0, max_steps=5, crop="random")
    (pieces,) = order
    assert np.bincount(pieces.start, minlength=4).tolist() == pytest.approx([1250] * 4, rel=0.1)
