"""Files that have suffered, for tests with hypothesis."""

from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

MANY = settings(
    max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)

DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "zero", "repeat", "insert"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)


def damaged(content: bytes, damage: list[tuple[str, float, int]]) -> bytes:
    data = bytearray(content)
    for kind, where, value in damage:
        place = int(where * max(len(data), 1))
        if kind == "flip" and data:
            data[place] ^= value | 1
        elif kind == "cut":
            del data[place:]
        elif kind == "zero":
            data[place : place + value] = bytes(len(data[place : place + value]))
        elif kind == "repeat":
            data[place:place] = data[place : place + value]
        elif kind == "insert":
            data[place:place] = bytes([value])
    return bytes(data)


def one_sentence(error: BaseException, path: Path) -> None:
    assert "\n" not in str(error) and str(path) in str(error), error
