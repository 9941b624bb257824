"""How torch's threads wait for each other."""

import os

__all__ = ["wait_briefly"]


def wait_briefly() -> None:
    """Has threads that wait for each other sleep after some half a millisecond.

    GNU's OpenMP, of which torch's builds for Linux bring a copy, lets them turn for 16
    milliseconds or more, longer than the system's scheduler has another process wait. On a
    machine that others use, the thread that is waited for then does not get the processor that
    the waiting one holds. On an idle machine they never wait for so long.

    It takes effect where torch has not been imported yet, and in the processes that are started
    later. What the user has chosen stands.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
