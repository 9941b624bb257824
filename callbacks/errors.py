"""Errors that a user can mend, told in one sentence."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["readable_errors"]

# What bad input raises: wrong values, missing files, full disks, numbers that go wrong.
MENDABLE = (ValueError, TypeError, OSError, FloatingPointError, ImportError)


@contextmanager
def readable_errors(folder: Path | None = None, end: bool = True) -> Iterator[None]:
    """Turns an error into one sentence on stderr and exit code 1; the traceback goes to
    <folder>/error.txt.

    HYDRA_FULL_ERROR=1 shows the traceback instead.

    Args:
        end: leave the program; in a sweep, where the other jobs go on, the error is passed on
            instead.
    """
    try:
        yield
    except Exception as error:
        cause = mendable_cause(error)
        if cause is None or os.environ.get("HYDRA_FULL_ERROR") == "1" or not end:
            raise
        where = save_traceback(folder)
        print(f"{Path(sys.argv[0]).name}: {cause}{where}", file=sys.stderr)
        sys.exit(1)


def mendable_cause(error: BaseException) -> BaseException | None:
    """The innermost mendable error: Hydra wraps what constructors raise."""
    found = error if isinstance(error, MENDABLE) else None
    inner = error.__cause__
    return (mendable_cause(inner) if inner is not None else None) or found


def save_traceback(folder: Path | None) -> str:
    if folder is None or not folder.is_dir():
        return ""
    try:
        (folder / "error.txt").write_text(traceback.format_exc())
    except OSError:
        return ""
    return f"\n(traceback: {folder / 'error.txt'})"
