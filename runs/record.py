"""run.json: all that it takes to repeat a run, or to tell why a repetition differs."""

import hashlib
import json
import os
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only

from datamodules.base import SequenceData
from datamodules.files.splits import write_splits
from datamodules.ragged import Ragged
from runs.samples import spread
from vrnn.moved import current

__all__ = [
    "changed_splits",
    "fingerprint",
    "finished",
    "first_change",
    "flat",
    "is_first_process",
    "options_of",
    "record",
]

PACKAGES = ("torch", "lightning", "hydra-core", "omegaconf", "wandb", "torchmetrics", "numpy")
CODE_AT = Path(__file__).resolve().parent.parent
CODE = ("*.py", "*.yaml", "*.cpp", "*.h", "*.toml")
SAMPLED = 64
FREE = ("ckpt", "output_dir", "report")
"""Options that the results do not depend on."""


def record(
    folder: Path,
    config: Mapping[str, Any],
    data: SequenceData,
    command: Sequence[str],
    overrides: Sequence[str],
) -> None:
    """Writes <folder>/run.json; changes.patch where the code differs from its commit, with the
    files that git does not know; and splits.csv where the data could be given it.

    No environment variable goes into it.

    Args:
        config: the whole configuration, resolved.
        command: the words that start this run.
        overrides: the options among them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    new = (git("ls-files", "--others", "--exclude-standard", "-z", *CODE) or "").split("\0")
    patches = [git("diff", "HEAD"), *(as_patch(file) for file in new if file)]
    changes = "".join(f"{patch}\n" for patch in patches if patch)
    if changes:
        (folder / "changes.patch").write_text(changes)
    content = {
        "command": shlex.join(["python", *command]),
        "overrides": list(overrides),
        "seed": config["seed"],
        "commit": git("rev-parse", "HEAD"),
        "changed": bool(changes),
        "data": {split: fingerprint(part) for split, part in data.splits.items()},
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "hardware": hardware(),
        "config": config,
    }
    text = json.dumps(content, indent=2, default=str) + "\n"
    (folder / "run.json").write_text(text)
    if data.splits_by is not None:
        write_splits(folder / "splits.csv", {split: s.keys for split, s in data.splits.items()})


def is_first_process() -> bool:
    """Whether this is the process that writes, of those that train one model together."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def changed_splits(run: Path, data: SequenceData) -> list[str]:
    """The splits with other sequences than those of the run in this folder, as far as it says."""
    try:
        before = json.loads((run / "run.json").read_text())["data"]
    except (FileNotFoundError, ValueError, KeyError):
        return []
    return [
        split
        for split, sequences in data.splits.items()
        if split in before and before[split] != fingerprint(sequences)
    ]


def finished(folder: Path, config: Mapping[str, Any]) -> dict[str, float] | None:
    """Returns the figures of a run that came to its end in this folder; None if none did.

    Raises:
        ValueError: if it was one with other options.
    """
    before = options_of(folder)
    if before is None:
        return None
    try:
        figures: dict[str, float] = json.loads((folder / "metrics.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    if changed := first_change(before, config, FREE):
        key, was, now = changed
        raise ValueError(
            f"{folder} holds the results of other options ({key} was {was}, not {now}); give this "
            "sweep a folder of its own by hydra.sweep.dir="
        )
    return figures


def options_of(folder: Path) -> dict[str, Any] | None:
    """The options of the last run in this folder; None if there was none."""
    try:
        options: dict[str, Any] = json.loads((folder / "run.json").read_text())["config"]
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return options


def first_change(
    before: Mapping[str, Any], now: Mapping[str, Any], free: Sequence[str]
) -> tuple[str, Any, Any] | None:
    """The outermost option that differs between two configurations, with both values; None where
    all but those in `free` are the same."""
    a, b = (flat(current(json.loads(json.dumps(config, default=str)))) for config in (before, now))
    # How Hydra is to call, which older runs kept among their options, is none.
    keys = {k for k in a.keys() | b.keys() if k not in free and not k.endswith("._convert_")}
    changed = [k for k in keys if a.get(k) != b.get(k)]
    if not changed:
        return None
    key = min(changed, key=lambda k: (k.count("."), k))
    return key, a.get(key), b.get(key)


def flat(node: Any, path: str = "") -> dict[str, Any]:
    """Every value of nested containers, by its dotted name."""
    if isinstance(node, dict) and node:
        return {k: v for key in node for k, v in flat(node[key], f"{path}.{key}").items()}
    return {path.lstrip("."): node}


def fingerprint(sequences: Ragged) -> str:
    """Of the lengths and keys of all sequences, and of the frames of some, evenly spread."""
    digest = hashlib.sha256(np.ascontiguousarray(sequences.lengths).tobytes())
    digest.update("\n".join(sequences.keys).encode())
    for i in spread(len(sequences), SAMPLED):
        digest.update(np.ascontiguousarray(sequences[i]).tobytes())
    return digest.hexdigest()[:16]


def hardware() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
    }


def git(*words: str) -> str | None:
    """What git says of the code that runs; None where it is not in a repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(CODE_AT), *words], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def as_patch(file: str) -> str:
    """A text file that git does not know as a patch that makes it."""
    lines = (CODE_AT / file).read_text(errors="replace").splitlines()
    head = [f"diff --git a/{file} b/{file}", "new file mode 100644", "--- /dev/null"]
    body = [f"+++ b/{file}", f"@@ -0,0 +1,{len(lines)} @@", *(f"+{line}" for line in lines)]
    return "\n".join(head + body if lines else head[:2])
