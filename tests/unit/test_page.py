"""The files of the status page: they load nothing from elsewhere, and parse nothing they show."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "txharedis" / "monitor" / "page"
SCRIPTS = sorted(PAGE.glob("*.js"))
FILES = [PAGE / "index.html", PAGE / "page.css", *SCRIPTS]

PARSES = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|setHTMLUnsafe|createContextualFragment"
    r"|DOMParser|srcdoc|\beval\b|new Function|setAttribute\(\"style\""
)
#: The names of SVG, which are asked of nobody.
NAMESPACE = re.compile(r"(?<=[\"'])http://www\.w3\.org/2000/svg(?=[\"'])")


class Markup(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self.inside and self.inside[-1] in ("script", "style") and data.strip():
            self.inline.append(data)


@pytest.fixture(scope="module")
def markup() -> Markup:
    parser = Markup()
    parser.feed((PAGE / "index.html").read_text(encoding="utf-8"))
    return parser


def test_nothing_is_inline(markup: Markup) -> None:
    assert markup.inline == []
    names = {name for _, name, _ in markup.attributes}
    assert not {name for name in names if name == "style" or name.startswith("on")}


def test_what_is_loaded_is_there(markup: Markup) -> None:
    loaded = {
        value
        for tag, name, value in markup.attributes
        if name in ("src", "href") and tag in ("script", "link") and not value.startswith("data:")
    }
    assert loaded == {"static/page.css", "static/page.js"}
    for script in SCRIPTS:
        for name in re.findall(r'from "([^"]+)"', script.read_text(encoding="utf-8")):
            assert name.startswith("./"), (script.name, name)
            assert (PAGE / name).is_file(), (script.name, name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_texts_stay_texts_and_nobody_else_is_asked(path: Path) -> None:
    source = NAMESPACE.sub("", path.read_text(encoding="utf-8"))
    assert PARSES.findall(source) == []
    assert re.findall(r"(?:https?:)?//[a-z0-9]+[.:]\S*|@import|url\((?!#)", source) == []
