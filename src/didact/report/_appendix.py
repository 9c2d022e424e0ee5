"""The end of the page: how to make the run again, and its configuration."""

import itertools
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from ._html import Html, markup, tag
from ._numbers import MISSING, file_size
from ._read import Record, RunData, section

_MAX_ROWS, _MAX_FILES = 400, 40
_EVALUATES = "computes the numbers of the verdict again, for the newest checkpoint"
_SAMPLES = "draws from the Student"
_REPORTS = "writes this page again"


def reproduce(run: RunData) -> Html:
    """What makes the run and its page again, the versions and the files."""
    command = run.config.get("command")
    from_shell = isinstance(command, str) and command.startswith("didact train ")
    again, other = ("command", "another --out") if from_shell else ("call", "another folder")
    lines = [(command, _effect(run, again)), *(_in_python(run) if run.foreign else _in_shell(run))]
    commands = (
        tag("div", tag("dt", tag("code", shortened(str(line), 4000))), tag("dd", text))
        for line, text in lines
        if line
    )
    return markup(
        tag(
            "p",
            f"With {other}, the same {again} and the same versions train anew, to the same "
            + f"result on the same hardware. {_where(run)}",
        ),
        tag(
            "p",
            "The configuration names what is not part of didact: ",
            tag("code", "didact evaluate"),
            " and ",
            tag("code", "didact sample"),
            " need to be told anew what that is, a reward by --reward module:function; ",
            "from Python, didact.Run.load takes it as given.",
        )
        if run.foreign
        else "",
        tag("dl", *commands, class_="commands"),
        tag(
            "div",
            _table("Versions and device", _versions(run)),
            _table("Files in the run folder", _files(run.path)),
            class_="pair",
        ),
    )


def _effect(run: RunData, again: str) -> str:
    """What the line that made a run does when it is given once more."""
    finished = f"the same {again} trains nothing and overwrites nothing"
    unfinished = f"the same {again} goes on with it"
    if run.finished is None:
        return f"made this run; once it is finished, {finished}; until then, {unfinished}"
    if run.finished:
        return f"made this run; it is finished: {finished}"
    return f"made this run; it is unfinished: {unfinished}"


def _in_shell(run: RunData) -> list[tuple[str, str]]:
    folder = shlex.quote(_folder(run))
    return [
        (f"didact evaluate {folder}", _EVALUATES),
        (f"didact sample {folder} -n 10000 --out samples.npz", _SAMPLES),
        (f"didact report {folder}", _REPORTS),
    ]


def _folder(run: RunData) -> str:
    """The run folder as the line that made it calls it, unless it was moved; else its name."""
    return _given_folder(run) or run.path.resolve().name


def _given_folder(run: RunData) -> str | None:
    command, name = run.config.get("command"), run.path.resolve().name
    if not isinstance(command, str) or not command.startswith("didact train "):
        return None
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    out = next((after for word, after in itertools.pairwise(words) if word == "--out"), None)
    if out is None:  # the default
        return f"runs/{name}" if run.path.resolve().parent.name == "runs" else None
    return out if Path(out).name == name else None


def _where(run: RunData) -> str:
    if _given_folder(run) is None:
        return "The other lines are for the folder that holds the run folder."
    return "All lines are for the folder in which the first was given."


def _in_python(run: RunData) -> list[tuple[str, str]]:
    folder = json.dumps(_folder(run), ensure_ascii=False)
    given = ", ".join(
        f"{json.dumps(address, ensure_ascii=False)}: {_expression(address)}"
        for address in run.foreign
    )
    unnamed = any(_expression(address) == "..." for address in run.foreign)
    hint = " (for ... put the object itself)" if unnamed else ""
    return [
        (f"run = didact.Run.load({folder}, given={{{given}}})", f"reads the run{hint}"),
        ("run.evaluate()", _EVALUATES),
        ("run.sample(10_000)", _SAMPLES),
        ("run.report()", _REPORTS),
    ]


def _expression(address: str) -> str:
    """How a program names the object at "module:name"; "..." where it has no name, as a lambda."""
    name = address.partition(":")[2].rpartition("<locals>.")[2]
    return name if all(part.isidentifier() for part in name.split(".")) else "..."


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
