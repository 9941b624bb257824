import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from support.iam_tree import FORMS, write_corpus, write_list

from datamodules.handwriting.base import PAPER_SCALE, PAPER_SHIFT
from datamodules.handwriting.iam import CONVENTIONS, IAM, split_forms, writers_of
from datamodules.handwriting.iam_lines import read_corpus

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "iam")


def test_ready_made_splits(root: Path) -> None:
    paper = split_forms(root, **CONVENTIONS["paper"])
    assert paper["train"] == FORMS["trainset"] + FORMS["testset_t"] + FORMS["testset_f"]
    assert paper["val"] == paper["test"] == FORMS["testset_v"]
    task1 = split_forms(root, **CONVENTIONS["task1"])
    assert task1 == {"train": FORMS["trainset"], "val": ["a02-000x"], "test": ["h01-030z"]}


def test_lists_are_combined_in_either_notation(root: Path) -> None:
    mine = root.parent / "mine.txt"
    mine.write_text("d01-016z\n")
    a = split_forms(root, train="testset_t+testset_f", val="testset_v", test=str(mine))
    b = split_forms(root, train=["testset_t", "testset_f"], val=["testset_v"], test=["testset_t"])
    c = split_forms(root, train="testset_t+testset_f+testset_t", val="testset_v", test="testset_t")
    assert a == b == c
    assert a["train"] == ["d01-016z", "h01-030z"]


def forms_of(writer: int) -> list[str]:
    """Eight forms, as each writer of the corpus has them."""
    return [f"{'abcdefgh'[i]}{writer % 7:02d}-{writer:03d}" for i in range(8)]


@pytest.mark.parametrize("fraction", ["5%", "0.05", 0.05, " 5% "])
def test_a_fraction_holds_whole_writers_back(tmp_path: Path, fraction: str | float) -> None:
    writers = [forms_of(w) for w in range(40)]
    forms = [form for its in writers for form in its]
    write_list(tmp_path, "trainset", forms)
    write_list(tmp_path, "testset_t", ["b01-999"])
    (tmp_path / "shuffled.txt").write_text("\n".join(forms[::-1]))

    def split(train: str, seed: int = 0) -> dict[str, list[str]]:
        return split_forms(tmp_path, train=train, val=fraction, test="testset_t", seed=seed)

    a = split("trainset")
    assert len(a["val"]) == 16 == 0.05 * len(forms)
    assert sorted(a["train"] + a["val"]) == sorted(forms)
    for its in writers:
        assert len(set(its).intersection(a["val"])) in (0, 8), "a writer is on both sides"
    assert a == split("trainset")
    assert set(a["val"]) == set(split("shuffled.txt")["val"])
    assert a["val"] != split("trainset", seed=1)["val"]


def test_the_corpus_itself_says_who_wrote_a_form_where_it_does(root: Path) -> None:
    assert len(set(writers_of(root).values())) == 5
    table = root / "forms.txt"
    table.write_text("# form writer\n\n" + "".join(f"{f} 10{f[0]}\n" for f in writers_of(root)))
    assert writers_of(root)["a02-000x"] == writers_of(root)["a01-000u"] == "10a"
    held = split_forms(root, train="trainset", val=0.5, test="testset_t")
    assert {f[0] for f in held["train"]}.isdisjoint(f[0] for f in held["val"])
    table.write_text("b01-010 7\nwriter 8\n")
    with pytest.raises(ValueError, match=r"forms\.txt, line 2: 'writer 8' is no form and its"):
        split_forms(root, train="trainset", val="testset_v", test="testset_t")


def test_forms_are_not_held_back_where_their_writers_are_not_known(root: Path) -> None:
    (root / "mine.txt").write_text("e01-000 d01-016z")
    with pytest.raises(
        ValueError, match=r"the writers of 1 of the 2 forms .* e01-000; name lists"
    ):
        split_forms(root, train="mine.txt", val="5%", test="testset_t")
    with pytest.raises(ValueError, match="one writer wrote all 1 forms"):
        split_forms(root, train="testset_f", val="5%", test="testset_t")


@pytest.mark.parametrize("val", ["0%", "100%", 0.0, 1, "3", -0.5])
def test_fractions_out_of_range_are_refused(root: Path, val: str | float) -> None:
    with pytest.raises(ValueError, match="data.val="):
        split_forms(root, train="trainset", val=val, test="testset_t")


