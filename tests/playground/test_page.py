"""The page in a real browser: strokes appear, sound is played, and nothing is complained of."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.playground_run import write_run

BROWSER = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")

FLAGS = [
    "--no-sandbox",  # Which root cannot have.
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("there is no Chromium here (name one by CHROMIUM=)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=BROWSER, args=FLAGS)


@contextmanager
def served(run: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of the playground of a run, as the program prints it."""
    words = ["-m", "playground", str(run), "--port", "0", "--no-browser"]
    root = Path(__file__).parents[2]
    program = subprocess.Popen(
        [sys.executable, *words], cwd=root, stdout=subprocess.PIPE, text=True
    )
    try:
        assert program.stdout is not None
        yield program.stdout.readline().split()[0], program
    finally:
        program.terminate()
        program.communicate(timeout=20)


@contextmanager
def opened(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """A page that complains of nothing and asks nobody else."""
    complaints: list[str] = []
    context = browser.new_context(**options)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda sent: sent.url.startswith((address, "data:")) or complaints.append(sent.url),
    )
    page.goto(address)
    yield page
    assert complaints == []
    context.close()


def ink(page: Any) -> int:
    """How many points of the sheet are inked; its rules are pale."""
    shown = Image.open(BytesIO(page.locator("#paper").screenshot())).convert("L")
    return int((np.asarray(shown) < 150).sum())


def until(page: Any, condition: str, seconds: float = 40) -> None:
    """Waits. Playwright's own way would be stopped by the page's security policy."""
    end = time.monotonic() + seconds
    while not page.evaluate(f"Boolean({condition})"):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(write_run(tmp_path_factory.mktemp("writing"))) as (address, _):
        yield address


def test_a_drawing_is_continued(browser: Any, writing: str) -> None:
    with opened(browser, writing) as page:
        until(page, "stage && stage.strokes.length > 2")
        box = page.locator("#paper").bounding_box()
        page.mouse.move(box["x"] + 40, box["y"] + 60)
        page.mouse.down()
        for i in range(40):
            page.mouse.move(box["x"] + 40 + 3 * i, box["y"] + 60 + 14 * (i % 2))
        page.mouse.up()
        until(page, "stage.drawn.length === 1 && !running")
        assert "Your turn" in page.inner_text("#status")
        page.wait_for_timeout(200)  # The next frame of the screen.
        drawn = ink(page)
        assert drawn > 100
        until(page, "stage.primed === 1 && stage.strokes.length > 3")
        assert page.evaluate("stage.strokes[0].length") > 20
        page.wait_for_timeout(1500)
        assert ink(page) > drawn
        assert "Handwriting" in page.get_attribute("#paper", "aria-label")


def test_the_keyboard_is_enough(browser: Any, writing: str) -> None:
    with opened(browser, writing, reduced_motion="reduce") as page:
        until(page, "stage && !document.querySelector('#go').disabled")
        assert page.evaluate("stage.strokes.length") == 0  # Nothing moves unasked.
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "go"
        page.keyboard.press("Enter")
        until(page, "stage.strokes.length > 2")
        page.keyboard.press("Enter")
        assert page.inner_text("#go") == "Go on" and page.inner_text("#status") == "Paused."
        count = page.evaluate("stage.strokes.length")
        page.wait_for_timeout(400)
        assert page.evaluate("stage.strokes.length") == count
        for _ in range(3):
            page.keyboard.press("Tab")
        page.keyboard.press("Home")
        assert page.inner_text("#tz-out") == "0.00"
        assert page.evaluate("controls().temperature_z") == 0
        unlabelled = "[...document.querySelectorAll('input')].filter(e => !e.labels.length).length"
        assert page.evaluate(unlabelled) == 0


def test_a_seed_writes_the_same_again(browser: Any, writing: str) -> None:
    lines = []
    with opened(browser, writing) as page:
        for seed in (5, 5, 6):
            until(page, "running")
            page.fill("#seed", str(seed - 1))
            page.click("#again")  # Takes the next one.
            assert page.input_value("#seed") == str(seed)
            until(page, "stage.strokes.length > 4")
            lines.append(page.evaluate("stage.strokes.slice(0, 3)"))
    assert lines[0] == lines[1] != lines[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser: Any, writing: str, scheme: str) -> None:
    size = {"width": 360, "height": 700}
    with opened(browser, writing, viewport=size, color_scheme=scheme, has_touch=True) as page:
        until(page, "stage && stage.strokes.length > 2")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.evaluate("stage.strokes.flat().every(([x]) => x < 5000)")
        low = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (low == "rgb(17, 26, 41)") == (scheme == "dark")


def test_sound_is_heard_and_seen(browser: Any, tmp_path: Path) -> None:
    few = ["data.utterances=6", "data.val_utterances=2", "data.test_utterances=2"]
    few.append("data.speakers=2")
    run = write_run(tmp_path, "experiment=first_speech", *few, lines=False)
    with served(run) as (address, program), opened(browser, address) as page:
        until(page, "stage")
        assert page.inner_text("#status") == "Start, and the model speaks."
        page.click("#go")
        until(page, "stage.context && stage.context.currentTime > 1.5")
        assert page.evaluate("stage.samples.length") > page.evaluate("about.rate")
        assert page.evaluate("Math.max(...stage.samples)") > 0.005
        assert page.evaluate("stage.context.sampleRate === about.rate")
        page.click("#go")
        until(page, "stage.context.state === 'suspended'")
        program.terminate()
        until(page, "document.querySelector('#go').disabled")
        assert "connection is gone" in page.inner_text("#status")
