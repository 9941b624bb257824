"""Where in the shuffled data a resumed run goes on."""

from collections.abc import Iterator, Sized
from itertools import islice
from typing import Any

from lightning import Trainer
from torch.utils.data import Sampler

__all__ = ["Remaining", "resumed"]


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
