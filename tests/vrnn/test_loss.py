"""The loss is a mean over the training split: every frame of it weighs the same."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from support.helpers import SGD, build, configure, trainer
from support.iam_tree import write_corpus, write_line, write_list
from torch import Tensor

import train
from datamodules.base import SequenceData
from datamodules.loading import load_data
from runs.samples import generate_raw
from vrnn.batch import SequenceBatch
from vrnn.checkpoint import load_module, read
from vrnn.evaluation import score
from vrnn.module import VRNNModule

MODEL = ["model=rnn_gauss", "data.max_steps=null", "data.lines=11", "data.batch_size=4"]
"""Without latents, so that there is no noise that batches differ by."""

CUTS = {
    "whole": [],
    "cut": ["data.max_steps=600"],
    "windows": ["data.window=150"],
    "streams": ["data.window=150", "data.reset_every=1"],
    "few": ["data.batch_size=100"],
}


def double(batch: SequenceBatch) -> SequenceBatch:
    return batch._replace(x=batch.x.double())


def all_frames(data: SequenceData) -> list[Tensor]:
    """Every training sequence (T, 1, D) in float64, cut as training cuts it."""
    standardised = [(x - data.shift) / data.scale for x in data.splits["train"]]
    pieces = [x[: data.max_steps] for x in standardised]
    if data.reset_every is not None:
        pieces = [x[i : i + data.window] for x in pieces for i in range(0, len(x), data.window)]
    return [torch.from_numpy(x).float().double()[:, None] for x in pieces]


def gradients(module: VRNNModule, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*module.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def total(module: VRNNModule, sequences: list[Tensor]) -> Tensor:
    """Minus the log likelihood of all sequences, one by one."""
    losses = []
    for x in sequences:
        mask = torch.ones(x.shape[:2], dtype=torch.bool)
        losses.append(module.objective(module.model, x, mask, torch.Generator(), 0).loss)
    return torch.stack(losses).sum()


def detached(module: VRNNModule, folder: Path) -> VRNNModule:
    """Whose steps can be called one by one."""
    module.log = module.log_dict = lambda *_, **__: None
    module.trainer = trainer(folder)
    return module.double()


@pytest.mark.parametrize("cut", CUTS)
def test_an_epoch_is_the_mean_over_all_training_steps(cut: str, tmp_path: Path) -> None:
    data, module = build(configure(tmp_path, *MODEL, *CUTS[cut]))
    detached(module, tmp_path)
    batches = [double(batch) for batch in data.train_dataloader()]
    steps = [int(batch.mask.sum()) for batch in batches]
    assert max(steps) > 1.3 * min(steps) or len(batches) == 1
    loss = torch.stack([module.training_step(b, i) for i, b in enumerate(batches)]).sum()
    rows = [len(x) for x in all_frames(data)]
    wanted = total(module, all_frames(data)) / sum(rows)
    # An epoch has as many updates as there are batches, the last of which may not be full.
    updates = len(rows) / min(len(rows), data.batch_size)
    expected = gradients(module, updates * wanted)
    torch.testing.assert_close(gradients(module, loss), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(loss, updates * wanted, rtol=1e-10, atol=0)


@pytest.mark.parametrize("loss_mean", ["steps", "sequences"])
def test_a_last_batch_of_one_line_weighs_as_one_line(loss_mean: str, tmp_path: Path) -> None:
    options = [*MODEL, "data.lines=9", f"loss_mean={loss_mean}"]
    data, module = build(configure(tmp_path, *options))
    detached(module, tmp_path)
    (last,) = (double(b) for b in data.train_dataloader() if len(b.ids) == 1)
    mean = data.splits["train"].lengths.mean() if loss_mean == "steps" else 1.0
    expected = total(module, [last.x]) / mean / 4
    torch.testing.assert_close(module.training_step(last, 0), expected, rtol=1e-12, atol=0)


def test_accumulated_batches_weigh_by_their_frames(tmp_path: Path) -> None:
    data, module = build(configure(tmp_path, *MODEL, *SGD))
    module.double()
    before = copy.deepcopy(module)
    batches = [double(batch) for batch in data.train_dataloader()]
    assert [len(batch.ids) for batch in batches] != [4, 4, 4]
    options: dict[str, Any] = {"precision": "64-true", "limit_val_batches": 0}
    fit = trainer(tmp_path, max_epochs=1, accumulate_grad_batches=3, **options)
    fit.fit(module, data)
    assert fit.global_step == 1
    # Three batches of 4 would hold 12 lines of the mean length.
    steps = 12 * data.splits["train"].lengths.mean()
    expected = gradients(before, total(before, all_frames(data)) / steps)
    for name, parameter in before.named_parameters():
        moved = module.get_parameter(name) - parameter
        torch.testing.assert_close(moved, -expected[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_the_papers_handwriting_is_trained_as_by_the_original(
    spread: float, tmp_path: Path
) -> None:
    """The loss is the sum over time, the mean over the lines of a full batch. The original divides
    its gradient by the batch size, and clips its norm at 5."""
    corpus = write_corpus(tmp_path / "corpus")
    options = ["experiment=paper/iam_rnn_gauss", f"data.root={corpus}", *SGD]
    cfg = configure(tmp_path, *options, "data.batch_size=20", lines=False)
    with pytest.raises(ValueError, match="training has 18 sequences, and a batch 20"):
        build(cfg)
    for form in ("a01-001", "a01-003"):
        for i in range(4):
            write_line(corpus, f"{form}-{i:02d}", seed=i)
    write_list(corpus, "testset_f", ["h01-030z", "a01-001", "a01-003"])
    data, module = build(cfg)
    assert len(data.splits["train"]) == 26 and len(data.train_dataloader()) == 1
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    before = copy.deepcopy(module)
    (batch,) = data.train_dataloader()
    lines = [batch.x[batch.mask[:, b], b].double()[:, None] for b in range(20)]
    mean = total(before, lines) / 20
    expected = {name: grad / 20 for name, grad in gradients(before, mean).items()}
    norm = float(torch.stack([grad.square().sum() for grad in expected.values()]).sum().sqrt())
    assert (norm > 5) == (spread > 0)
    # By SGD the factor of 20 is one of the step size, by Adam it is none.
    factor = 20 * min(1.0, 5 / norm)
    clip = cfg.trainer.gradient_clip_val
    fit = trainer(
        tmp_path,
        max_epochs=1,
        limit_val_batches=0,
        precision="64-true",
        gradient_clip_val=clip,
    )
    fit.fit(module, data)
    for name, parameter in before.named_parameters():
        moved = module.get_parameter(name) - parameter
        torch.testing.assert_close(moved, -factor * expected[name], rtol=1e-6, atol=1e-9)


def test_checkpoints_of_before_are_scored_drawn_from_and_gone_on_with(tmp_path: Path) -> None:
    """Their descriptions do not say how large a batch is."""
    options = [*MODEL, "untrained=false", "test=false"]
    train.run(configure(tmp_path, *options, "trainer.max_epochs=1"))
    file = tmp_path / "checkpoints" / "last.ckpt"
    content = read(file)
    assert content["hyper_parameters"]["data"].pop("batch").keys() == {"sequences", "steps"}
    del content["hyper_parameters"]["loss_mean"]
    del content["hyper_parameters"]["data"]["module"]["drop_incomplete"]
    torch.save(content, file)

    module = load_module(file)
    data = load_data(module.hparams["data"])
    batch = next(iter(data.val_dataloader()))
    assert score(module.model, batch.x, batch.mask, batch.ids)["elbo"].isfinite().all()
    drawn = generate_raw(module, n=2, seed=0)
    assert [frames.shape[1] for frames in drawn.x] == [3, 3]
    with pytest.raises(ValueError, match="older checkpoint, without the size of a training batch"):
        trainer(tmp_path, max_epochs=2).fit(module, data)

    train.run(configure(tmp_path, *options, "trainer.max_epochs=2", "ckpt=last"))
    content = read(file)
    assert content["global_step"] == 6
    assert content["hyper_parameters"]["data"]["batch"]["sequences"] == 4


def test_means_over_other_things_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="loss_mean=frames is not one of sequences, steps"):
        build(configure(tmp_path, "loss_mean=frames"))
