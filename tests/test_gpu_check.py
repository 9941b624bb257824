"""The check of a GPU, which on a machine without one is a dry run in tiny sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train

CHECK = Path(train.__file__).parent / "benchmarks" / "gpu_check.sh"


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU it is no dry run")
def test_every_stage_of_its_dry_run_comes_to_its_end(tmp_path):
    environment = {**os.environ, "OUT": str(tmp_path / "out"), "GC_WORK": str(tmp_path / "work")}
    done = subprocess.run(
        ["bash", CHECK],
        env={**environment, "PY": sys.executable, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results, done.stdout
