"""No instruction that the processor lacks ends a process; the loop is right in all its ways."""

import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from runs.threads import wait_briefly
from vrnn.engine import native

ROOT = Path(__file__).parents[3]


def run(script, **environment):
    """What a new process prints, in which the environment decides about the ways."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


TILES = """
import torch
from support.loops import make_cell, make_inputs
from vrnn.engine import native
from vrnn.layers.recurrent import LSTM
from vrnn.engine.unroll import unroll_fast

cell = make_cell(LSTM)
phi_x, _, state, noise = make_inputs(cell)
phi_x = phi_x.bfloat16()
half = torch.randn(64, 64).bfloat16()
found = []
for _ in range(3):
    native.serves(half.device, torch.float32, half.dtype)
    product = torch.mm(half, half)
    with torch.autocast("cpu", torch.bfloat16):
        z = unroll_fast(cell, phi_x, phi_x, state, noise).z
    z.sum().backward()
    found.append((z.detach(), product, torch.mm(half, half)))
for z, before, after in found:
    assert z.isfinite().all() and torch.equal(z, found[0][0])
    assert torch.equal(before, after)
print("the same")
"""


def test_other_products_in_bfloat16_may_come_between():
    """They release AMX's tiles, which oneDNN believes to be as it left them."""
    assert run(TILES) == "the same\n"


WAYS = """
import torch
from support.loops import assert_as_plain, flat, make_cell, make_inputs
from vrnn.engine import native
from vrnn.layers.recurrent import GRU, LSTM
from vrnn.engine.unroll import unroll_fast, unroll_native, unroll_plain

torch.manual_seed(0)
for recurrence in (LSTM, GRU):
    torch.set_default_dtype(torch.float64)
    cell = make_cell(recurrence, layers=2, depth=2)
    assert_as_plain(unroll_native, cell, make_inputs(cell))
    torch.set_default_dtype(torch.float32)
    cell = make_cell(recurrence)
    phi_x, _, state, noise = make_inputs(cell)
    exact = flat(unroll_plain(cell, phi_x, phi_x, state, noise))
    for one, other in zip(flat(unroll_native(cell, phi_x, phi_x, state, noise)), exact):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    phi_x = phi_x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        half = flat(unroll_fast(cell, phi_x, phi_x, state, noise))
    for one, other in zip(half, exact):
        torch.testing.assert_close(one.float(), other, rtol=0.05, atol=0.1)
print(torch.backends.cpu.get_cpu_capability(), *sorted(native.library().kinds))
"""


@pytest.mark.parametrize(
    "capability, isa",
    [
        ("DEFAULT", "SSE41"),
        ("AVX2", "AVX2"),
        ("AVX512", "AVX512_CORE"),
        ("AVX512", "AVX512_CORE_BF16"),
        ("AVX512", "ALL"),
    ],
)
def test_every_way_gives_what_the_plain_loop_gives(capability, isa):
    order = ["DEFAULT", "AVX2", "AVX512"]
    here = torch.backends.cpu.get_cpu_capability()
    if here not in order or order.index(capability) > order.index(here):
        pytest.skip(f"no {capability} here")
    forced = {"ATEN_CPU_CAPABILITY": capability.lower(), "ONEDNN_MAX_CPU_ISA": isa}
    way, *kinds = run(WAYS, **forced).split()
    assert way == capability and {"float", "double"} <= set(kinds)
    features = Path("/proc/cpuinfo").read_text().split()
    needed = {"AVX512_CORE_BF16": "avx512_bf16", "ALL": "avx512_bf16"}.get(isa)
    assert ("mixed" in kinds) == (needed in features)


