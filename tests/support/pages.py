"""What a page in one file consists of, as a browser or a screen reader finds it."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """The elements of a page in order: name, attributes, text inside. Fails on a tag that is not
    closed by its own."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.source = file.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, Any], list[str]]] = []
        self.open: list[int] = []
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        assert self.elements[self.open.pop()][0] == tag

    def handle_data(self, data):
        hidden = self.elements[self.open[-1]][0] in ("script", "style") if self.open else False
        for i in self.open[-1:] if hidden else self.open:
            self.elements[i][2].append(data)

    def all(self, tag, **wanted):
        """Attributes and text of all elements of a name whose attributes are so."""
        return [
            (attributes, " ".join("".join(text).split()))
            for name, attributes, text in self.elements
            if name == tag and all(attributes.get(k.rstrip("_")) == v for k, v in wanted.items())
        ]

    def text(self) -> str:
        shown = [e for e in self.elements if e[0] == "body"]
        return " ".join("".join(shown[0][2]).split())

    def panels(self) -> dict[str, Any]:
        """The data of the curves, by title."""
        found = [json.loads(text) for _, text in self.all("script", type="application/json")]
        return {panel["title"]: panel for panel in found}


def sound_of(source: str) -> bytes:
    return base64.b64decode(source.removeprefix("data:audio/wav;base64,"))


def check(file: Path) -> Page:
    """Fails unless a page stands alone, is small, and can be read without eyes."""
    page = Page(file)
    assert file.stat().st_size < 5_000_000

    for _, attributes, _ in page.elements:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), value
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"url\(|@import", page.source.partition("</style>")[0])
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert "default-src 'none'" in policy[0]["content"]
    assert "unsafe-inline" not in policy[0]["content"].partition("script-src")[2]

    assert page.all("html")[0][0]["lang"] == "en"
    assert page.all("title")[0][1] and len(page.all("main")) == len(page.all("h1")) == 1
    assert "width=device-width" in page.all("meta", name="viewport")[0][0]["content"]
    levels = [int(e[0][1]) for e in page.elements if re.fullmatch("h[1-6]", e[0])]
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False)), levels

    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for attributes, _ in page.all("a")]
    assert links and {link.removeprefix("#") for link in links} <= set(ids)
    for section, _ in page.all("section"):
        assert section["aria-labelledby"] in ids
    for image, _ in page.all("img"):
        assert image["alt"]
    for drawing, _ in page.all("svg"):
        assert drawing["role"] == "img" and drawing["aria-label"]
    for player, _ in page.all("audio"):
        assert player["aria-label"] and "controls" in player
    for button, text in page.all("button"):
        assert text and button["type"] == "button"
    for header, _ in page.all("th"):
        assert header["scope"] in ("row", "col")
    assert len(page.all("caption")) == len(page.all("table"))
    return page
