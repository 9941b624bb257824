"""One run, or several beside each other, as a page in a single file that opens from disk."""

import base64
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from reports.groups import by_data
from reports.kinds import kind_of
from reports.page_drawings import Drawing, png
from reports.page_samples import Sequences, drawn_from_checkpoint, generated, real
from reports.page_scores import compared, published, tables, tiles
from reports.published import incomparable
from runs.curves import panels
from runs.drawing import as_image
from runs.run import Run, read_run

__all__ = ["write_comparison", "write_report"]

TEMPLATES = Path(__file__).with_name("templates")

WIDEST = 1400
"""Pixels of a picture, at most."""

SCRIPTS = ("charts.js", "players.js")


def write_report(folder: Path, figures: Mapping[str, Figure] | None = None) -> Path:
    """Writes <folder>/report.html, of a run that ended, failed or goes on, with what there is.

    Args:
        figures: pictures of the latents by title.

    Raises:
        ValueError: if the folder is no run's.
    """
    run = read_run(folder)
    shown = examples(run, real(run), generated(run))
    content = render(
        "report.html",
        title=run.title,
        run=run,
        kind=kind_of(run.kind).title,
        tiles=tiles(run),
        samples=shown,
        panels=panels({run.name: run.curves}),
        tables=tables(run),
        published=published(run),
        incomparable=incomparable(run),
        figures=pictures(run, figures or {}),
        config=yaml.safe_dump(run.settings, sort_keys=False, allow_unicode=True, width=88),
        environment=environment(run),
    )
    return write_page(content, folder / "report.html")


def write_comparison(folders: Sequence[Path], file: Path, seed: int = 0) -> Path:
    """Writes one page that compares runs, those on the same data with each other: curves on one
    axis, scores sorted, and what the models generate from the same seed side by side.

    Raises:
        ValueError: if a folder is no run's.
    """
    from rich.console import Console
    from rich.progress import track

    runs = [read_run(folder) for folder in folders]
    names = dict(zip(folders, distinct(runs), strict=True))
    made = {
        run.folder: drawn_from_checkpoint(run, seed)
        for run in track(runs, "generating", transient=True, console=Console(stderr=True))
    }
    data_sets = by_data(runs)
    sounds = sum(min(len(m.x), 4) for m in made.values()) + 4 * len(data_sets)
    groups = []
    for data, members in data_sets.items():
        example = members[0]
        curves = panels({names[run.folder]: run.curves for run in members})
        lists = {"Real": real(example)} | {names[run.folder]: made[run.folder] for run in members}
        drawn = {name: drawings(example, some, sounds) for name, some in lists.items()}
        groups.append(
            {
                "data": data,
                "kind": example.kind,
                "panels": curves,
                "notes": notes_of(lists),
                "rows": side_by_side(drawn),
            }
        )
    content = render(
        "comparison.html",
        title=f"{len(runs)} runs compared",
        runs=list(zip(names.values(), runs, strict=True)),
        tables=compared(runs, names),
        groups=groups,
        seed=seed,
    )
    return write_page(content, file)


def examples(run: Run, reals: Sequences, made: Sequences) -> dict[str, Any]:
    """Real and generated sequences, drawn, and where they come from."""
    lists = {"Real": reals, "Generated": made}
    if kind_of(run.kind).means and made.mean:
        lists["Generated, means"] = made._replace(x=made.mean)
    sounds = sum(len(some.x) for some in lists.values())
    drawn = {name: drawings(run, some, max(sounds, 1)) for name, some in lists.items()}
    notes = notes_of({"Real": reals, "Generated": made})
    return {"rows": side_by_side(drawn), "notes": notes}


def drawings(run: Run, some: Sequences, sounds: int) -> list[Drawing]:
    rate = float(run.data.get("rate") or some.rate or 1.0)
    columns = [str(column) for column in run.data.get("columns", some.columns)]
    return kind_of(run.kind).page_drawings(some.x, some.titles, rate, columns, sounds)


