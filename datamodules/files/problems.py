"""What to do about files that cannot be used."""

import logging
from collections.abc import Sequence
from typing import Literal

__all__ = ["Missing", "check_missing", "report", "some"]

log = logging.getLogger(__name__)

listing = logging.getLogger("unusable_files")
"""Has every problem where only some are told; train.py gives it the log file alone."""

Missing = Literal["error", "skip"]


def check_missing(missing: str) -> None:
    """Refuses what is no way to treat missing files, by a ValueError."""
    if missing not in ("error", "skip"):
        raise ValueError(f"data.missing={missing} is not one of error, skip")


def report(problems: Sequence[str], total: int, missing: str) -> None:
    """Refuses unusable files, or logs how many are skipped; tells three, and the log file all.

    Args:
        problems: one sentence a file, which names it.
        total: files in all.
        missing: "error" or "skip".

    Raises:
        ValueError: if there are problems and `missing` is "error".
    """
    if not problems:
        return
    message = f"{len(problems)} of {total} files cannot be used: {some(problems, '; ')}"
    files = [h.baseFilename for h in listing.handlers if isinstance(h, logging.FileHandler)]
    if files and len(problems) > 3:
        listing.info("files that cannot be used:\n%s", "\n".join(problems))
        message += f", all of them in {files[0]}"
    if missing == "error":
        raise ValueError(f"{message}. Fix them, or go on without them by data.missing=skip")
    log.warning("skipped: %s", message)


def some(names: Sequence[str], separator: str = ", ") -> str:
    """The first three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return separator.join(names[:3]) + more
