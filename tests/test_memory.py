"""What is freed stays with the process that training has asked to keep it."""

import platform
import subprocess
import sys

import pytest

UPDATES = """
import resource
import torch
from vrnn.memory import keep_freed_memory

if {keep}:
    assert keep_freed_memory()

def update(steps):
    activations = [torch.ones(steps, 2**width) for width in (14, 15, 14, 13)]
    for x in reversed(activations):
        gradient = x + 1

for steps in range(30):
    if steps == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    update(200 + steps * 7 % 30)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_an_update_uses_the_memory_that_the_last_one_freed():
    pages = {}
    for keep in (False, True):
        command = [sys.executable, "-c", UPDATES.format(keep=keep)]
        pages[keep] = int(subprocess.check_output(command))
    assert pages[True] < pages[False] / 4
