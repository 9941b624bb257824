"""Which pieces of which sequences make up a batch, and in what order the batches come."""

from collections.abc import Iterator, Sized
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from lightning import Trainer
from torch.utils.data import Sampler

__all__ = ["BatchSize", "LengthBatches", "Pieces", "Remaining", "StreamBatches", "resumed"]


class Pieces(NamedTuple):
    """The pieces of one batch, one a row, each (B,)."""

    sequence: np.ndarray
    """Which sequence it is cut from; -1 where a stream's row has come to its end before the
    others."""
    start: np.ndarray
    """Its first frame in that sequence."""
    steps: np.ndarray
    """How many frames it has."""
    seed: np.ndarray | None = None
    """Of whatever changes it at random, another one in every epoch; None in evaluation."""
    continues: np.ndarray | None = None
    """True where it goes on from the piece that the row had in the batch before; None where all
    rows are sequences of their own."""


class BatchSize(NamedTuple):
    """What a training batch holds, on one device: divisors of the loss.

    They are the same for all batches, so that every frame, or every sequence, has the same weight
    in whichever batch it is; in a batch that is not full they are not fewer.
    """

    sequences: int
    """Sequences, or rows of windows."""
    steps: float
    """Frames, on average."""


class LengthBatches(Sampler[Pieces]):
    """Batches of sequences of similar length, a function of seed and epoch alone.

    Shuffled: sequences are permuted, sorted by length inside pools of 32 batches, cut into
    batches, and the batches permuted. All ranks get the same number of batches, the last ones
    filled up from the first where they do not divide. Not shuffled: every sequence exactly once
    over all ranks, longest first, in smaller batches where some rank would have none.

    Args:
        lengths: (N,), frames of each sequence.
        rank, world: this process and how many there are.
        max_steps: frames that longer sequences are cut to; None for no limit.
        crop: which frames these are, those at the "start" or a "random" piece.
        drop_incomplete: shuffled, leave out as many sequences of every epoch, drawn at random, as
            do not fill a batch.

    Raises:
        ValueError: if that leaves no batch.
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
        max_steps: int | None = None,
        crop: str = "start",
        drop_incomplete: bool = False,
    ) -> None:
        if drop_incomplete:
            check_full(len(lengths), batch_size, "sequences")
        if not shuffle:
            batch_size = max(1, min(batch_size, len(lengths) // world))
        self.lengths, self.batch_size, self.shuffle = lengths, batch_size, shuffle
        self.seed, self.rank, self.world = seed, rank, world
        self.max_steps, self.crop = max_steps, crop
        # A multiple of the batch size, or all.
        rest = len(lengths) % batch_size if drop_incomplete and shuffle else 0
        self.used = len(lengths) - rest
        self.steps = lengths if max_steps is None else lengths.clip(max=max_steps)
        self.epoch = 0

    @property
    def size(self) -> BatchSize:
        """Of a full batch, its sequences having as many frames as all have on average."""
        sequences = min(self.batch_size, self.used)
        return BatchSize(sequences, sequences * float(self.steps.mean()))

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of every epoch, after a resume too."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Pieces]:
        batches, steps = self.plan(), self.steps
        start, seed = np.zeros_like(steps), None
        if self.shuffle:
            batches += (batches * self.world)[: -len(batches) % self.world]
            rng = np.random.default_rng([self.seed, self.epoch, 1])
            seed = rng.integers(2**63, size=len(steps))
            if self.crop == "random":
                start = rng.integers(self.lengths - steps + 1)
        for batch in batches[self.rank :: self.world]:
            yield Pieces(batch, start[batch], steps[batch], None if seed is None else seed[batch])

    def __len__(self) -> int:
        batches = -(-self.used // self.batch_size)
        if self.shuffle:
            return -(-batches // self.world)
        return len(range(self.rank, batches, self.world))

    def plan(self) -> list[np.ndarray]:
        """All ranks' batches of this epoch, in order."""
        if not self.shuffle:
            order = np.argsort(-self.lengths, kind="stable")
            return chunks(order, self.batch_size)
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))[: self.used]
        pools = chunks(order, self.batch_size * self.pool)
        ordered = np.concatenate(
            [pool[np.argsort(-self.lengths[pool], kind="stable")] for pool in pools]
        )
        batches = chunks(ordered, self.batch_size)
        return [batches[i] for i in rng.permutation(len(batches))]


