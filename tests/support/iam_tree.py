"""Writes small corpora in the file formats of IAM-OnDB."""

from pathlib import Path

import numpy as np

from datamodules.handwriting.iam_xml import find_lines

# Two writers are in trainset.
FORMS = {
    "trainset": ["a01-000u", "c03-001z", "a02-000", "b01-010"],
    "testset_v": ["a02-000x"],
    "testset_t": ["d01-016z"],
    "testset_f": ["h01-030z"],
}


Stroke = list[tuple[int, int]]

XML = """<?xml version="1.0" encoding="ISO-8859-1"?>
<WhiteboardCaptureSession>
  <WhiteboardDescription>
    <SensorLocation corner="top_left"/>
    <DiagonallyOppositeCoords x="6512" y="1376"/>
    <VerticallyOppositeCoords x="966" y="1376"/>
    <HorizontallyOppositeCoords x="6512" y="787"/>
  </WhiteboardDescription>
  <StrokeSet>
{strokes}
  </StrokeSet>
</WhiteboardCaptureSession>
"""


def xml(strokes: list[Stroke]) -> str:
    def points(stroke: Stroke) -> str:
        return "\n".join(f'      <Point x="{x}" y="{y}" time="769.05"/>' for x, y in stroke)

    return XML.format(
        strokes="\n".join(
            f'    <Stroke colour="black" start_time="1" end_time="2">\n{points(s)}\n    </Stroke>'
            for s in strokes
        )
    )


def line_path(root: Path, key: str) -> Path:
    path = root / "lineStrokes" / key[:3] / key[:7] / f"{key}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_line(root: Path, key: str, seed: int = 0, points: int = 9) -> Path:
    steps = np.random.default_rng(seed).integers(-5, 30, size=(points, 2)).cumsum(0).tolist()
    path = line_path(root, key)
    path.write_text(xml([steps[:4], steps[4:]] if points > 4 else [steps]), encoding="latin-1")
    return path


def write_text(root: Path, form: str, csr: list[str], end: str = "\r\n") -> Path:
    path = root / "ascii" / form[:3] / form[:7] / f"{form}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["OCR:", "", "Other breaks", "", "CSR:", "", *csr, ""]
    path.write_bytes(end.join(lines).encode("latin-1"))
    return path


def write_list(root: Path, name: str, forms: list[str], end: str = "\r\n") -> Path:
    path = root / "task1" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f" {form}{end}" for form in forms).encode())
    return path


BOMB = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<WhiteboardCaptureSession>&b;</WhiteboardCaptureSession>
"""


def write_corpus(root: Path) -> Path:
    for name, forms in FORMS.items():
        write_list(root, name, forms)
        for form in forms:
            for i in (1, 2, 3):
                write_line(root, f"{form}-{i:02d}", seed=i)
            write_text(root, form, [f"{form} one", f"{form} two", f"{form} three"])
    return root


def keys_of(root: Path, form: str) -> list[str]:
    return [key for key, _ in find_lines(root, [form])]
