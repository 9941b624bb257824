"""What all benchmarks of sizes do: options, the machine, the rows, a file."""

import argparse
import json
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from vrnn.memory import keep_freed_memory

__all__ = ["DEVICE", "benchmark", "widths"]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def widths(features: int) -> dict[str, Any]:
    """All networks of a VRNN as wide."""
    names = ("phi_x_dim", "phi_z_dim", "encoder_dim", "prior_dim", "decoder_dim")
    return dict.fromkeys(names, features)


def benchmark(
    description: str | None, measure: Callable[[bool], Iterable[dict[str, Any]]]
) -> None:
    """Runs a benchmark from the command line.

    Args:
        measure: yields rows {"size": {...}, "seconds": {...}}, of tiny sizes if it is given True.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    args = parser.parse_args()

    keep_freed_memory()  # as train.py does; all contenders profit
    device = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    if DEVICE.type == "cuda":
        device = torch.cuda.get_device_name()
    print(f"{device}, float32, torch {torch.__version__}")
    figures = {"device": device, "dtype": "float32", "rows": list(measure(args.quick))}
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