class StreamBatches(Sampler[Pieces]):
    """Every sequence cut into windows, laid end to end on as many rows as a batch has, over all
    ranks, for truncated back-propagation.

    Batch j holds the j-th window of every row. A row goes on from its last window unless a new
    sequence begins, or `reset` batches have passed since it was last started anew. The order is
    that of the sequences, the same in every epoch, as in the original code.

    Args:
        lengths: (N,), frames of each sequence.
        window: frames of a window; a sequence's last one is shorter where it does not divide.
        batch_size: rows of this rank.
        reset: batches after which all rows start anew.
        rank, world: this process and how many there are.
        drop_incomplete: leave out the last batch where some of its rows have come to their end.

    Raises:
        ValueError: if that leaves no batch.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        window: int,
        batch_size: int,
        reset: int,
        rank: int = 0,
        world: int = 1,
        drop_incomplete: bool = False,
    ) -> None:
        self.lengths, self.window, self.reset = lengths, window, reset
        self.batch_size = batch_size
        counts = -(-lengths // window)
        self.sequence = np.repeat(np.arange(len(lengths)), counts)
        before = np.repeat(counts.cumsum() - counts, counts)
        self.start = window * (np.arange(len(self.sequence)) - before)
        # Rows differ by one window at most, the longer ones first.
        rows = batch_size * world
        if drop_incomplete:
            check_full(len(self.sequence), rows, "windows")
        whole, rest = divmod(len(self.sequence), rows)
        bounds = whole * np.arange(rows + 1) + np.minimum(np.arange(rows + 1), rest)
        own = slice(rank * batch_size, (rank + 1) * batch_size)
        self.first, self.last = bounds[:-1][own], bounds[1:][own]
        self.batches = whole if drop_incomplete or rest == 0 else whole + 1

    @property
    def size(self) -> BatchSize:
        """Of a batch with a window on every row, of as many frames as all have on average."""
        rows = min(self.batch_size, len(self.sequence))
        return BatchSize(rows, rows * float(self.lengths.sum()) / len(self.sequence))

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Pieces]:
        return (self.batch(j) for j in range(self.batches))

    def batch(self, j: int) -> Pieces:
        """The j-th window of every row of this rank."""
        place = self.first + j
        there = place < self.last
        place = np.where(there, place, 0)
        sequence, start = self.sequence[place], self.start[place]
        steps = np.minimum(self.lengths[sequence] - start, self.window)
        return Pieces(
            sequence=np.where(there, sequence, -1),
            start=start,
            steps=np.where(there, steps, 0),
            continues=there & (start > 0) & (j % self.reset > 0),
        )


def chunks(order: np.ndarray, size: int) -> list[np.ndarray]:
    return [order[i : i + size] for i in range(0, len(order), size)]


def check_full(count: int, needed: int, what: str) -> None:
    if count < needed:
        raise ValueError(
            f"data.drop_incomplete=true leaves no batch: training has {count} {what}, and a batch "
            f"{needed}; choose a smaller data.batch_size or data.drop_incomplete=false"
        )


class Remaining(Sampler[Any]):
    """The batches of another sampler, but for those of one epoch that were trained on already.

    Args:
        sampler: whose batches are a function of the epoch alone.
        epoch: in which the run was interrupted.
        start: batches of it that are done.
    """

    def __init__(self, sampler: Sampler[Any], epoch: int, start: int) -> None:
        self.sampler, self.epoch, self.start = sampler, epoch, start
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.start = 0
        self.epoch = epoch
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        yield from islice(self.sampler, self.start, None)

    def __len__(self) -> int:
        """Of a whole epoch, which Lightning counts in."""
        assert isinstance(self.sampler, Sized)
        return len(self.sampler)


def resumed(sampler: Sampler[Any], trainer: Trainer | None) -> Sampler[Any]:
    """The sampler from where Lightning's counters, restored from a checkpoint, stand."""
    # Even where the epoch was completed: workers fetch before Lightning has set the next one.
    if trainer is None or not trainer.fit_loop.is_resuming:
        return sampler
    loop = trainer.fit_loop
    done = loop.epoch_loop.batch_progress.current.completed
    epoch: int = loop.epoch_progress.current.processed  # type: ignore[attr-defined]
    return Remaining(sampler, epoch, done)
