"""Lightning's counters of a training loop, as they have to be for it to go on exactly."""

from collections.abc import Mapping
from typing import Any

__all__ = ["counters"]


def counters(
    loop: Mapping[str, Any], updates: int, last: bool, over: bool, validation: str | None
) -> dict[str, Any]:
    """The counters in one of the few forms that Lightning goes on from exactly.

    Args:
        loop: the counters at the time of saving.
        updates: made so far.
        last: the epoch's last batch is done.
        over: and so is its validation, if any.
        validation: after the last batch: "pending", it is done again; "done", it is not; or None,
            there is none.
    """
    epochs, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]
    # An epoch that max_steps cuts short counts as processed, but not as completed.
    epoch = epochs["processed"] if over else epochs["completed"]
    done = 0 if over else batches["current"]["processed"]
    begun, pending = epoch + int(not over), int(validation == "pending" and not over)
    # Lightning counts the last update when its validation is over, or skipped.
    counted = updates - int(validation is not None and not over)
    return {
        "epoch_progress": twice(begun, begun, epoch, epoch),
        "epoch_loop.batch_progress": {
            "total": same(batches["total"]["processed"]),
            "current": same(done),
            "is_last_batch": last and not over,
        },
        "epoch_loop.val_loop.batch_progress": {
            **twice(pending, pending, 0, 0),
            "is_last_batch": False,
        },
        "epoch_loop.state_dict": {"_batches_that_stepped": counted},
    }


def twice(*counts: int) -> dict[str, dict[str, int]]:
    names = ("ready", "started", "processed", "completed")
    return {key: dict(zip(names, counts, strict=True)) for key in ("total", "current")}


def same(count: int) -> dict[str, int]:
    return dict.fromkeys(("ready", "started", "processed", "completed"), count)
