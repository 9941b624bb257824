"""Checks of arguments: each refuses a wrong value by a ValueError that names the option."""

from collections.abc import Iterable

__all__ = ["check_counts", "check_temperatures", "choose"]


def check_counts(where: str = "", /, **counts: int | None) -> None:
    """Refuses a count below 1; None, which an option may have in place of a count, is accepted.

    Args:
        where: what stands before the names where a user types them, as "model." or "--".
        **counts: by the names of their options.

    Raises:
        ValueError: that names the option.
    """
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"{where}{name} must be at least 1, not {count}")


def choose(key: str, value: str, options: Iterable[str]) -> None:
    """Refuses a value of `key` that is none of `options`, by a ValueError that names them."""
    names = sorted(options)
    if value not in names:
        raise ValueError(f"{key}={value} is not one of {', '.join(names)}")


def check_temperatures(*temperatures: float) -> None:
    """Refuses a temperature that is negative or infinite, by a ValueError."""
    for temperature in temperatures:
        if not 0 <= temperature < float("inf"):
            raise ValueError(f"a temperature must be 0 (no noise) or above, not {temperature}")
