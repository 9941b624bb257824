"""The names of models as the paper's tables have them, from their descriptions."""

from collections.abc import Mapping
from typing import Any

__all__ = ["model_name"]

OUTPUTS = {
    "Bernoulli": "Bernoulli",
    "AutoregressiveBernoulli": "NADE",
    "AutoregressiveGaussianMixture": "Hier",
    "DiscretisedLogisticMixture": "DMoL",
    "MuLawCategorical": "MuLaw",
}


def model_name(model: Mapping[str, Any]) -> str:
    """Names a model, such as "VRNN-I-Gauss"; in lower case, with _ for -, it is that of
    conf/model.

    Args:
        model: its description, `_target_` and arguments, as in a configuration or a checkpoint.
    """
    name = str(model["_target_"]).rpartition(".")[2]
    plain = name == "VRNN"
    if model.get("prior") == "standard":
        name += "-I"
    likelihood = model["likelihood"]
    output = str(likelihood["_target_"]).rpartition(".")[2]
    if output in ("GaussianMixture", "PenMixture"):
        output = "Gauss" if likelihood.get("components", 1) == 1 else "GMM"
    name += f"-{OUTPUTS.get(output, output)}"
    if plain and model.get("posterior", "filtering") != "filtering":
        name += f" {model['posterior']}"
    if plain and model.get("residual"):
        name += " residual"
    latents = model.get("latents", "inferred")
    return name if latents == "inferred" else f"{name} {latents}"
