"""From sequences on disk to padded, standardised batches: what all corpora share."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from datamodules.order import LengthBatches, Pieces, StreamBatches, resumed
from datamodules.ragged import Ragged
from vrnn.arguments import check_counts, choose
from vrnn.batch import SequenceBatch

__all__ = ["SequenceData", "collate", "moments"]

Floats = Sequence[float] | np.ndarray


class SequenceData(LightningDataModule):
    """Base of all data modules. A subclass reads its corpus in `load` and says what a frame is.

    Args:
        batch_size: sequences a batch, on every device.
        eval_batch_size: likewise for validation and test; `batch_size` if None.
        normaliser: "coordinate", zero mean and unit variance of every real coordinate over the
            training split, or "none"; subclasses add those of their literature.
        max_steps: longer training sequences are cut to this many frames; None for no limit. Not
            with `reset_every`, which trains on all frames; and below `window`, which cuts first.
        crop: which frames `max_steps` leaves, those at the "start", or a "random" piece, another
            one at every epoch; without `max_steps` it says nothing.
        window: sequences are cut into consecutive windows of this many frames; None keeps them
            whole.
        reset_every: training windows keep the state in which the batch before ended; it is reset
            to h_0 = 0 every so many updates (`datamodules.order.StreamBatches`). None starts
            every window at h_0 = 0.
        drop_incomplete: training leaves out, in every epoch, the sequences or windows that do not
            fill a batch.
        centre: the models' phi_x sees frames minus their mean; of binary data only.
        num_workers: processes that load batches.
        seed: of the order of the batches.

    Raises:
        ValueError: if an option has none of these values. `setup` also raises it where a split is
            empty, or a coordinate to be normalised is constant.

    Attributes:
        name: as in `data=<name>`.
        kind: "pen", "audio", "binary" or "real", which says how sequences are drawn, and which
            likelihoods describe them.
        columns: names of the coordinates of a frame.
        rate: frames a second; of audio, samples.
        binary: coordinates that are 0 or 1, and never normalised.
        paper_scale: (D,), the scale of the units of published figures, where there are such.
        splits: "train", "val" and "test", raw, after `setup`.
        splits_by: how to give it a list {} of `name,split`, in words; None where none is read.
    """

    name: str
    kind: str
    columns: tuple[str, ...]
    rate: float
    binary: tuple[int, ...] = ()
    paper_scale: tuple[float, ...] | None = None
    splits_by: str | None = None

    def __init__(
        self,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        normaliser: str = "coordinate",
        max_steps: int | None = None,
        crop: str = "start",
        window: int | None = None,
        reset_every: int | None = None,
        drop_incomplete: bool = False,
        centre: bool = False,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_counts(
            "data.",
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            max_steps=max_steps,
            window=window,
            reset_every=reset_every,
        )
        choose("data.crop", crop, ("start", "random"))
        if reset_every is not None and window is None:
            raise ValueError(
                f"data.reset_every={reset_every} needs data.window, the frames of an update"
            )
        if max_steps is not None and reset_every is not None:
            raise ValueError(
                f"data.reset_every={reset_every} trains on all windows of a sequence in turn, so "
                f"that neither data.max_steps={max_steps} nor data.crop={crop} can cut it; leave "
                "data.max_steps out, and choose shorter updates by data.window"
            )
        if max_steps is not None and window is not None and max_steps >= window:
            raise ValueError(
                f"data.max_steps={max_steps} cuts nothing, since data.window={window} cuts first; "
                "leave one of them out"
            )
        if centre and self.kind != "binary":
            raise ValueError(
                f"data.centre=true is for binary data, and data={self.name} is of kind {self.kind}"
            )

        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.normaliser, self.max_steps = normaliser, max_steps
        self.window, self.reset_every, self.drop_incomplete = window, reset_every, drop_incomplete
        self.crop, self.centre = crop, centre
        self.num_workers, self.seed = num_workers, seed
        self.splits: dict[str, Ragged] = {}

    @abstractmethod
    def load(self) -> dict[str, Ragged]:
        """Reads the corpus: "train", "val" and "test" sequences of raw frames (T, D)."""

    @property
    def x_dim(self) -> int:
        """D, numbers in a frame."""
        return len(self.columns)

    @property
    def all_binary(self) -> bool:
        """Every coordinate of a frame is 0 or 1."""
        return len(self.binary) == self.x_dim

    def setup(self, stage: str | None = None) -> None:
        """Reads the corpus, once; the normaliser's statistics are those of its training split."""
        if self.splits:
            return
        splits = self.load()
        for split, sequences in splits.items():
            if len(sequences) == 0:
                raise ValueError(f"data={self.name}: the {split} split is empty")
        self.standardise_with(*self.statistics(splits["train"]))
        self.splits = {
            split: sequences
            if self.window is None or (split == "train" and self.reset_every is not None)
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
                rest = [self.columns[d] for d in np.flatnonzero(varies)]
                raise ValueError(
                    f"data={self.name}: constant in the training split: {', '.join(constant)}; "
                    f"{self.leaving(rest)}, or choose data.normaliser=none"
                )
        return shift, scale

    def leaving(self, columns: Sequence[str]) -> str:
        """How to leave all columns out but these, an imperative."""
        return "leave it out"

    def means(self) -> list[float] | None:
        """How often each coordinate of binary frames is set in the training split, (D,)."""
        if not self.all_binary:
            return None
        mean: np.ndarray = moments(self.splits["train"])[0]
        return mean.tolist()

    def description(self) -> dict[str, Any]:
        """What a model must know of its data, in plain containers; stored in every checkpoint.

        Raises:
            ValueError: if `drop_incomplete` leaves no batch.
        """
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
            "batch": self.training_order(self.batch_size).size._asdict(),
        }

    def batch(self, split: str, pieces: Pieces) -> SequenceBatch:
        """Builds one batch of pieces of a split's sequences."""
        ragged = self.splits[split]
        places = zip(pieces.sequence, pieces.start, pieces.steps, strict=True)
        sequences = [ragged.piece(int(i), start, start + steps) for i, start, steps in places]
        if pieces.seed is not None:
            pairs = zip(sequences, pieces.seed, strict=True)
            sequences = [self.augment(x, np.random.default_rng(seed)) for x, seed in pairs]
        batch = collate(sequences, pieces.sequence, self.shift, self.scale)
        if pieces.continues is None:
            return batch
        return batch._replace(continues=torch.from_numpy(pieces.continues))

    def augment(self, sequence: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Changes a training sequence (T, D) at random, in raw units; by default not at all."""
        return sequence

    def beginnings(self, split: str, n: int, steps: int) -> Tensor:
        """The first frames of n sequences that have more, standardised, (steps, n, D).

        Raises:
            ValueError: if there are fewer.
        """
        sequences = self.splits[split]
        long = np.flatnonzero(sequences.lengths > steps)[:n]
        if len(long) < n:
            longest = np.sort(sequences.lengths[sequences.lengths > 1])[-n:]
            ways = [f"--n {len(long)}"] if len(long) else []
            if len(longest):
                fewer = f" --n {len(longest)}" if len(longest) < n else ""
                ways.append(f"--prime {longest[0] - 1}{fewer}")
            raise ValueError(
                f"only {len(long)} of {len(sequences)} sequences of the {split} split have more "
                f"than {steps} frames, not {n}; choose {' or '.join(ways) or 'no --prime'}"
            )
        x = np.stack(
            [(sequences.piece(int(i), 0, steps) - self.shift) / self.scale for i in long], axis=1
        )
        return torch.from_numpy(x.astype(np.float32))

    def training_frames(self, count: int) -> Tensor:
        """The first `count` frames, standardised, (N, D), of the training sequences in a drawn
        order, the same in every run; all frames where there are fewer."""
        train, frames, n = self.splits["train"], [], 0
        for i in np.random.default_rng(0).permutation(len(train)):
            frames.append((train.piece(int(i), 0, count - n) - self.shift) / self.scale)
            n += len(frames[-1])
            if n == count:
                break
        return torch.from_numpy(np.concatenate(frames).astype(np.float32))

    def train_dataloader(self) -> DataLoader[SequenceBatch]:
        return self.loader("train", self.batch_size)

    def val_dataloader(self) -> DataLoader[SequenceBatch]:
        return self.loader("val", self.eval_batch_size)

    def test_dataloader(self) -> DataLoader[SequenceBatch]:
        return self.loader("test", self.eval_batch_size)

    def training_order(
        self, batch_size: int, rank: int = 0, world: int = 1
    ) -> LengthBatches | StreamBatches:
        """Which pieces of the training split make up this process's batches."""
        lengths, drop = self.splits["train"].lengths, self.drop_incomplete
        if self.window is not None and self.reset_every is not None:
            return StreamBatches(
                lengths, self.window, batch_size, self.reset_every, rank, world, drop
            )
        return LengthBatches(
            lengths, batch_size, True, self.seed, rank, world, self.max_steps, self.crop, drop
        )

    def loader(self, split: str, batch_size: int) -> DataLoader[SequenceBatch]:
        """Batches of a split, this process's share of them.

        Args:
            split: "train", shuffled anew in every epoch, or in streams, and cut and augmented; or
                "val" or "test", every sequence once, longest first.
            batch_size: sequences a batch.
        """
        rank, world = (
            (self.trainer.global_rank, self.trainer.world_size)
            if self.trainer is not None
            else (0, 1)
        )
        lengths = self.splits[split].lengths
        if split != "train" and len(lengths) < world:
            raise ValueError(
                f"the {split} split of data={self.name} has {len(lengths)} sequences, too few for "
                f"{world} processes that score each once; use fewer devices"
            )
        batches = Batches(self, split)
        order = (
            self.training_order(batch_size, rank, world)
            if split == "train"
            else LengthBatches(lengths, batch_size, False, self.seed, rank, world)
        )
        fixed = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        sampler = resumed(order, self.trainer) if split == "train" else order
        return DataLoader(
            # Lightning overfits the batches of a sequential sampler only: the first epoch's.
            Subset(batches, list(order)) if fixed else batches,  # type: ignore[arg-type]
            sampler=None if fixed else sampler,
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


class Batches(torch.utils.data.Dataset[SequenceBatch]):
    """A split as a map from the pieces of a batch to the batch."""

    def __init__(self, data: SequenceData, split: str) -> None:
        self.data, self.split = data, split

    def __getitem__(self, pieces: Pieces) -> SequenceBatch:
        return self.data.batch(self.split, pieces)


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
