"""What is freed stays with the process that training has asked to keep it."""

import platform
import subprocess
import sys

import pytest

UPDATES = """
import resource
import torch
from vrnn.memory import keep_freed_memory

torch.set_num_threads(1)

# By itself, glibc gives back every tensor above 32 MiB, whatever was freed before.
def update(steps):
    activations = [torch.ones(steps, width * 1024) for width in (100, 120, 90)]
    for x in reversed(activations):
        gradient = x + 1

def cleared():
    for steps in range(100, 105):
        update(steps)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for steps in range(100, 105):
        update(steps)
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before

given_back = cleared()
assert keep_freed_memory()
print(given_back, cleared())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_an_update_uses_the_memory_that_the_last_one_freed():
    """Of pages that the system clears for the process, hardly one is for tensors."""
    shown = subprocess.check_output([sys.executable, "-c", UPDATES], text=True)
    given_back, kept = map(int, shown.split())
    assert kept < given_back / 4