def test_only_val_is_a_fraction(root: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.test=0\.1"):
        split_forms(root, train="trainset", val="testset_v", test=0.1)


def test_without_a_split_every_list_is_asked_for(root: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.split=null .* by data\.val=, data\.test=$"):
        IAM(root, split=None, train="trainset")


def test_an_unknown_list_is_named_with_those_that_exist(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'testset_w'.*testset_f, testset_t, testset_v"):
        split_forms(root, train="testset_w", val="5%", test="testset_t")


def test_overlap_with_train_is_logged(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    split_forms(root, train="trainset", val="trainset", test="testset_t")
    assert "4 forms are in train as well as in val" in caplog.text
    assert "2 writers are in train as well as in val" in caplog.text


def test_ready_made_splits_share_no_writers(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for convention in CONVENTIONS.values():
        split_forms(root, **convention)
    assert not caplog.text


def paper_statistics(steps: np.ndarray) -> tuple[int, int]:
    """Shift and squared scale of the VRNN's normaliser, from whole offsets (N, 2).

    Its code sums dx and dy over both coordinates, but divides by the number of steps, as integers
    in Python 2.
    """
    shift = int(steps.sum()) // len(steps)
    return shift, int(np.square(steps).sum()) // len(steps) - shift**2


def test_the_papers_division_rounds_down() -> None:
    assert paper_statistics(np.array([[-3, 1], [1, 0], [0, -1]])) == (-1, 12 // 3 - 1)
    assert PAPER_SHIFT == 8 and pytest.approx((3205 - 8**2) ** 0.5, abs=1e-5) == PAPER_SCALE


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(os.environ.get("VRNN_DATA", ""), "iam")
    archives = sorted((REPOSITORY / ".." / "shared" / "data").glob("iam-ondb*.tar.xz"))

    if "VRNN_DATA" in os.environ and (root / "lineStrokes").is_dir():
        return root
    if not archives:
        pytest.skip("no IAM-OnDB in $VRNN_DATA/iam")

    root = tmp_path_factory.mktemp("iam")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(root, filter="data")
    return root


@pytest.mark.slow
def test_constants_of_the_real_corpus(corpus: Path, tmp_path: Path) -> None:
    forms = split_forms(corpus, train="trainset", val="testset_t", test="testset_t")
    parts = read_corpus(corpus, forms, tmp_path)
    expected = {
        "train": (775, 5364, 3_293_060, 8.460, -0.085, 42.73, 36.50, 0.0417, 1539),
        "test": (216, 1518, 1_035_285, 7.533, -0.135, 42.97, 37.15, 0.0351, 1622),
    }

    for part, (
        n_forms,
        n_lines,
        n_steps,
        dx,
        dy,
        std_dx,
        std_dy,
        pen,
        longest,
    ) in expected.items():
        lines = parts[part]
        steps = lines.joined().astype(np.float64)
        assert (len(forms[part]), len(lines), len(steps)) == (n_forms, n_lines, n_steps)
        assert lines.lengths.max() == longest
        assert steps.mean(0).round(3).tolist()[1:] == [dx, dy]
        assert steps.std(0).round(2).tolist()[1:] == [std_dx, std_dy]
        assert steps[:, 0].mean().round(4) == pen
        assert all(lines.labels["text"])

    # The paper's 8 and sqrt(3141) are those of all three lists; the first alone comes close.
    steps = parts["train"].joined()[:, 1:].astype(np.int64)
    assert paper_statistics(steps) == (PAPER_SHIFT, 3166)


@pytest.mark.slow
def test_lists_of_the_real_corpus(corpus: Path) -> None:
    paper = split_forms(corpus, **CONVENTIONS["paper"])
    assert [len(paper[part]) for part in ("train", "val", "test")] == [1535, 192, 192]

    if (corpus / "vrnn_nips2015_split").is_dir():
        assert paper == split_forms(corpus, train="train", val="valid", test="valid")


@pytest.mark.slow
def test_no_writer_of_the_real_corpus_is_held_back_in_part(corpus: Path) -> None:
    forms = (corpus / "task1" / "trainset.txt").read_text().split()
    falls = [i for i in range(1, len(forms)) if forms[i] <= forms[i - 1]]
    runs = [forms[i:j] for i, j in zip([0, *falls], [*falls, len(forms)], strict=True)]
    assert len(runs) == 96 and sum(len(run) == 8 for run in runs) == 94
    for seed in range(5):
        held = set(split_forms(corpus, **CONVENTIONS["holdout"], seed=seed)["val"])
        assert abs(len(held) / len(forms) - 0.05) < 0.006
        assert all(held.issuperset(run) or held.isdisjoint(run) for run in runs)
