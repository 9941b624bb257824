"""Runs made by hand, with the scores that a table reads."""

import json
import re
from pathlib import Path

import yaml

BASE = {"RNN-Gauss": 1, "RNN-GMM": 20, "VRNN-Gauss": 1, "VRNN-GMM": 20, "VRNN-I-Gauss": 1}


def job(folder: Path, model: str, figures: dict[str, float], data: str = "iam") -> Path:
    """A run as one that has ended leaves it."""
    described = {
        "_target_": f"vrnn.{model.partition('-')[0]}",
        "prior": "standard" if "-I-" in model else "learned",
        "likelihood": {"_target_": "vrnn.likelihoods.PenMixture", "components": BASE[model]},
    }
    about = {"name": data, "kind": "pen", "rate": 65.6, "module": {"split": "holdout"}}
    (folder / ".hydra").mkdir(parents=True)
    words = [
        f"data={data}",
        "data.root=/a b",
        f"model={model.lower().replace('-', '_')}",
        "seed=1",
    ]
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {word}\n" for word in words))
    (folder / "hparams.yaml").write_text(yaml.safe_dump({"model": described, "data": about}))
    (folder / "metrics.json").write_text(json.dumps(figures))
    return folder


def on_data(folder: Path, test: str, size: int = 100, **options: object) -> Path:
    """Adds what a run says of its data."""
    hparams = yaml.safe_load((folder / "hparams.yaml").read_text())
    hparams["data"]["sequences"] = {"train": 900, "val": 100, "test": size}
    (folder / "hparams.yaml").write_text(yaml.safe_dump(hparams))
    config = {"model": hparams["model"], "data": options}
    (folder / "run.json").write_text(json.dumps({"data": {"test": test}, "config": config}))
    return folder


def scored(elbo: float, **more: float) -> dict[str, float]:
    figures = {"test/elbo": 1.0, "test/elbo_paper": elbo, "test/elbo_paper_se": 2.5}
    figures |= {"val/elbo_paper": elbo - 1, "parameters": 123456, "particles": 8}
    return figures | {"test/iwae_paper": 9e9, "test/paper_paper": 9e9, **more}


def unpadded(file: Path) -> str:
    """A table's text without the spaces that align its columns."""
    return re.sub(" +", " ", file.read_text())
