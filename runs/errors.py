"""Errors that a user can mend, told in one sentence."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["readable_errors"]

# What bad input raises: wrong values, missing files, full disks, numbers that go wrong, figures
# that a model has not.
MENDABLE = (
    ValueError,
    TypeError,
    OSError,
    FloatingPointError,
    ImportError,
    NotImplementedError,
)


@contextmanager
def readable_errors(folder: Path | None = None, end: bool = True) -> Iterator[None]:
    """Turns an error into one sentence on stderr and exit code 1.

    The traceback goes to <folder>/error.txt, except when the folder holds a finished run and the
    new one was refused before it began. Ctrl-C gives one word and exit code 130.

    HYDRA_FULL_ERROR=1 shows the traceback instead.

    Args:
        end: leave the program; in a sweep, where the other jobs go on, go on behind the block
            instead, whatever the error was. The sweep's table and exit code tell of it.
    """
    before = finished_run(folder)
    try:
        if folder is not None:
            (folder / "error.txt").unlink(missing_ok=True)
        yield
    except KeyboardInterrupt:
        print(f"\n{program_name()}: interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        cause = mendable_cause(error)
        if end and (cause is None or os.environ.get("HYDRA_FULL_ERROR") == "1"):
            raise
        told = str(cause) if cause is not None else f"{type(error).__name__}: {error}"
        refused = before is not None and before == finished_run(folder)
        where = "" if refused else save_traceback(folder, told)
        print(f"{program_name()}: {told}{where}", file=sys.stderr)
        if end:
            sys.exit(1)


def finished_run(folder: Path | None) -> tuple[int, int] | None:
    """Tells the finished run in a folder, if there is one, from one that has begun since."""
    if folder is None or not (folder / "metrics.json").is_file():
        return None
    file = folder / "run.json"
    return (file.stat().st_mtime_ns, file.stat().st_ino) if file.is_file() else None


def program_name() -> str:
    program = Path(sys.argv[0])
    return program.parent.name if program.name == "__main__.py" else program.name


def mendable_cause(error: BaseException | None) -> BaseException | None:
    """The outermost mendable error: Hydra wraps what constructors raise in one that is not."""
    if error is None or isinstance(error, MENDABLE):
        return error
    return mendable_cause(error.__cause__)


def save_traceback(folder: Path | None, told: str) -> str:
    if folder is None or not folder.is_dir():
        return ""
    try:
        (folder / "error.txt").write_text(f"{told}\n\n{traceback.format_exc()}")
    except OSError:
        return ""
    return f"\n(traceback: {folder / 'error.txt'})"
