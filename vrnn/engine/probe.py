"""Tries the compiled loop, which may end this process: python -P probe.py TORCH LIBRARY TYPE...

Prints each of the types that come through, as soon as it has. It does not import torch, which
takes four times as long as all that is done here.

Args:
    TORCH: the folder of torch's libraries.
    LIBRARY: what `native.py` has compiled.
"""

import ctypes
import resource
import sys


def main(torch: str, library: str, *types: str) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        ctypes.CDLL(f"{torch}/libtorch_cpu.so")
    except OSError:  # It needs libraries that only torch's package finds.
        import torch as _  # noqa: F401
    functions = ctypes.CDLL(library)
    for name in types:
        function = getattr(functions, f"try_{name}")
        function.restype = ctypes.c_char_p
        if function() is None:
            print(name, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
