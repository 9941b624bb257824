"""The loop as one kernel of a GPU: on a CPU by Triton's interpreter, and compiled for a GPU."""

import statistics

import pytest
import torch
from support.loops import (
    X,
    Z,
    assert_as_plain,
    assert_close,
    flat,
    make_cell,
    make_inputs,
    median_error,
    particle_inputs,
    unroll_copies,
    values_and_gradients,
)

from vrnn.cell import VRNNCell
from vrnn.engine import native, unroll
from vrnn.engine.tape import Tape
from vrnn.engine.unroll import unroll_persistent, unroll_plain
from vrnn.layers.feedforward import MLP, GaussianNet, StandardNormal
from vrnn.layers.recurrent import GRU, LSTM

triton = pytest.importorskip("triton")

from support.kernel_stand_ins import Compiled, Interpreted, interpret  # noqa: E402
from triton.runtime.errors import OutOfResources  # noqa: E402

from vrnn.engine import triton_program  # noqa: E402

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def interpreted(monkeypatch):
    if triton.__version__ < "3.7":
        pytest.skip("its interpreter does not know NumPy 2.4")
    interpret(monkeypatch)
    walk = Interpreted()
    monkeypatch.setattr(triton_program, "walk", walk)
    monkeypatch.setattr(triton_program, "multiprocessors", lambda device: 3)
    monkeypatch.setattr(unroll, "reason_against", lambda *of: None)
    return walk


def wide(recurrence, residual=True):
    """A cell, and inputs to it, all of whose layers several blocks compute."""
    encoder, phi_z = GaussianNet(X + 20, 20, 2, 20), MLP(20, 20, 2)
    prior = GaussianNet(20, 20, 1, 20) if residual else StandardNormal(20)
    cell = VRNNCell(prior, encoder, phi_z, recurrence(X + 20, 20), residual)
    phi_x, noise = (torch.randn(3, 3, width, requires_grad=True) for width in (X, 20))
    state = tuple(torch.randn(1, 3, 20, requires_grad=True) for _ in range(cell.rnn.tensors))
    return cell, (phi_x, phi_x, state, noise)


