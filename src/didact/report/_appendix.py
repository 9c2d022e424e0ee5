"""The end of the page: how to make the run again, and its configuration."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from ._html import Html, markup, tag
from ._numbers import MISSING, file_size
from ._read import Record, RunData, section

_MAX_ROWS, _MAX_FILES = 400, 40


def reproduce(run: RunData) -> Html:
    """The commands that make the run and its page again, the versions and the files."""
    folder = shlex.quote(run.path.resolve().name)
    command = run.config.get("command")
    lines = [
        (command, "trains again (give another --out to keep this run)"),
        (f"didact evaluate {folder}", "computes the numbers of the verdict again"),
        (f"didact sample {folder} -n 10000 --out samples.npz", "draws from the Student"),
        (f"didact report {folder}", "writes this page again"),
    ]
    commands = (
        tag("div", tag("dt", tag("code", shortened(str(line), 4000))), tag("dd", text))
        for line, text in lines
        if line
    )
    return markup(
        tag(
            "p",
            "The same command with the same versions gives the same result on the same hardware. "
            + "The other commands are for the folder that holds the run folder.",
        ),
        tag("dl", *commands, class_="commands"),
        tag(
            "div",
            _table("Versions", _versions(run)),
            _table("Files in the run folder", _files(run.path)),
            class_="pair",
        ),
    )


def _versions(run: RunData) -> list[tuple[str, str]]:
    rows = [
        ("didact", str(run.config.get("didact_version", MISSING))),
        ("run started", str(run.config.get("created", MISSING))),
    ]
    known = section(run.final, "versions") or section(run.config, "versions")
    return rows + [(name, str(version)) for name, version in known.items() if name != "didact"]


def _files(folder: Path) -> list[tuple[str, str]]:
    """Files and folders of the run with their sizes; those of the report are left out."""
    rows: list[tuple[str, str]] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in ("report.html", "figures"):
            continue
        if path.is_dir():
            sizes = [p.stat().st_size for p in path.rglob("*") if p.is_file()]
            rows.append((f"{path.name}/", f"{len(sizes)} file(s), {file_size(sum(sizes))}"))
        elif path.is_file():
            rows.append((path.name, file_size(path.stat().st_size)))
    return rows[:_MAX_FILES]


def configuration(run: RunData) -> Html:
    """Every setting of the run, one table for each part."""
    experiment = section(run.config, "experiment")
    tables: list[Html] = []
    plain = [(k, v) for k, v in run.summary.items() if k not in ("method", "title")]
    tables.append(_table("In short", [(k, _value(v)) for k, v in plain]))
    loose = [(k, _value(v)) for k, v in experiment.items() if not isinstance(v, dict)]
    if loose:
        tables.append(_table("Experiment", loose))
    for key, value in experiment.items():
        if isinstance(value, dict):
            tables.append(_table(key, _flatten(cast(Record, value))))
    return markup(
        tag(
            "p",
            "The complete configuration, as saved in ",
            tag("code", "config.json"),
            "; long values are cut.",
        ),
        tag("div", *tables, class_="columns"),
    )


def _table(caption: str, rows: Sequence[tuple[str, str]]) -> Html:
    body = (
        tag("tr", tag("th", shortened(name), scope="row"), tag("td", shortened(value)))
        for name, value in rows[:_MAX_ROWS]
    )
    return tag("table", tag("caption", shortened(caption)), tag("tbody", *body), class_="plain")


def _flatten(record: Record, prefix: str = "", depth: int = 0) -> list[tuple[str, str]]:
    """Nested settings as dotted names."""
    rows: list[tuple[str, str]] = []
    for key, value in record.items():
        if isinstance(value, dict) and value and depth < 8:
            rows.extend(_flatten(cast(Record, value), f"{prefix}{key}.", depth + 1))
        else:
            rows.append((f"{prefix}{key}", _value(value)))
    return rows


def _value(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.10g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shortened(text: str, limit: int = 400) -> str:
    """`text`, cut where it is too long to be read in a table."""
    return text if len(text) <= limit else text[:limit] + " …"