REFUSED = """
import torch
from vrnn.engine import native
from vrnn.cell import VRNNCell
from vrnn.engine.cell_tape import unroll_fused
from vrnn.layers.feedforward import MLP, GaussianNet, StandardNormal
from vrnn.layers.recurrent import LSTM

assert native.library().kinds == {"float", "double"}
serves, native.serves = native.serves, lambda *kinds: True
torch.set_num_threads(2)
for hidden in (7, 900):  # The threads share rows, then columns, and wait for each other.
    encoder = GaussianNet(30 + hidden, 33, 2, 5)
    cell = VRNNCell(StandardNormal(5), encoder, MLP(5, 65, 2), LSTM(95, hidden))
    phi_x, noise = torch.randn(90, 21, 30), torch.randn(90, 21, 5)
    inputs = phi_x, phi_x, tuple(torch.randn(2, 1, 21, hidden)), noise
    with torch.autocast("cpu", torch.bfloat16):
        try:
            unroll_fused(cell, *inputs)
        except RuntimeError as error:
            print(error)
    unroll_fused(cell, *inputs).z.sum().backward()
"""


def test_a_product_that_onednn_refuses_is_an_error_in_whichever_thread():
    told = run(REFUSED, ONEDNN_MAX_CPU_ISA="AVX2")
    assert [line[:25] for line in told.splitlines()] == ["the compiled loop failed:"] * 2


@pytest.fixture
def probe(monkeypatch, tmp_path):
    """Has other code try the library; gives the library's file."""
    monkeypatch.setattr(native, "processor", lambda: "this")

    def become(code):
        script = tmp_path / "elsewhere" / "probe.py"
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"import os, signal, time\n{code}\n")
        monkeypatch.setattr(native, "PROBE", script)
        return tmp_path / "loop.so"

    return become


ILLEGAL = "os.kill(os.getpid(), signal.SIGILL)"
TWO = "print('float', flush=True); print('double', flush=True)\n"


def test_what_came_through_before_an_illegal_instruction_is_used_and_remembered(probe, tmp_path):
    file = probe(TWO + ILLEGAL)
    assert native.tried(file) == {"float", "double"}
    probe("raise AssertionError('tried twice')")
    assert native.tried(file) == {"float", "double"}
    assert (tmp_path / "loop-this.txt").read_text() == "double float\n"


def test_a_folder_may_be_shared_by_two_kinds_of_machines(probe, monkeypatch):
    file = probe(TWO + ILLEGAL)
    assert native.tried(file) == {"float", "double"}
    monkeypatch.setattr(native, "processor", lambda: "other")
    probe(TWO + "print('mixed')")
    assert native.tried(file) == {"float", "double", "mixed"}
    monkeypatch.setattr(native, "processor", lambda: "this")
    assert native.tried(file) == {"float", "double"}


def test_a_processor_is_known_by_its_features_and_by_what_onednn_may_use(monkeypatch):
    names = {native.processor(), native.processor()}
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    names.add(native.processor())
    features = "flags\t\t: fpu avx\ncpu MHz\t\t: {}\n\nprocessor: 1\n"
    for text in (features.format(1), features.format(2), features.replace("avx", "sse")):
        monkeypatch.setattr(Path, "read_text", lambda path, text=text: text)
        names.add(native.processor())
    assert len(names) == 4, "the frequency is no part of it"


def test_where_nothing_runs_python_does_and_one_line_says_so(probe, monkeypatch, caplog):
    file = probe(ILLEGAL)
    monkeypatch.setattr(native, "build", lambda: file)
    native.library.cache_clear()
    for _ in range(2):
        assert native.library() is None
    native.library.cache_clear()
    probe("raise AssertionError('tried twice')")
    assert native.library() is None
    native.library.cache_clear()
    for record in caplog.records:
        assert "loop over time runs in Python" in record.message
        assert "does not run on this processor" in record.message
    assert len(caplog.records) == 2, "one in each process"


@pytest.mark.parametrize(
    "end", ["os.kill(os.getpid(), signal.SIGKILL)", "time.sleep(60)"], ids=["killed", "hangs"]
)
def test_an_end_that_tells_nothing_about_the_processor_is_not_remembered(probe, monkeypatch, end):
    monkeypatch.setattr(native, "PATIENCE", 10.0)
    assert native.tried(probe(TWO + end)) == {"float", "double"}
    monkeypatch.setattr(native, "PATIENCE", 1.0 if "sleep" in end else 60.0)
    with pytest.raises(native.subprocess.SubprocessError, match="ended with code -9"):
        native.tried(probe(end))
    monkeypatch.setattr(native, "PATIENCE", 60.0)
    assert "mixed" in native.tried(probe(TWO + "print('mixed')"))


