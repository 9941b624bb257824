"""The comparison of trained models: its intervals, what it refuses, and the command."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from support.helpers import Command, configure
from support.scored_runs import job, on_data, scored

import train
from reports.compare import Model, compare, difference, read_models


def model(nats: np.ndarray, steps: np.ndarray, seeds: tuple[int, ...] = (0,)) -> Model:
    return Model("m", seeds, nats, steps)


def test_with_one_seed_it_is_the_paired_test() -> None:
    rng = np.random.default_rng(0)
    steps = np.full(50, 10.0)
    a, b = rng.normal(3, 5, (1, 50)), rng.normal(0, 5, (1, 50))
    found = difference(model(a, steps), model(b, steps))
    paired = stats.ttest_rel(a[0], b[0])
    assert found.mean == pytest.approx((a - b).mean() / 10)
    assert found.mean / (found.half / 1.96) == pytest.approx(paired.statistic)


@pytest.mark.parametrize(("seeds", "others"), [((0, 1, 2), (0, 1, 2)), ((0, 1, 2, 3), (4, 5, 6))])
def test_the_interval_covers_the_difference_of_sequences_and_seeds(
    seeds: tuple[int, ...], others: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    steps = rng.integers(5, 50, 80).astype(float)
    hits, n = 0, 400
    for _ in range(n):
        hard = steps * rng.normal(0, 2, 80)  # What both models share, which pairing takes away.
        own = steps * rng.normal(0, 0.3, 80)

        def drawn(seeds: tuple[int, ...], lead: float, by_sequence: np.ndarray) -> Model:
            by_seed = rng.normal(lead, 0.1, (len(seeds), 1)) * steps
            rest = rng.normal(0, 1, (len(seeds), 80))
            return model(by_sequence + by_seed + rest, steps, seeds)

        found = difference(drawn(seeds, 0.5, hard + own), drawn(others, 0.0, hard))
        hits += abs(found.mean - 0.5) < found.half
    # Few seeds underestimate their spread now and then.
    assert 0.85 < hits / n <= 1


def leave(folder: Path, name: str, seed: int, elbo: list[float], split: str = "abc") -> Path:
    run = on_data(job(folder, name, scored(1.0)), split, len(elbo))
    words = [f"model={name}", f"seed={seed}", "optim.lr=1", f"hydra.run.dir={folder}"]
    (run / ".hydra" / "overrides.yaml").write_text("".join(f"- {word}\n" for word in words))
    record = json.loads((run / "run.json").read_text())
    record["config"]["seed"] = seed
    (run / "run.json").write_text(json.dumps(record))
    (run / "scores_test_k40.json").write_text(json.dumps({"test/elbo": 1.0}))
    with open(run / "scores_test_k40.csv", "w") as file:
        rows = csv.writer(file)
        rows.writerow(["sequence", "steps", "elbo"])
        rows.writerows([i, 2, nats] for i, nats in enumerate(elbo))
    return run


def test_runs_that_differ_in_their_seed_are_one_model(tmp_path: Path) -> None:
    runs = [
        leave(tmp_path / "a", "VRNN-GMM", 0, [1, 2, 3]),
        leave(tmp_path / "b", "VRNN-GMM", 1, [3, 4, 5]),
        leave(tmp_path / "c", "RNN-GMM", 0, [1, 1, 1]),
    ]
    models = read_models(runs, "elbo", 40, "test")
    assert [(m.name, m.seeds) for m in models] == [
        ("model=VRNN-GMM", (0, 1)),
        ("model=RNN-GMM", (0,)),
    ]
    table = compare(models, "elbo")
    assert "1.5000 (seeds: ± 0.7071)" in table and "-1.0000 ±" in table


def test_what_does_not_compare_is_refused(tmp_path: Path) -> None:
    first = leave(tmp_path / "a", "VRNN-GMM", 0, [1, 2, 3])
    cases = {
        "was not scored on the test sequences": leave(tmp_path / "b", "RNN-GMM", 0, [1, 2], "d"),
        "is a second run of VRNN-GMM with seed=0": leave(tmp_path / "c", "VRNN-GMM", 0, [1, 2, 3]),
    }
    for message, other in cases.items():
        with pytest.raises(ValueError, match=message):
            read_models([first, other], "elbo", 40, "test")
    with pytest.raises(ValueError, match="has no fivo of its test split with K = 40: python eval"):
        read_models([first], "fivo", 40, "test")
    (first / "scores_test_k40.csv").write_text("sequence,steps,elbo\n1,2\n")
    with pytest.raises(ValueError, match="is damaged"):
        read_models([first], "elbo", 40, "test")


def test_the_command(tmp_path: Path, command: Command) -> None:
    runs = []
    for name in ("vrnn_gmm", "rnn_gmm"):
        folder = tmp_path / name
        train.run(configure(folder, f"model={name}", "untrained=false", "test=false"))
        command("evaluate.py", folder, "--k", 3)
        scores = json.loads(next(folder.glob("scores_test_k*.json")).read_text())
        with open(next(folder.glob("scores_test_k*.csv"))) as file:
            rows = list(csv.DictReader(file))
        nats = [float(row["elbo"]) for row in rows]
        assert np.mean(nats) == pytest.approx(scores["test/elbo_raw"])
        runs.append(folder)
    models = read_models(runs, "elbo", 3, "test")
    assert "VRNN-GMM" in compare(models, "elbo") and len(models) == 2
