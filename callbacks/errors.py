"""Errors that a user can mend, told in one sentence."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hydra.utils import get_object
from torch import Tensor

__all__ = ["check_types", "readable_errors"]

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
    """Turns an error into one sentence on stderr and exit code 1; the traceback goes to
    <folder>/error.txt.

    HYDRA_FULL_ERROR=1 shows the traceback instead.

    Args:
        end: leave the program; in a sweep, where the other jobs go on, go on behind the block
            instead, whatever the error was. The sweep's table and exit code tell of it.
    """
    try:
        if folder is not None:
            (folder / "error.txt").unlink(missing_ok=True)
        yield
    except Exception as error:
        cause = mendable_cause(error)
        if end and (cause is None or os.environ.get("HYDRA_FULL_ERROR") == "1"):
            raise
        told = str(cause) if cause is not None else f"{type(error).__name__}: {error}"
        where = save_traceback(folder, told)
        program = Path(sys.argv[0])
        name = program.parent.name if program.name == "__main__.py" else program.name
        print(f"{name}: {told}{where}", file=sys.stderr)
        if end:
            sys.exit(1)


def mendable_cause(error: BaseException | None) -> BaseException | None:
    """The outermost mendable error: Hydra wraps what constructors raise in one that is not."""
    if error is None or isinstance(error, MENDABLE):
        return error
    return mendable_cause(error.__cause__)


def check_types(node: object, path: str = "") -> None:
    """Refuses text where a constructor wants a number, and fractions where it wants a whole one.

    Args:
        node: a resolved configuration in plain containers, with their `_target_`.
        path: of the node, which the message names.

    Raises:
        ValueError: naming the option.
    """
    if not isinstance(node, dict):
        return
    wanted = annotations(node["_target_"]) if "_target_" in node else {}
    for key, value in node.items():
        kinds = set(get_args(wanted.get(key)) or [wanted.get(key)])
        if isinstance(value, str) and kinds <= {int, float, bool, Tensor, type(None)}:
            raise ValueError(f"{path}{key}={value} must be a number")
        if isinstance(value, float) and int in kinds and kinds <= {int, type(None)}:
            raise ValueError(f"{path}{key}={value} must be a whole number")
        check_types(value, f"{path}{key}.")


def annotations(target: str) -> dict[str, Any]:
    """The types of a constructor's or function's arguments, those of the base classes included."""
    try:
        found = get_object(target)
        owners = reversed(found.__mro__) if isinstance(found, type) else [found]
        calls = [vars(owner).get("__init__", owner) for owner in owners]
        return {name: kind for call in calls for name, kind in get_type_hints(call).items()}
    except (ImportError, AttributeError, NameError, TypeError, ValueError):
        return {}


def save_traceback(folder: Path | None, told: str) -> str:
    if folder is None or not folder.is_dir():
        return ""
    try:
        (folder / "error.txt").write_text(f"{told}\n\n{traceback.format_exc()}")
    except OSError:
        return ""
    return f"\n(traceback: {folder / 'error.txt'})"
