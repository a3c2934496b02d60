"""The site loads nothing from a network when a page of it is opened: a build that would is an error."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
NAMED = {"canonical", "search", "next", "prev", "index", "author"}  # links that a browser does not load

STYLE = re.compile(r"""url\(\s*["']?((?:https?:)?//[^"')\s]+)""")


class _Loads(HTMLParser):
    """The addresses on other machines that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.remote: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        address = attributes.get(LOADED.get(tag, "")) or ""
        if address.startswith(("http://", "https://", "//")) and attributes.get("rel") not in NAMED:
            self.remote.append(address)


def loads(html: str) -> list[str]:
    """The addresses on other machines that a page, or a style sheet, loads by itself."""
    page = _Loads()
    page.feed(html)
    return page.remote + STYLE.findall(html)


def check(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    pages = (path for path in Path(app.outdir).rglob("*") if path.suffix in (".html", ".css"))
    for path in sorted(pages):
        if remote := loads(path.read_text(encoding="utf-8")):
            raise ExtensionError(f"{path.relative_to(app.outdir)} loads {', '.join(remote)}: put it into docs")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