def side_by_side(lists: Mapping[str, list[Drawing]]) -> list[list[tuple[str, Drawing | None]]]:
    """Row by row, under the name of their list; lists that are empty take no room, and others
    leave gaps."""
    filled = {name: drawn for name, drawn in lists.items() if drawn}
    rows = zip_longest(*filled.values())
    return [list(zip(filled, row, strict=True)) for row in rows]


def notes_of(lists: Mapping[str, Sequences]) -> list[str]:
    return [f"{name}: {some.note[:1].lower()}{some.note[1:]}" for name, some in lists.items()]


def pictures(run: Run, figures: Mapping[str, Figure]) -> list[tuple[str, str]]:
    """Titles and sources of pictures: of the latents' use as it was last drawn, of `figures`, or
    else of what lies in figures/ of the run."""
    files = {"Use of the latents by dimension and by step": run.folder / "samples" / "latents.png"}
    if not figures:
        kept = sorted((run.folder / "figures").glob("*.png"))
        files |= {
            file.stem.replace("_", " ").replace("-", " ").capitalize(): file for file in kept
        }
    drawn = []
    for title, file in files.items():
        try:
            with Image.open(file) as image:
                drawn.append((title, small_png(image)))
        except FileNotFoundError:
            continue
        except OSError as error:
            run.notes.append(f"{file.name} cannot be read ({error}).")
    for title, figure in figures.items():
        drawn.append((title, small_png(as_image(figure)[0])))
    return drawn


def small_png(image: Image.Image) -> str:
    """In 64 colours, which is enough for plots and takes a third of the room."""
    small = image.convert("RGB")
    small.thumbnail((WIDEST, WIDEST * 4))
    return png(small.quantize(64, dither=Image.Dither.NONE))


def environment(run: Run) -> list[tuple[str, str]]:
    """What run.json says of code, versions, hardware and data, as names and values."""
    record = run.record
    if not record:
        return []
    changed = " with changes (changes.patch)" if record.get("changed") else ""
    rows = [
        ("commit", f"{record.get('commit') or 'not in a repository'}{changed}"),
        ("seed", str(record.get("seed"))),
    ]
    for part in ("versions", "hardware", "data"):
        content = record.get(part)
        prefix = "fingerprint of data, " if part == "data" else ""
        if isinstance(content, dict):
            rows += [(f"{prefix}{name}", plain(value)) for name, value in content.items()]
    return rows


def plain(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def distinct(runs: Sequence[Run]) -> list[str]:
    """Names of runs, each by as many parents as it takes to tell it from the others."""
    paths = [run.folder.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        raise ValueError("the same run is named twice")

    def last(path: Path, depth: int) -> str:
        return "/".join(path.parts[-depth:])

    names = []
    for path in paths:
        depth = 1
        while sum(last(other, depth) == last(path, depth) for other in paths) > 1:
            depth += 1
        names.append(last(path, depth))
    return names


def render(template: str, **content: Any) -> str:
    """Fills in a template. Everything is escaped, and the page runs and loads nothing that is not
    its own."""
    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["data"] = data_block
    # No text of these files comes from a run.
    style = Markup((TEMPLATES / "page.css").read_text())
    scripts = [Markup((TEMPLATES / name).read_text()) for name in SCRIPTS]
    content |= {
        "style": style,
        "scripts": scripts,
        "hashes": Markup(" ".join(csp_hash(script) for script in scripts)),
        "written": time.strftime("%Y-%m-%d %H:%M"),
    }
    return env.get_template(template).render(**content)


def csp_hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def data_block(value: Any) -> Markup:
    """JSON that stays inside of its <script>, whatever text is in it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def write_page(content: str, file: Path) -> Path:
    """Writes a page whole or not at all."""
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(content, encoding="utf-8")
    partial.replace(file)
    return file
