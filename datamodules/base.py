"""From sequences on disk to padded, standardised batches: what all corpora share."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, Subset

from datamodules.ragged import Ragged
from datamodules.streams import StreamBatches, Windows

__all__ = ["LengthBatches", "SequenceBatch", "SequenceData", "collate"]


Floats = Sequence[float] | np.ndarray


class SequenceBatch(NamedTuple):
    """Sequences side by side, time first, padded at their ends."""

    x: Tensor
    """Standardised frames, (T, B, D) float32, zero on padding."""
    mask: Tensor
    """(T, B) bool, True on a sequence's own steps."""
    ids: Tensor
    """(B,) int64, each sequence's number in its split."""
    continues: Tensor | None = None
    """(B,) bool, True where a row goes on from the same row of the batch before it, in the state
    that ended in; None where every row is a sequence of its own."""


class Crops(NamedTuple):
    """The pieces of one batch."""

    sequences: np.ndarray
    """(B,), which sequences they are cut from."""
    starts: np.ndarray
    """(B,), the first frame of each."""


class SequenceData(LightningDataModule):
    """Base of all data modules. A subclass reads its corpus in `load` and says what a frame is.

    Args:
        batch_size: sequences a batch, on every device.
        eval_batch_size: likewise for validation and test; `batch_size` if None.
        normaliser: "coordinate", zero mean and unit variance of every real coordinate over the
            training split, or "none"; subclasses add those of their literature.
        max_steps: longer training sequences are cut to this many frames; None for no limit.
        crop: which frames `max_steps` leaves, those at the "start", or a "random" piece, another
            one at every epoch.
        window: sequences are cut into consecutive windows of this many frames; None keeps them
            whole.
        carry: training windows go on where the batch before ended, in its state, which starts
            anew after this many updates (`datamodules.streams`); None starts every window at
            h_0 = 0.
        centre: the models' phi_x sees frames minus their mean; of binary data only.
        num_workers: processes that load batches.
        seed: of the order of the batches.
    """

    name: str
    kind: str
    columns: tuple[str, ...]
    rate: float
    binary: tuple[int, ...] = ()
    paper_scale: tuple[float, ...] | None = None

    def __init__(
        self,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        normaliser: str = "coordinate",
        max_steps: int | None = None,
        window: int | None = None,
        carry: int | None = None,
        centre: bool = False,
        num_workers: int = 0,
        seed: int = 0,
        crop: str = "start",
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size must be at least 1, not {batch_size}")
        if window is not None and window < 1:
            raise ValueError(f"data.window must be at least 1, not {window}")
        if carry is not None and (carry < 1 or window is None):
            raise ValueError(
                f"data.carry={carry} must be at least 1 and needs data.window, the frames of an "
                "update"
            )

        if crop not in ("start", "random"):
            raise ValueError(f"data.crop={crop} is not one of start, random")

        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.normaliser, self.max_steps = normaliser, max_steps
        self.window, self.carry = window, carry
        self.crop, self.centre = crop, centre
        self.num_workers, self.seed = num_workers, seed
        self.splits: dict[str, Ragged] = {}

    @abstractmethod
    def load(self) -> dict[str, Ragged]:
        """Reads the corpus: "train", "val" and "test" sequences of raw frames (T, D)."""

    @property
    def x_dim(self) -> int:
        return len(self.columns)

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        splits = self.load()
        for split, sequences in splits.items():
            if len(sequences) == 0:
                raise ValueError(f"data={self.name}: the {split} split is empty")
        self.standardise_with(*self.statistics(splits["train"]))
        self.splits = {
            split: sequences
            if self.window is None or (split == "train" and self.carry is not None)
            else sequences.windows(self.window)
            for split, sequences in splits.items()
        }

    def standardise_with(self, shift: Floats, scale: Floats) -> None:
        """Takes over the normaliser of a trained model, (D,) each, in place of the split's own."""
        self.shift, self.scale = np.asarray(shift, np.float64), np.asarray(scale, np.float64)

    def statistics(self, train: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """Shift and scale of the normaliser, (D,) each, from the training split only."""
        if self.normaliser not in ("coordinate", "none"):
            raise ValueError(f"data.normaliser={self.normaliser} is not one of coordinate, none")
        shift, scale = np.zeros(self.x_dim), np.ones(self.x_dim)
        if self.normaliser == "coordinate":
            real = [d for d in range(self.x_dim) if d not in self.binary]
            shift[real], scale[real] = (moment[real] for moment in moments(train))
            # Of a constant, rounding leaves a standard deviation near 1e-16 of its value.
            varies = scale > 1e-12 * np.abs(shift)
            if not varies.all():
                constant = [self.columns[d] for d in np.flatnonzero(~varies)]
                raise ValueError(
                    f"data={self.name}: constant in the training split: {', '.join(constant)}; "
                    "leave it out, or choose data.normaliser=none"
                )
        return shift, scale

    def means(self) -> list[float] | None:
        """How often each coordinate of binary frames is set in the training split, (D,)."""
        if self.kind != "binary":
            return None
        mean: np.ndarray = moments(self.splits["train"])[0]
        return mean.tolist()

    def description(self) -> dict[str, Any]:
        """What a model must know of its data, in plain containers; stored in every checkpoint."""
        log_scales = {"standardised": float(np.log(self.scale).sum()), "raw": 0.0}
        if self.paper_scale is not None:
            log_scales["paper"] = float(np.log(self.paper_scale).sum())
        return {
            "name": self.name,
            "kind": self.kind,
            "columns": list(self.columns),
            "rate": self.rate,
            "shift": self.shift.tolist(),
            "scale": self.scale.tolist(),
            "means": self.means(),
            "centre": self.centre,
            "log_scales": log_scales,
            "sequences": {split: len(sequences) for split, sequences in self.splits.items()},
            "steps": {
                split: int(sequences.lengths.sum()) for split, sequences in self.splits.items()
            },
        }

    def batch(self, split: str, indices: np.ndarray | Crops | Windows) -> SequenceBatch:
        """Builds one batch: of a split's sequences, of pieces of them, or of rows of a stream."""
        if isinstance(indices, Windows):
            return self.stream_batch(split, indices)
        starts = np.zeros(1, np.int64)
        if isinstance(indices, Crops):
            indices, starts = indices
        ragged, steps = self.splits[split], self.max_steps if split == "train" else None
        sequences = [
            ragged.piece(int(i), start, start + (steps or int(ragged.lengths[i])))
            for i, start in np.broadcast(indices, starts)
        ]
        return collate(sequences, indices, self.shift, self.scale)

    def stream_batch(self, split: str, rows: Windows) -> SequenceBatch:
        assert self.window is not None
        windows = [
            self.splits[split].piece(i, start, start + self.window if i >= 0 else start)
            for i, start in zip(rows.sequence, rows.start, strict=True)
        ]
        batch = collate(windows, rows.sequence, self.shift, self.scale)
        return batch._replace(continues=torch.from_numpy(rows.continues))

    def beginnings(self, split: str, n: int, steps: int) -> Tensor:
        """The first frames of n sequences that have more, standardised, (steps, n, D)."""
        sequences = self.splits[split]
        long = np.flatnonzero(sequences.lengths > steps)[:n]
        if len(long) < n:
            raise ValueError(
                f"only {len(long)} sequences of the {split} split have more than {steps} frames"
            )
        x = np.stack(
            [(sequences.piece(int(i), 0, steps) - self.shift) / self.scale for i in long], axis=1
        )
        return torch.from_numpy(x.astype(np.float32))

    def train_dataloader(self) -> DataLoader[SequenceBatch]:
        return self.loader("train", self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[SequenceBatch]:
        return self.loader("val", self.eval_batch_size, shuffle=False)

    def test_dataloader(self) -> DataLoader[SequenceBatch]:
        return self.loader("test", self.eval_batch_size, shuffle=False)

    def loader(self, split: str, batch_size: int, shuffle: bool) -> DataLoader[SequenceBatch]:
        rank, world = (
            (self.trainer.global_rank, self.trainer.world_size)
            if self.trainer is not None
            else (0, 1)
        )
        lengths = self.splits[split].lengths
        batches = Batches(self, split)
        order: LengthBatches | StreamBatches
        if split == "train" and self.window is not None and self.carry is not None:
            order = StreamBatches(lengths, self.window, batch_size, self.carry, rank, world)
        else:
            crop = self.max_steps if split == "train" and self.crop == "random" else None
            order = LengthBatches(lengths, batch_size, shuffle, self.seed, rank, world, crop)
        fixed = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        return DataLoader(
            # Lightning overfits the batches of a sequential sampler only: the first epoch's.
            Subset(batches, list(order)) if fixed else batches,  # type: ignore[arg-type]
            sampler=None if fixed else order,
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


class Batches(torch.utils.data.Dataset[SequenceBatch]):
    """A split as a map from the indices of a batch to the batch."""

    def __init__(self, data: SequenceData, split: str) -> None:
        self.data, self.split = data, split

    def __getitem__(self, indices: np.ndarray | Crops | Windows) -> SequenceBatch:
        return self.data.batch(self.split, indices)


class LengthBatches(Sampler[np.ndarray | Crops]):
    """Batches of sequences of similar length, a function of seed and epoch alone.

    Shuffled: sequences are permuted, sorted by length inside pools of 32 batches, cut into
        batches, and the batches
    permuted. All ranks get the same number of batches, the last ones filled up from the first
    where they do not divide. Not shuffled: every sequence exactly once over all ranks, longest
    first.

    Args:
        lengths: (N,), frames of each sequence.
        rank, world: this process and how many there are.
        crop: frames of a random piece of each longer sequence, a function of seed, epoch and
            sequence; None for whole sequences, without `Crops`.
    """

    pool = 32

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world: int = 1,
        crop: int | None = None,
    ) -> None:
        self.lengths, self.batch_size, self.shuffle = lengths, batch_size, shuffle
        self.seed, self.rank, self.world = seed, rank, world
        self.crop = crop
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of every epoch, after a resume too."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[np.ndarray | Crops]:
        batches = self.plan()
        if self.shuffle:
            batches += batches[: -len(batches) % self.world]
        own = batches[self.rank :: self.world]
        if self.crop is None:
            yield from own
        else:
            places = np.random.default_rng([self.seed, self.epoch, 1]).random(len(self.lengths))
            starts = np.floor(places * np.maximum(1, self.lengths - self.crop + 1)).astype(int)
            yield from (Crops(batch, starts[batch]) for batch in own)

    def __len__(self) -> int:
        batches = -(-len(self.lengths) // self.batch_size)
        if self.shuffle:
            return -(-batches // self.world)
        return len(range(self.rank, batches, self.world))

    def plan(self) -> list[np.ndarray]:
        """All ranks' batches of this epoch, in order."""
        if not self.shuffle:
            order = np.argsort(-self.lengths, kind="stable")
            return cut(order, self.batch_size)
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))
        pools = cut(order, self.batch_size * self.pool)
        ordered = np.concatenate(
            [pool[np.argsort(-self.lengths[pool], kind="stable")] for pool in pools]
        )
        batches = cut(ordered, self.batch_size)
        return [batches[i] for i in rng.permutation(len(batches))]


def cut(order: np.ndarray, size: int) -> list[np.ndarray]:
    return [order[i : i + size] for i in range(0, len(order), size)]


def collate(
    sequences: list[np.ndarray], indices: np.ndarray, shift: np.ndarray, scale: np.ndarray
) -> SequenceBatch:
    """Standardises and pads sequences (T_i, D); shift, scale (D,)."""
    lengths = np.array([len(sequence) for sequence in sequences])
    x = np.zeros((max(1, lengths.max()), len(sequences), sequences[0].shape[1]), np.float32)
    for b, sequence in enumerate(sequences):
        x[: len(sequence), b] = (sequence - shift) / scale
    mask = np.arange(len(x))[:, None] < lengths
    return SequenceBatch(torch.from_numpy(x), torch.from_numpy(mask), torch.as_tensor(indices))


def moments(sequences: Ragged) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every coordinate over all frames, (D,) each, in float64."""
    n = int(sequences.lengths.sum())
    mean = sum(np.asarray(s, np.float64).sum(0) for s in sequences) / n
    square = sum(np.square(np.asarray(s, np.float64) - mean).sum(0) for s in sequences) / n
    return mean, np.sqrt(square)