@pytest.mark.parametrize("u", [X, 9], ids=["filtering", "smoothing"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("recurrence", [LSTM, GRU])
def test_values_and_gradients_are_those_of_the_plain_loop(recurrence, layers, u, interpreted):
    cell = make_cell(recurrence, layers, 2, u)
    assert_as_plain(unroll_persistent, cell, make_inputs(cell, u))


@pytest.mark.parametrize("recurrence", [LSTM, GRU])
def test_what_is_known_may_come_in_before_the_loop(recurrence, interpreted, monkeypatch):
    monkeypatch.setattr(Tape, "on_gpu", True)
    cell = make_cell(recurrence, 1, 2, prior=GaussianNet(6, 5, 2, Z))
    assert_as_plain(unroll_persistent, cell, make_inputs(cell))
    forwards, backwards, without_gradient = (of for _, of in interpreted.launches)
    assert "given" not in (*forwards["KINDS"], *backwards["KINDS"])
    assert "given" in without_gradient["KINDS"], "no memory of all steps to write it into"


def test_particles_share_what_is_given(interpreted):
    cell = make_cell(LSTM, depth=2, u=9)
    inputs = particle_inputs(cell, 3, 6, K=3)  # 18 rows: more than a tile has
    values, gradients = values_and_gradients(unroll_persistent, cell, inputs)
    copied, copied_gradients = values_and_gradients(unroll_copies, cell, inputs)
    assert_close(values, copied)
    assert_close(gradients, copied_gradients)


@pytest.mark.parametrize("blocks", [1, 5, 40])
@pytest.mark.parametrize("recurrence", [LSTM, GRU])
def test_however_many_blocks_there_are(recurrence, blocks, interpreted, monkeypatch):
    monkeypatch.setattr(triton_program, "multiprocessors", lambda device: blocks)
    assert_as_plain(unroll_persistent, *wide(recurrence))


@pytest.mark.parametrize("recurrence", [LSTM, GRU])
def test_the_inputs_of_a_long_product_are_shared(recurrence, interpreted, monkeypatch):
    monkeypatch.setattr(triton_program, "multiprocessors", lambda device: 4)
    encoder, phi_z = GaussianNet(X + 70, 5, 1, Z), MLP(Z, 7)
    cell = VRNNCell(StandardNormal(Z), encoder, phi_z, recurrence(X + 7, 70))
    phi_x, noise = (torch.randn(3, 2, width, requires_grad=True) for width in (X, Z))
    state = tuple(torch.randn(1, 2, 70, requires_grad=True) for _ in range(cell.rnn.tensors))
    assert_as_plain(unroll_persistent, cell, (phi_x, phi_x, state, noise))
    (_, forwards), (_, backwards), _ = interpreted.launches
    assert max(forwards["SHARES"]) == 1 and max(backwards["SHARES"]) > 1


def test_what_is_not_a_number_goes_where_it_goes_in_the_plain_loop(interpreted):
    cell = make_cell(LSTM, depth=2, u=9)
    phi_x, u, state, noise = make_inputs(cell, 9)
    u.data[1, 2] = torch.nan
    ours, plain = (
        flat(unroll(cell, phi_x, u, state, noise)) for unroll in (unroll_persistent, unroll_plain)
    )
    assert [x.isnan().tolist() for x in ours] == [x.isnan().tolist() for x in plain]
    assert plain[0].isnan().any() and not plain[0].isnan().all()


@pytest.mark.slow
@pytest.mark.parametrize("launch", [0, 1], ids=["forwards", "backwards"])
def test_a_block_that_does_not_wait_reads_too_early(launch, interpreted, monkeypatch):
    """Or else nothing above would show that all waits are there."""
    monkeypatch.setattr(Tape, "on_gpu", True)
    cell, inputs = wide(LSTM, residual=False)
    waits, missing, programs = triton_program.waits, None, []

    def fewer(moves):
        programs.append(moves)
        number = len(programs) - 1
        return (w and (number, k) != missing for k, w in enumerate(waits(moves)))

    monkeypatch.setattr(triton_program, "waits", fewer)
    expected = [x for part in values_and_gradients(unroll_persistent, cell, inputs) for x in part]
    _, constants = interpreted.launches[launch]
    for k, wait in enumerate(constants["WAITS"]):
        # Before the first one backwards they wait for steps to part, whose memory is not the same.
        if wait and (launch, k) != (1, 0):
            missing = launch, k
            programs.clear()
            ours = [
                x for part in values_and_gradients(unroll_persistent, cell, inputs) for x in part
            ]
            pairs = zip(ours, expected, strict=True)
            assert not all(torch.allclose(x, y) for x, y in pairs), constants["KINDS"][k]


def test_in_mixed_precision_it_is_as_exact_as_the_plain_loop(interpreted, monkeypatch):
    monkeypatch.setattr(native, "TYPES", {})
    ours, plain = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        cell = make_cell(LSTM, depth=2)
        inputs = make_inputs(cell)
        exact = values_and_gradients(unroll_plain, cell, inputs)
        ours.append(median_error(unroll_persistent, cell, inputs, exact))
        plain.append(median_error(unroll_plain, cell, inputs, exact))
    assert 1e-3 < statistics.median(ours) < 1.25 * statistics.median(plain)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("recurrence", [LSTM, GRU])
def test_it_compiles_for_a_gpu(recurrence, kind, monkeypatch, tmp_path):
    """For an H100 or H200, down to machine code; that it runs there tests/test_gpu.py shows."""
    compiled = Compiled(90)
    monkeypatch.setattr(triton_program, "walk", compiled)
    monkeypatch.setattr(triton_program, "multiprocessors", lambda device: 132)
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    monkeypatch.setattr(unroll, "reason_against", lambda *of: None)
    monkeypatch.setattr(native, "TYPES", {})
    monkeypatch.setattr(Tape, "on_gpu", True)
    real = torch.float64 if kind == torch.float64 else torch.float32
    torch.set_default_dtype(real)
    encoder, phi_z = GaussianNet(40 + 300, 50, 2, 20), MLP(20, 50, 2)
    cell = VRNNCell(StandardNormal(20), encoder, phi_z, recurrence(40 + 50, 300))
    phi_x, noise = torch.randn(2, 64, 40).to(kind), torch.randn(2, 64, 20)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
        unroll_persistent(cell, phi_x, phi_x, cell.initial(64), noise).h.sum().backward()
    for found in compiled.kernels:
        assert found.metadata.launch_cooperative_grid
        assert found.asm["cubin"]
        if kind == torch.bfloat16:
            assert "wgmma" in found.asm["ptx"], "products by the tensor cores"
            assert "cp.async" in found.asm["ptx"], "read while others are multiplied"
    assert len(compiled.kernels) == 2


def test_what_it_cannot_run_on_is_told():
    cell = make_cell(LSTM)
    with pytest.raises(
        ValueError, match="engine=persistent cannot run: it runs on a GPU, not on cpu"
    ):
        unroll_persistent(cell, *make_inputs(cell))


def test_a_launch_that_fails_is_told(interpreted, monkeypatch):
    def refuse(*args, **options):
        raise OutOfResources(300_000, 232_448, "shared memory")

    monkeypatch.setattr(interpreted, "launch", refuse)
    cell = make_cell(LSTM)
    with pytest.raises(ValueError, match="out of resource: shared memory.*model.engine=fast"):
        unroll_persistent(cell, *make_inputs(cell))


def test_without_triton_the_sentence_says_what_to_install(interpreted, monkeypatch):
    monkeypatch.setattr(unroll, "find_spec", lambda name: None)
    cell = make_cell(LSTM)
    with pytest.raises(ValueError, match="pip install triton"):
        unroll_persistent(cell, *make_inputs(cell))
