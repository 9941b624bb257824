"""Compiles `loop.cpp` at first use and runs the operations of a time loop in it.

The library is kept in $VRNN_CACHE (default ~/.cache/vrnn) under a name that says which source,
version of torch and processor features it was built from.
"""

import ctypes
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["Operation", "Program", "Slot", "library", "serves"]

log = logging.getLogger(__name__)

SOURCE, HEADER = (Path(__file__).with_name(name) for name in ("loop.cpp", "product.h"))
TORCH = Path(torch.__file__).parent
FEATURES = {
    "AVX2": ["-mavx2", "-mfma", "-mf16c"],
    "AVX512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"],
}
TYPES = {
    (torch.float32, torch.float32): "float",
    (torch.float64, torch.float64): "double",
    (torch.float32, torch.bfloat16): "mixed",
}
"""Of slots, and of the factors of products."""


class Slot(ctypes.Structure):
    """As Slot in loop.cpp."""

    _fields_ = [
        ("values", ctypes.c_void_p),
        ("grads", ctypes.c_void_p),
        ("step", ctypes.c_int64),
        ("row", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("rows", ctypes.c_int64),
    ]

    @classmethod
    def of(cls, values: Tensor, grads: Tensor) -> "Slot":
        """Shapes: (T, B, N) both, with the same strides, N contiguous; or grads empty."""
        step, row, _ = values.stride()
        rows, width = values.shape[1:]
        return cls(values.data_ptr(), grads.data_ptr(), step, row, width, rows)


class Operation(ctypes.Structure):
    """As Operation in loop.cpp."""

    _fields_ = [
        ("kind", ctypes.c_int64),
        ("slots", Slot * 3),
        ("weight", ctypes.c_void_p),
        ("weight_row", ctypes.c_int64),
        ("weight_column", ctypes.c_int64),
    ]


class Program:
    """The operations of a time step, or their derivatives, with weights laid out at the first run.

    Args:
        dtype: of all slots and weights, which have to outlive the program.
        factors: what a product rounds its factors to, as in `TYPES`.
        rows: K * B.
        backward: run the derivatives, from the last step to the first.

    Raises:
        RuntimeError: if memory is short.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        factors: torch.dtype,
        operations: Sequence[Operation],
        rows: int,
        backward: bool,
    ) -> None:
        kind = TYPES[dtype, factors]
        make, self.runner, self.free = (
            getattr(library(), f"{name}_{kind}") for name in ("program", "run", "free")
        )
        array = (Operation * len(operations))(*operations)
        self.address = make(array, len(operations), rows, backward)
        if self.address is None:
            raise RuntimeError("the compiled loop can't allocate memory for the weights")

    def run(self, steps: int) -> None:
        """Runs T steps."""
        self.runner(self.address, steps, torch.get_num_threads())

    def __del__(self) -> None:
        self.free(self.address)


def serves(device: torch.device, dtype: torch.dtype, factors: torch.dtype) -> bool:
    """Whether programs can be made for tensors of this kind, here."""
    if device.type != "cpu" or (dtype, factors) not in TYPES:
        return False
    built = library()
    return built is not None and (factors == dtype or bool(built.rounds()))


@cache
def library() -> ctypes.CDLL | None:
    """The compiled loop, or None, with one log line that says why, where it cannot be had."""
    try:
        built = ctypes.CDLL(str(build()))
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("The loop over time runs in Python, which takes longer: %s", reason(error))
        return None
    number, address = ctypes.c_int64, ctypes.c_void_p
    for name in TYPES.values():
        make, runner, free = (getattr(built, f"{do}_{name}") for do in ("program", "run", "free"))
        make.argtypes = [ctypes.POINTER(Operation), number, number, ctypes.c_bool]
        runner.argtypes, free.argtypes = [address, number, number], [address]
        make.restype, runner.restype, free.restype = address, None, None
    built.rounds.restype = ctypes.c_bool
    return built


def build() -> Path:
    """Compiles the loop unless that was done before, and returns the library's file."""
    capability = torch.backends.cpu.get_cpu_capability()
    flags = [
        *("-std=c++20", "-O3", "-fPIC", "-shared", "-fopenmp", "-w"),
        *FEATURES.get(capability, []),
        f"-DCPU_CAPABILITY={capability}",
        f"-DCPU_CAPABILITY_{capability}",
        f"-I{TORCH / 'include'}",
    ]
    made_from = [SOURCE.read_text(), HEADER.read_text(), torch.__version__, *flags]
    key = hashlib.sha256("\n".join(made_from).encode()).hexdigest()[:16]
    file = Path(os.environ.get("VRNN_CACHE") or Path.home() / ".cache" / "vrnn") / f"loop-{key}.so"
    if file.exists():
        return file

    compiler = (
        shlex.split(os.environ.get("CXX", ""))
        or [path for name in ("c++", "g++") if (path := shutil.which(name))][:1]
    )
    if not compiler:
        raise FileNotFoundError("there is no C++ compiler; install g++ or name one by $CXX")
    links = [f"-L{TORCH / 'lib'}", "-ltorch_cpu", "-lc10"]
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made = Path(folder) / file.name
        command = [*compiler, *flags, str(SOURCE), "-o", str(made), *links]
        subprocess.run(command, check=True, capture_output=True, text=True)
        made.replace(file)  # At once, so that processes that build side by side do no harm.
    return file


def reason(error: OSError | subprocess.SubprocessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        errors = [line for line in error.stderr.splitlines() if "error" in line]
        return f"{error.cmd[0]} failed: {(errors or ['no message'])[0]}"
    return str(error)