@pytest.mark.parametrize("damaged", [b"", b"\0\0\0\n", b"float doub", b"\xff"])
def test_a_damaged_answer_is_asked_for_again(probe, tmp_path, damaged):
    file = probe(TWO)
    (tmp_path / "loop-this.txt").write_bytes(damaged)
    assert native.tried(file) == {"float", "double"}
    assert (tmp_path / "loop-this.txt").read_text() == "double float\n"


def test_where_nothing_can_be_written_every_process_tries(probe, monkeypatch, tmp_path):
    file = probe(TWO)
    assert native.tried(Path("/proc/loop.so")) == {"float", "double"}

    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert native.tried(file) == {"float", "double"}
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"], "nothing half-made is left"


def test_processes_may_try_at_the_same_time(probe, tmp_path):
    file = probe(TWO)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(native.tried, [file] * 4)) == {frozenset({"float", "double"})}
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", "loop-this.txt"}


def compiled(tmp_path, source):
    """A library as it may come from another machine."""
    compiler = native.shutil.which("c++") or pytest.skip("no compiler")
    code, file = tmp_path / "loop.cpp", tmp_path / "loop.so"
    code.write_text(source)
    subprocess.run([compiler, "-shared", "-fPIC", str(code), "-o", str(file)], check=True)
    return file


LACKING = """
extern "C" const char* try_float() { return nullptr; }
extern "C" const char* try_double() { return nullptr; }
extern "C" const char* try_mixed() { __builtin_trap(); }
"""
ELSEWHERE = "static int started = (__builtin_trap(), 0);"


def test_an_illegal_instruction_in_the_library_ends_the_child_only(tmp_path):
    assert native.tried(compiled(tmp_path, LACKING)) == {"float", "double"}


def test_a_library_that_dies_when_it_is_loaded_is_not_loaded(tmp_path):
    with pytest.raises(OSError, match="does not run on this processor"):
        native.tried(compiled(tmp_path, ELSEWHERE))


def test_a_damaged_library_is_told_in_one_line(tmp_path, monkeypatch, caplog):
    file = tmp_path / "loop.so"
    file.write_bytes(b"half")
    monkeypatch.setattr(native, "build", lambda: file)
    native.library.cache_clear()
    assert native.library() is None
    native.library.cache_clear()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "\n" not in record.message
    assert f"{file}: file too short" in record.message
    assert list(tmp_path.iterdir()) == [file], "that tells nothing about the processor"


@pytest.mark.parametrize(
    "command",
    [
        ["train.py", "data=csv_folder", "data.root=nowhere", "hydra.run.dir={}"],
        *(
            pytest.param(words.split(), marks=pytest.mark.slow)
            for words in (
                "evaluate.py nowhere",
                "generate.py nowhere",
                "-m reports nowhere",
                "-m reports.figures nowhere",
                "-m playground nowhere",
                "-m benchmarks.step --help",
            )
        ),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_threads_that_wait_for_each_other_soon_sleep(command, tmp_path):
    """OpenMP prints, when it is loaded, what it heeds."""
    command = [sys.executable, *(word.format(tmp_path) for word in command)]
    left = {key: value for key, value in os.environ.items() if not key.startswith(("OMP", "GOMP"))}
    environment = {**left, "OMP_DISPLAY_ENV": "verbose"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert "GOMP_SPINCOUNT = '10000'" in done.stderr


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_how_the_user_has_threads_wait_stands(name, monkeypatch):
    for other in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(other, "")
        monkeypatch.delenv(other)
    monkeypatch.setenv(name, "7")
    wait_briefly()
    chosen = {key: value for key, value in os.environ.items() if key in (name, "GOMP_SPINCOUNT")}
    assert chosen == {name: "7"}
