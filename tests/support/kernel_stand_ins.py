"""What stands in for a GPU where `vrnn.engine.triton_kernel` is tested."""

import random
from functools import partial

import torch
import triton
import triton.language as tl
from greenlet import getcurrent, greenlet
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime import interpreter
from triton.runtime.jit import JITFunction, create_function_from_signature

from vrnn.engine import triton_kernel as kernel


def interpret(monkeypatch):
    """Has Triton's interpreter run what the kernel calls, in the language `launch` patches."""
    for name, function in list(vars(kernel).items()):
        if isinstance(function, JITFunction) and name != "walk":
            called = interpreter.InterpretedFunction(function.fn).rewrite()
            monkeypatch.setattr(kernel, name, called)


class Interpreted:
    """In the place of the kernel: its blocks run by turns, in any order, from one atomic operation
    to the next, so that one that does not wait where it should reads too early."""

    def __init__(self):
        self.order = random.Random(0)
        self.launches = []

    def __getitem__(self, grid):
        return partial(self.launch, *grid)

    def launch(self, count, *args, num_warps, launch_cooperative_grid, **constants):
        assert launch_cooperative_grid
        self.launches.append((count, constants))
        walk, builder = (
            interpreter.InterpretedFunction(kernel.walk.fn),
            interpreter.interpreter_builder,
        )
        atomic, dot = builder.create_atomic_rmw, builder.create_dot

        def turn(*given):
            result = atomic(*given)
            getcurrent().parent.switch()
            return result

        # Of bfloat16 the interpreter has the bits, which it would multiply, and truncate to.
        def exact(handle):
            half = handle.dtype.scalar == tl.bfloat16
            return builder.cast_impl(handle, tl.float32) if half else handle

        def rounded(handle, to):
            if to.scalar != tl.bfloat16:
                return builder.cast_impl(handle, to)
            bits = torch.from_numpy(handle.data).bfloat16().view(torch.uint16).numpy()
            return interpreter.TensorHandle(bits, tl.bfloat16)

        scope = interpreter._patch_lang(walk.fn)
        builder.create_atomic_rmw = turn
        builder.create_dot = lambda a, b, *rest: dot(exact(a), exact(b), *rest)
        builder.create_fp_trunc = rounded
        builder.set_grid_dim(count, 1, 1)
        call = partial(walk.rewrite(), *map(interpreter._implicit_cvt, args), **constants)
        blocks = [(index, greenlet(call)) for index in range(count)]
        try:
            while blocks:
                index, block = self.order.choice(blocks)
                builder.set_grid_idx(index, 0, 0)
                block.switch()
                blocks = [(i, b) for i, b in blocks if not b.dead]
        finally:
            del builder.create_atomic_rmw, builder.create_dot, builder.create_fp_trunc
            scope.restore()


class Compiled:
    """In the place of the kernel: compiled for a GPU as if it were launched there."""

    def __init__(self, architecture):
        self.target = GPUTarget("cuda", architecture, 32)
        self.kernels = []

    def __getitem__(self, grid):
        return self.launch

    def launch(self, *args, **options):
        walk, backend = kernel.walk, make_backend(self.target)
        bind = create_function_from_signature(walk.signature, walk.params, backend)
        packed = walk._pack_args(backend, options, *bind(*args, **options))
        options, signature, constants, attributes = packed
        source = ASTSource(walk, signature, constants, attributes)
        done = triton.compile(source, target=self.target, options=vars(options))
        self.kernels.append(done)
