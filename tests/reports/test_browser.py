"""Pages in a real browser: what needs one is skipped where there is none."""

import os
import shutil
import time

import pytest
from support.helpers import configure
from support.small_corpora import write

import train
from reports.page import write_comparison

playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs pip install playwright, and Chromium"
)

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH"),
]

OPTIONS = ["--disable-gpu", "--no-first-run", "--disable-background-networking"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of handwriting, of sound and of music, and one that compares two runs."""
    root = tmp_path_factory.mktemp("pages")
    write("jsb", root / "rolls")
    speech = [f"data.{name}=3" for name in ("utterances", "val_utterances", "test_utterances")]
    pen = ["trainer.max_epochs=3", "untrained=false", "report=true"]
    once = ["trainer.max_epochs=1", "untrained=false", "report=true"]
    rolls = ["data=jsb", f"data.root={root / 'rolls'}", "model=vrnn_bernoulli"]
    train.run(configure(root / "pen", *pen))
    train.run(configure(root / "pen_gauss", *pen, "model=rnn_gauss"))
    sound = ["data=synthetic_speech", "model=vrnn_gauss"]
    train.run(configure(root / "audio", *once, *sound, *speech, lines=False))
    train.run(configure(root / "music", *once, *rolls, lines=False))
    write_comparison([root / "pen", root / "pen_gauss"], root / "comparison.html")
    found = {name: root / name / "report.html" for name in ("pen", "audio", "music")}
    return found | {"comparison": root / "comparison.html"}


@pytest.fixture
def browser():
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=OPTIONS + root)
        yield started
        started.close()


@pytest.fixture
def opened(browser, pages):
    """Opens a page; at the end of the test the browser may have had nothing to say, and no
    request to send."""
    messages = []

    def open_page(name, **options):
        page = browser.new_context(**options).new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda r: r.url.startswith("http") and messages.append(r.url))
        page.goto(pages[name].as_uri())
        return page

    yield open_page
    assert messages == []


def until(page, expression, seconds=20):
    """Waits; Playwright's own function is refused by the page's policy."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(30)


def readings(page):
    return page.locator(".reading").all_inner_texts()


def test_curves_are_read_zoomed_and_hidden(opened):
    page = opened("pen")
    plot = page.locator(".plot").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    y = box["y"] + 60
    page.mouse.move(box["x"] + box["width"] / 2, y)
    assert readings(page)[0].startswith("Update ") and "training" in readings(page)[0]
    assert plot.locator("circle").count() == 2

    line = plot.locator("path.line").first
    whole = line.get_attribute("d")
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, y, steps=4)
    assert plot.locator(".band").count() > 0
    page.mouse.up()
    assert line.get_attribute("d") != whole and plot.locator(".band").count() == 0
    page.mouse.dblclick(box["x"] + box["width"] / 2, y)
    assert line.get_attribute("d") == whole

    button = page.locator(".legend button").first
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert plot.locator("path.line").count() == 1


def test_curves_are_read_with_the_keyboard(opened):
    page = opened("pen")
    plot = page.locator(".plot").first
    plot.focus()
    page.keyboard.press("Home")
    first = readings(page)[0]
    page.keyboard.press("ArrowRight")
    assert first.startswith("Update 0") and readings(page)[0].startswith("Update 1")
    whole = plot.locator("path.line").first.get_attribute("d")
    page.keyboard.press("+")
    assert plot.locator("path.line").first.get_attribute("d") != whole
    page.keyboard.press("Escape")
    assert plot.locator("path.line").first.get_attribute("d") == whole


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_handwriting_is_written_again(motion, opened):
    page = opened("pen", reduced_motion=motion)
    figure = page.locator(".drawing.pen").first
    paths = figure.locator("svg path")
    whole = paths.evaluate_all("all => all.map(p => p.getAttribute('d'))")
    page.select_option(".speed", "10")
    figure.locator("button").click()
    assert figure.locator("button").inner_text() == "Stop"
    page.wait_for_timeout(120)
    partial = paths.evaluate_all("all => all.map(p => p.getAttribute('d'))")
    missing = sum(a != b for a, b in zip(partial, whole, strict=True))
    assert missing > 0 and partial[-1] != whole[-1]
    if motion == "reduce":
        assert all(d == "" or d == w for d, w in zip(partial, whole, strict=True))
    until(page, "document.querySelector('.drawing.pen button').textContent == 'Replay'")
    assert paths.evaluate_all("all => all.map(p => p.getAttribute('d'))") == whole


def test_music_plays_and_stops(opened):
    page = opened("music")
    first, second = (page.locator(".drawing.binary button").nth(i) for i in (0, 1))
    first.click()
    until(page, "document.querySelectorAll('.roll rect.on').length > 0")
    head = page.locator(".roll .head").first
    before = head.get_attribute("transform")
    page.wait_for_timeout(150)
    assert head.get_attribute("transform") != before
    second.click()
    assert first.inner_text() == "Play" and second.inner_text() == "Stop"
    second.click()
    assert second.inner_text() == "Play" and page.locator(".roll rect.on").count() == 0


def test_sound_plays_and_its_pictures_follow(opened):
    page = opened("audio")
    audio = page.locator("audio").first
    audio.evaluate("a => { a.muted = true; return a.play(); }")
    until(page, "document.querySelector('audio').currentTime > 0.05")
    head = page.locator(".sound .head").first
    assert head.is_visible() and float(head.evaluate("h => parseFloat(h.style.left)")) > 0
    assert audio.evaluate("a => a.duration") > 0.1
    page.locator("audio").nth(1).evaluate("a => { a.muted = true; return a.play(); }")
    assert audio.evaluate("a => a.paused")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["pen", "audio", "music", "comparison"])
def test_no_page_is_wider_than_a_phone(name, scheme, opened):
    page = opened(name, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) <= 0
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = sum(map(int, colour[4:-1].split(", "))) < 200
    assert dark == (scheme == "dark")
    assert page.locator(".plot path.line").count() > 0
    broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    until(page, f"{broken} == 0")
