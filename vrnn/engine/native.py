"""Compiles `loop.cpp` at first use and runs the operations of a time loop in it.

The library is kept in $VRNN_CACHE (default ~/.cache/vrnn) under a name that says which source,
version of torch and processor features it was built from. An instruction that the processor lacks
ends the process, so a child process (`probe.py`) tries the library first. What came through is
written beside the library, under a name that says on which processor.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["NativeOperation", "NativeProgram", "NativeSlot", "library", "serves"]

log = logging.getLogger(__name__)

SOURCE, HEADER, PROBE = (
    Path(__file__).with_name(name) for name in ("loop.cpp", "product.h", "probe.py")
)
PATIENCE = 60.0
"""Seconds for the child process, which takes a third of one on an idle machine."""
TOLD = {-signal.SIGILL, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGABRT, 0}
"""Ends of the child process that the same processor would bring about again."""
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
NONE = "none"
"""Stands for an empty answer of the child process."""


class NativeSlot(ctypes.Structure):
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
    def of(cls, values: Tensor, grads: Tensor) -> "NativeSlot":
        """Shapes: (T, B, N) both, with the same strides, N contiguous; or grads empty."""
        step, row, _ = values.stride()
        rows, width = values.shape[1:]
        return cls(values.data_ptr(), grads.data_ptr(), step, row, width, rows)


class NativeOperation(ctypes.Structure):
    """As Operation in loop.cpp."""

    _fields_ = [
        ("kind", ctypes.c_int64),
        ("slots", NativeSlot * 3),
        ("weight", ctypes.c_void_p),
        ("weight_row", ctypes.c_int64),
        ("weight_column", ctypes.c_int64),
    ]


class NativeProgram:
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
        operations: Sequence[NativeOperation],
        rows: int,
        backward: bool,
    ) -> None:
        kind = TYPES[dtype, factors]
        built = library()
        assert built is not None, "`serves` has said so"
        make, self.runner, self.free = (
            getattr(built.functions, f"{name}_{kind}") for name in ("program", "run", "free")
        )
        array = (NativeOperation * len(operations))(*operations)
        self.address = make(array, len(operations), rows, backward)
        if self.address is None:
            raise RuntimeError("the compiled loop can't allocate memory for the weights")

    def run(self, steps: int) -> None:
        """Runs T steps.

        Raises:
            RuntimeError: if an operation fails.
        """
        failure = self.runner(self.address, steps, torch.get_num_threads())
        if failure is not None:
            raise RuntimeError(f"the compiled loop failed: {failure.decode(errors='replace')}")

    def __del__(self) -> None:
        self.free(self.address)


class Library(NamedTuple):
    """The compiled loop, and of `TYPES` the names of those that this processor computes."""

    functions: ctypes.CDLL
    kinds: frozenset[str]


def serves(device: torch.device, dtype: torch.dtype, factors: torch.dtype) -> bool:
    """Whether programs can be made for tensors of this kind, here."""
    if device.type != "cpu" or (dtype, factors) not in TYPES:
        return False
    built = library()
    return built is not None and TYPES[dtype, factors] in built.kinds


@cache
def library() -> Library | None:
    """The compiled loop, or None, with one log line that says why, where it cannot be had."""
    try:
        file = build()
        kinds = tried(file)
        functions = ctypes.CDLL(str(file))
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("The loop over time runs in Python, which takes longer: %s", reason(error))
        return None
    number, address = ctypes.c_int64, ctypes.c_void_p
    for name in TYPES.values():
        make, run, free = (getattr(functions, f"{do}_{name}") for do in ("program", "run", "free"))
        make.argtypes = [ctypes.POINTER(NativeOperation), number, number, ctypes.c_bool]
        run.argtypes, free.argtypes = [address, number, number], [address]
        make.restype, run.restype, free.restype = address, ctypes.c_char_p, None
    return Library(functions, kinds)


def tried(file: Path) -> frozenset[str]:
    """Of `TYPES` the names of those that the library computes on this processor.

    A child process finds out, once for every processor that uses the folder; where the answer
    cannot be written down, once in every process.

    Raises:
        OSError: if the library does not run here in all types but those with rounded factors.
        subprocess.SubprocessError: if the child process cannot tell.
    """
    answer = file.with_name(f"{file.stem}-{processor()}.txt")
    try:
        kinds = set(answer.read_text().split())
    except (OSError, UnicodeDecodeError):
        kinds = set()
    if not kinds or not kinds <= {NONE, *TYPES.values()}:  # not written, or damaged
        kinds = ask(file, answer)
    if not {"float", "double"} <= kinds:
        raise OSError(
            f"{file} does not run on this processor; to have it tried again, remove {answer}"
        )
    return frozenset(kinds)


def ask(file: Path, answer: Path) -> set[str]:
    """What a child process has come through before its end, which is written to `answer` if the
    processor is what has brought it about."""
    command = [sys.executable, "-P", str(PROBE), str(TORCH / "lib"), str(file), *TYPES.values()]
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with child:
        try:
            out, errors = child.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            out, errors = child.communicate()
    kinds = set(out.decode().split())
    if child.returncode in TOLD:
        remember(kinds, answer)
    elif not kinds:
        last = errors.decode(errors="replace").strip().splitlines()[-1:]
        raise subprocess.SubprocessError(
            f"a process that tried {file} ended with code {child.returncode}"
            + "".join(f": {line}" for line in last)
        )
    return kinds


def remember(kinds: set[str], answer: Path) -> None:
    """Writes the answer, at once, as others may read it or write theirs; or not, where the folder
    is full or may not be written to."""
    try:
        with tempfile.NamedTemporaryFile("w", dir=answer.parent, delete=False) as part:
            try:
                part.write(" ".join(sorted(kinds) or [NONE]) + "\n")
                part.close()
                os.replace(part.name, answer)
            except OSError:
                os.unlink(part.name)
    except OSError:
        pass


def processor() -> str:
    """A name for what decides which instructions there are: the processor, the system that runs
    on it, and the limits that oneDNN obeys."""
    known = [platform.machine(), platform.processor(), platform.release()]
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        first = ""
    for line in first.splitlines():
        name = line.split(":")[0].strip().lower()
        if name.startswith(("vendor", "cpu ", "model", "stepping", "flags", "features")):
            known += [] if name == "cpu mhz" else [line]
    known += [os.environ.get(f"{name}_MAX_CPU_ISA", "") for name in ("ONEDNN", "DNNL")]
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]


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
    system = [platform.machine(), *platform.libc_ver()]
    made_from = [SOURCE.read_text(), HEADER.read_text(), torch.__version__, *system, *flags]
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
