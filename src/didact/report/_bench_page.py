"""The page of a comparison of methods or of runs, from what the comparison hands over."""

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .._version import __version__
from ._appendix import shortened
from ._bench_figures import Chart, draw
from ._html import Html, markup, tag
from ._page import document
from ._parts import grid
from ._write import save


@dataclass(frozen=True)
class Table:
    """Text in rows and columns; the first column names the rows."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    def markdown(self) -> str:
        """The table in Markdown, with columns of one width, so that it reads well as text too."""
        cells = [[_one_line(cell) for cell in row] for row in (self.head, *self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.head))]
        lines = [
            "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
            for row in cells
        ]
        rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        return "\n".join([lines[0], rule, *lines[1:]])


@dataclass(frozen=True)
class Chapter:
    """A part of the page: paragraphs, tables and curves below a heading."""

    key: str
    heading: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = ()
    commands: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Comparison:
    """What the page says: `facts` stand in its head, `warnings` in a box below."""

    title: str
    kicker: str
    lead: str
    chapters: tuple[Chapter, ...]
    facts: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


def write_comparison(comparison: Comparison, path: Path) -> Path:
    """Write the self-contained page of a comparison, which loads nothing and runs no script.

    **Errors:** `ValueError` unless the page is to be an .html file.
    """
    if path.suffix not in (".html", ".htm"):
        raise ValueError(f"a page is written as .html, not {path.suffix or path.name!r}.")
    chapters = [(c.key, c.heading, _body(c)) for c in comparison.chapters]
    footer = (
        f"didact {__version__}, written {datetime.date.today().isoformat()}. This page is one "
        + "file: it loads nothing and runs no script."
    )
    page = document(comparison.title, _header(comparison), chapters, footer)
    save(path, page.encode("utf-8", errors="replace"))
    return path


def _header(comparison: Comparison) -> Html:
    facts = (
        tag("div", tag("dt", name), tag("dd", shortened(value))) for name, value in comparison.facts
    )
    warnings = (tag("li", shortened(line)) for line in comparison.warnings)
    return markup(
        tag("p", comparison.kicker, class_="kicker"),
        tag("h1", shortened(comparison.title)),
        tag("dl", *facts, class_="facts"),
        tag("p", comparison.lead, class_="lead"),
        tag("ul", *warnings, class_="notes", role="note") if comparison.warnings else "",
    )


def _body(chapter: Chapter) -> Html:
    pictures = draw(chapter.charts)
    return markup(
        *(tag("p", text) for text in chapter.text),
        *(_table(table) for table in chapter.tables),
        _list(chapter.notes),
        grid(pictures, "charts") if pictures else "",
        _commands(chapter.commands),
    )


def _list(notes: Iterable[str]) -> Html:
    items = [tag("li", note) for note in notes]
    return tag("ul", *items) if items else Html()


def _table(table: Table) -> Html:
    head = tag("tr", *(tag("th", shortened(name), scope="col") for name in table.head))
    body = (
        tag(
            "tr",
            tag("th", shortened(row[0]), scope="row"),
            *(tag("td", shortened(cell)) for cell in row[1:]),
        )
        for row in table.rows
    )
    caption = tag("caption", table.caption) if table.caption else ""
    table_ = tag("table", caption, tag("thead", head), tag("tbody", *body), class_="compared")
    return tag("div", table_, class_="wide")


def _commands(commands: Sequence[tuple[str, str]]) -> Html:
    if not commands:
        return Html()
    items = (
        tag("div", tag("dt", tag("code", shortened(line, 4000))), tag("dd", effect))
        for line, effect in commands
    )
    return tag("dl", *items, class_="commands")


def _one_line(cell: str) -> str:
    return " ".join(cell.replace("|", "/").split())
