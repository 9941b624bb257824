"""Checks of arguments: each refuses a wrong value by a ValueError that names the option."""

__all__ = ["check_sizes", "choose"]


def check_at_least_1(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"likelihood.{name} must be at least 1, not {size}")


def check_particles(particles: int) -> int:
    if particles < 1:
        raise ValueError(f"objective.particles must be at least 1, not {particles}")
    return particles


def choose(key: str, value: str, options: object) -> None:
    """Refuses a value of `key` that is none of `options`, by a ValueError that names them."""
    names = sorted(options)  # type: ignore[call-overload]
    if value not in names:
        raise ValueError(f"{key}={value} is not one of {', '.join(names)}")


def check_sizes(**sizes: int) -> None:
    """Refuses sizes of a model below 1, by a ValueError that names the option."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"model.{name} must be at least 1, not {size}")


def check_temperatures(*temperatures: float) -> None:
    for temperature in temperatures:
        if not 0 <= temperature < float("inf"):
            raise ValueError(f"a temperature must be 0 (no noise) or above, not {temperature}")
