"""What all benchmarks of sizes do: options, the machine, the rows, a file."""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vrnn.memory import keep_freed_memory

__all__ = ["DEVICE", "benchmark", "busy_processes", "widths"]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def widths(features: int) -> dict[str, Any]:
    """All networks of a VRNN as wide."""
    names = ("phi_x_dim", "phi_z_dim", "encoder_dim", "prior_dim", "decoder_dim")
    return dict.fromkeys(names, features)


@contextmanager
def busy_processes(count: int) -> Iterator[Callable[[bool], None]]:
    """Starts processes that want a core each. What it gives has them run, or with False stop.

    They are stopped at first, and end with this process, however it ends.
    """
    work = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    others = [subprocess.Popen([sys.executable, "-c", work]) for _ in range(count)]

    def run(on: bool) -> None:
        for other in others:
            other.send_signal(signal.SIGCONT if on else signal.SIGSTOP)

    try:
        run(False)
        yield run
    finally:
        for other in others:
            other.kill()
            other.wait()


def benchmark(
    description: str | None, measure: Callable[..., Iterable[dict[str, Any]]], **flags: str
) -> None:
    """Runs a benchmark from the command line.

    Args:
        measure: yields rows {"size": {...}, "seconds": {...}}, of tiny sizes if it is given True.
        flags: further options that are on or off, which `measure` gets by name, with what help
            says of them.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    for name, help in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=help)
    args = parser.parse_args()

    keep_freed_memory()  # as train.py does; all contenders profit
    device = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    if DEVICE.type == "cuda":
        device = torch.cuda.get_device_name()
    print(f"{device}, float32, torch {torch.__version__}")
    rows = list(measure(args.quick, **{name: getattr(args, name) for name in flags}))
    figures = {"device": device, "dtype": "float32", "rows": rows}
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
