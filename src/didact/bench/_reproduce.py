"""The paper's tables as suites, and what others measured beside what came out."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .._files import make_folder, write_whole
from .._reference import KINDS, Reference, notes, references
from ..metrics import finite_or_none
from ..report import Chapter, Comparison, Table
from ..report._numbers import MISSING, duration, number
from ._kept import Kept
from ._metrics import BY_KEY, per_seed
from ._results import READING
from ._statistics import spread
from ._suite import Suite, sized, train_words
from ._tables import Group, about, differences, groups, table, value
from ._tables import chapter as chapter_of
from ._work import Cell

PARTS: dict[str, str] = {
    "grid": "The deceptive grid",
    "diffusion": "Diffusion samplers",
    "biochem": "Strings and molecules",
}
BASELINES: dict[str, str] = {"grid": "tb-prt", "diffusion": "tb-per", "biochem": "tb-per"}
"""The methods without a Teacher that are hardest to beat."""
SEEDS, QUICK_SEEDS = 3, 2

_GRIDS = ("grid-2x128", "grid-2x256", "grid-4x16", "grid-4x32")
_ON_GRIDS = (
    *("tb", "eps", "gafn", "tb-prt", "tb-per", "teacher", "teacher-prt", "teacher-per"),
    *("one-sided", "tb-prt-late", "teacher-floor", "mutate", "didact", "metropolis"),
)
_ON_VECTORS = ("pis", "tb", "explore", "tb-per", "tb-mala", "teacher", "teacher-mala")
_ON_STRINGS = (
    *("tb", "tb-prt", "tb-per", "search-prt", "teacher-prt", "teacher-per"),
    *("teacher-mutate-per", "didact"),
)

TOLERANCE = (
    "Two standard errors of the difference where the other value has one, else a tenth of the "
    "other value (of a bound on log Z, and of W2, of its distance from the best that can be); open "
    "where our own error, twice, leaves both possible. Values of one published run, or at another "
    "budget, are shown and not judged."
)

_SECONDS_OF_A_CELL = {"grid": 30.0, "diffusion": 130.0, "biochem": 30.0}
_MICROSECONDS: Mapping[str, tuple[float, float]] = {
    "grid-2x128": (191, 638),
    "grid-2x256": (371, 992),
    "grid-4x16": (114, 202),
    "grid-4x32": (284, 506),
    "25gmm": (1610, 2390),
    "40gmm": (1610, 2390),
    "manywell-32": (1900, 2900),
    "manywell-64": (2300, 3500),
    "manywell-128": (3200, 4800),
    "tfbind8": (160, 320),
    "l14-rna1": (300, 780),
    "qm9": (8_000, 17_300),
    "seh": (13_500, 27_000),
}
"""On two idle cores: of a trajectory in one step, without and with a Teacher, on grids where there
are two seeds or more, each with a core; and seconds of a cell to start, compile, evaluate and draw
its report. Those of sEH are of one run with a Teacher; without one it has half of the networks.
"""


def full(part: str, seeds: int = SEEDS) -> list[Suite]:
    """The paper's tables of a part, at the paper's budgets; 25GMM at the small one too."""
    if part == "grid":
        return [Suite(tasks=_GRIDS, methods=_ON_GRIDS, seeds=seeds)]
    if part == "biochem":
        tasks = ("qm9", "tfbind8", "l14-rna1", "seh")
        return [Suite(tasks=tasks, methods=_ON_STRINGS, seeds=seeds)]
    large = ("25gmm-paper", "manywell-32-paper")
    published = Suite(tasks=large, methods=_ON_VECTORS, seeds=seeds)
    own = Suite(
        tasks=(*large, "40gmm-paper", "manywell-64-paper", "manywell-128-paper"),
        methods=("didact",),
        seeds=seeds,
        steps=4_000,
        options=("batch-size=128",),
    )
    # At the small budget so few steps of our own ask for as many evaluations as the Teacher's.
    small = Suite(tasks=("25gmm-cpu",), methods=("tb", "tb-per", "teacher"), seeds=seeds)
    equal = Suite(
        tasks=("25gmm-cpu",),
        methods=("didact",),
        seeds=seeds,
        steps=700,
        options=("batch-size=128",),
    )
    return [published, own, small, equal]


def quick(part: str, seeds: int = QUICK_SEEDS) -> list[Suite]:
    """A few of them, for some minutes on two cores."""
    if part == "grid":
        methods = ("tb-prt", "teacher-per", "didact")
        return [Suite(tasks=("grid-4x16",), methods=methods, seeds=seeds, evaluations=4)]
    if part == "biochem":
        methods = ("tb-per", "didact")
        return [Suite(tasks=("tfbind8",), methods=methods, seeds=seeds, scale=0.15)]
    return [
        Suite(
            tasks=("25gmm-paper",),
            methods=("tb", "didact"),
            seeds=seeds,
            steps=100,
            evaluations=4,
            draws=2_500,
            options=("batch-size=50",),
        )
    ]


def left_out(part: str, seeds: int = QUICK_SEEDS) -> list[str]:
    """What `quick` leaves out of a part, in words."""
    whole, few = full(part), quick(part, seeds)
    lines = []
    for name in ("tasks", "methods"):
        there, here = (
            dict.fromkeys(item for suite in suites for item in getattr(suite, name))
            for suites in (whole, few)
        )
        missing = [item for item in there if item not in here]
        if missing:
            lines.append(f"{name} left out: {', '.join(missing)}")
    if seeds < SEEDS:
        lines.append(f"{seeds} seeds in place of {SEEDS}")
    for suite in few:
        if suite.scale is not None:
            lines.append(f"{100 * suite.scale:g} % of the steps")
        if suite.steps is not None:
            lines.append(f"{suite.steps:,} steps of {', '.join(suite.tasks)}")
        if suite.draws is not None:
            lines.append(f"{suite.draws:,} draws of the final statistics")
        lines += [f"{option} in place of the paper's" for option in suite.options]
    return lines


def estimate(cell: Cell) -> float | None:
    """About how many seconds a cell takes on two idle cores; None where that was not measured."""
    known = _MICROSECONDS.get(sized(cell.task)[0])
    if known is None:
        return None
    part = part_of(cell.task)
    taught = cell.method.startswith(("teacher", "one-sided", "didact"))
    each = known[1 if taught else 0]
    if cell.method in ("didact", "mutate", "teacher-floor"):
        # Half as many steps of a path, half as wide; or every other batch four times as large.
        each *= {"diffusion": 0.4, "biochem": 1.5, "grid": 3.0}[part]
    trajectories = cell.steps * cell.batch_size * len(cell.seeds)
    return _SECONDS_OF_A_CELL[part] + 1e-6 * each * trajectories


def plan(cells: Sequence[Cell]) -> tuple[Table, str]:
    """The cells of a reproduction with what they cost, and a sentence about all of them."""
    rows = []
    for cell in cells:
        seconds = estimate(cell)
        rows.append(
            (
                *(cell.task, cell.method, str(len(cell.seeds))),
                *(f"{cell.steps:,}", f"{cell.reward_calls:,}"),
                MISSING if seconds is None else duration(seconds),
            )
        )
    known = [seconds for cell in cells if (seconds := estimate(cell)) is not None]
    unknown = len(cells) - len(known)
    total = f"{len(cells)} cells, about {duration(sum(known, 0.0))} on two idle cores"
    if unknown:
        total += f", beside {unknown} whose time is not known"
    head = ("task", "method", "seeds", "steps", "reward calls", "estimate")
    return Table(head, tuple(rows)), f"{total}."


def part_of(task: str) -> str:
    """The part that a task belongs to.

    **Errors:** `ValueError` for an unknown task.
    """
    name = train_words(task)[0]
    if name == "grid":
        return "grid"
    from ..presets import DIFFUSION_TASKS

    return "diffusion" if name in DIFFUSION_TASKS else "biochem"


def in_order(cells: Iterable[Kept], parts: Sequence[str]) -> list[Kept]:
    """Kept runs of some parts: tasks and methods in the order of the paper's tables, others behind
    them.
    """
    suites = [suite for part in parts for suite in full(part)]
    tasks = list(dict.fromkeys(task for suite in suites for task in suite.tasks))
    methods = list(dict.fromkeys(method for suite in suites for method in suite.methods))

    def place(names: Sequence[str], name: str) -> int:
        return names.index(name) if name in names else len(names)

    def key(kept: Kept) -> tuple[int, str, int, str]:
        rank = place(methods, kept.method)
        return place(tasks, kept.task), kept.task, rank, kept.method

    return sorted((kept for kept in cells if _known_part(kept.task) in parts), key=key)


def _known_part(task: str) -> str | None:
    """The part of a task, None for one that this version does not have."""
    try:
        return part_of(task)
    except ValueError:
        return None


def grouped(cells: Sequence[Kept], parts: Sequence[str]) -> list[Group]:
    """The runs of each task, compared with the baseline of its part."""
    found = []
    for part in parts:
        here = [kept for kept in cells if _known_part(kept.task) == part]
        found += groups(here, BASELINES[part])
    return found


@dataclasses.dataclass(frozen=True)
class Agreement:
    """A value of others beside ours: `ours` in words, `apart` the difference, whether it is
    `within` the `tolerance`; None where that is not to be judged, `within` also where it is open.
    """

    reference: Reference
    ours: str
    apart: float | None
    tolerance: float | None
    within: bool | None
    other_budget: bool = False


def agreement(reference: Reference, kept: Kept | None) -> Agreement:
    """Compare a value with that of a kept run of the same method; `within` is None where that is
    not to be judged, or remains open.
    """
    found = None if kept is None else spread(per_seed(kept, reference.metric).values())
    if kept is None or found is None:
        return Agreement(reference, MISSING, None, None, None)
    ours, apart = value(kept, reference.metric), found.mean - reference.value
    if _other_budget(reference, kept):
        return Agreement(reference, ours, apart, None, None, other_budget=True)
    metric = BY_KEY.get(reference.metric)
    if reference.kind == "code" or metric is None or not metric.better:
        return Agreement(reference, ours, apart, None, None)
    own = 0.0 if math.isnan(found.error) else found.error
    if reference.error is not None:
        tolerance = 2 * math.hypot(reference.error, own)
        return Agreement(reference, ours, apart, tolerance, abs(apart) <= tolerance)
    tolerance = 0.1 * abs(reference.value - _best(reference.metric, kept))
    near, far = abs(apart) - 2 * own, abs(apart) + 2 * own
    within = True if far <= tolerance else False if near > tolerance else None
    return Agreement(reference, ours, apart, tolerance, within)


_BEST = {"elbo": "log_z_true", "eubo": "log_z_true", "w2": "w2_floor"}


def _best(metric: str, kept: Kept) -> float:
    """What a metric whose size says nothing would be at best; 0 for others, or if not known."""
    found = spread(per_seed(kept, _BEST[metric]).values()) if metric in _BEST else None
    return 0.0 if found is None else found.mean


def _other_budget(reference: Reference, kept: Kept) -> bool:
    calls, steps = reference.reward_calls, reference.steps
    if calls is not None and not math.isclose(kept.reward_calls, calls, rel_tol=0.01):
        return True
    return steps is not None and not math.isclose(kept.steps, steps, rel_tol=0.01)


def _references_of(task: str) -> list[Reference]:
    """Values of others for a task: at the small budget of vectors nobody else has any."""
    name, size = sized(task)
    found = references(name)
    return [r for r in found if r.kind == "exact"] if size == "cpu" else list(found)


def beside(task: str, cells: Mapping[str, Kept]) -> Table | None:
    """What others measured on a task beside ours, one value a row; None where there is none."""
    found = [
        agreement(reference, cells.get(reference.method))
        for reference in _references_of(task)
        if reference.kind != "exact"
    ]
    if not found:
        return None
    head = ("method", "metric", "published", "published code", "didact", "less theirs", "tolerance")
    rows = (
        (
            each.reference.method,
            BY_KEY[each.reference.metric].title,
            *_columns(each.reference),
            each.ours,
            MISSING if each.apart is None else number(each.apart, signed=True),
            _judged(each),
        )
        for each in found
    )
    return Table(head, tuple(rows))


def write_agreements(path: Path, cells: Sequence[Kept], parts: Sequence[str]) -> None:
    """Write every value of others beside ours as JSON."""
    rows = []
    for group in grouped(cells, parts):
        methods = {kept.method: kept for kept in group.cells}
        for reference in _references_of(group.task):
            kept = methods.get(reference.method)
            each = agreement(reference, kept)
            ours = None if kept is None else list(per_seed(kept, reference.metric).values())
            told = {"ours": ours, "difference": each.apart, "tolerance": each.tolerance}
            told |= {"within": each.within, "other_budget": each.other_budget, "task": group.task}
            rows.append(reference._asdict() | told)
    value = {"format_version": 1, "parts": list(parts), "tolerance": TOLERANCE, "values": rows}
    text = json.dumps(finite_or_none(value), indent=1, allow_nan=False)
    make_folder(path.parent)
    with write_whole(path) as file:
        file.write(f"{text}\n".encode())


def _columns(reference: Reference) -> tuple[str, str]:
    text = _as_given(reference.value)
    if reference.error is not None:
        text += f" ± {_as_given(reference.error)}"
    if reference.kind == "code":
        return MISSING, text
    return f"{text} (quoted)" if reference.kind == "quoted" else text, MISSING


def _as_given(value: float | None) -> str:
    """A value with the digits that it was given with."""
    if value is None:
        return MISSING
    digits = len(f"{value:.9e}".partition("e")[0].strip("-").rstrip("0").replace(".", ""))
    return number(value, digits=max(1, digits))


def _judged(each: Agreement) -> str:
    if each.other_budget:
        return "other budget"
    if each.tolerance is None:
        return MISSING
    judged = "open" if each.within is None else "within" if each.within else "beyond"
    return f"{number(each.tolerance, digits=2)}: {judged}"


def exactly(task: str) -> Table | None:
    """What is known exactly of a task; None where nothing is."""
    found = [reference for reference in _references_of(task) if reference.kind == "exact"]
    if not found:
        return None
    metrics = list(dict.fromkeys(reference.metric for reference in found))
    by_method: dict[str, dict[str, float]] = {}
    for reference in found:
        by_method.setdefault(reference.method, {})[reference.metric] = reference.value
    rows = (
        (method, *(_as_given(values.get(metric)) for metric in metrics))
        for method, values in by_method.items()
    )
    return Table(("known exactly", *(_title(metric) for metric in metrics)), tuple(rows))


def _title(metric: str) -> str:
    return BY_KEY[metric].title if metric in BY_KEY else {"log_z": "log Z"}[metric]


def chapters(cells: Sequence[Kept], parts: Sequence[str]) -> list[Chapter]:
    """A chapter for each task that has runs or reference values, and the notes of each part."""
    found = []
    for part in parts:
        here = {group.task: group for group in grouped(cells, [part])}
        planned = [task for suite in full(part) for task in suite.tasks]
        for task in dict.fromkeys((*planned, *here)):
            group = here.get(task)
            methods = {} if group is None else {kept.method: kept for kept in group.cells}
            tables = [t for t in (beside(task, methods), exactly(task)) if t is not None]
            if group is not None:
                own = chapter_of(group)
                found.append(dataclasses.replace(own, tables=(*tables, *own.tables)))
            elif tables:
                text = ("There is no run of didact's here.",)
                found.append(Chapter(f"task-{task}", task, text, tuple(tables)))
        found.append(Chapter(f"notes-{part}", f"{PARTS[part]}: divergences", notes=notes(part)))
    return found


def page(
    cells: Sequence[Kept],
    parts: Sequence[str],
    *,
    omitted: Sequence[str],
    warnings: Sequence[str],
    command: str,
) -> Comparison:
    """The page of a reproduction."""
    origins = dict.fromkeys(
        f"{KINDS[reference.kind]}: {reference.origin}."
        for reference in references()
        if _known_part(reference.task) in parts
    )
    sources = Chapter("origins", "Where other values are from", (TOLERANCE,), notes=tuple(origins))
    missing = (Chapter("omitted", "What is left out", notes=tuple(omitted)),) if omitted else ()
    repeat = Chapter("repeat", "Repeat", commands=((command, "made this page"),))
    return Comparison(
        title=f"The paper’s tables: {', '.join(PARTS[part] for part in parts)}",
        kicker="didact · reproduction",
        lead=(
            "Published values, those of the published code where it was run, and didact’s own, "
            "with what the two differ in. " + READING[0]
        ),
        facts=(("Runs", str(len(cells))), ("Tasks", str(len({kept.task for kept in cells})))),
        warnings=tuple(warnings),
        chapters=(
            *missing,
            *chapters(cells, parts),
            Chapter("reading", "How to read this", READING),
            sources,
            repeat,
        ),
    )


def markdown(cells: Sequence[Kept], parts: Sequence[str], *, short: bool = False) -> str:
    """The tables in Markdown: of each task a line about it, the methods, differences where seeds
    are several, and values of others.

    **Arguments:** `short`: fewer columns.
    """
    return "\n\n".join(markdown_of(group, short=short) for group in grouped(cells, parts))


def markdown_of(group: Group, *, short: bool = False) -> str:
    """The tables of one task."""
    methods = {kept.method: kept for kept in group.cells}
    tables = (
        table(group, short=short),
        differences(group, short=True),
        beside(group.task, methods),
    )
    about_it = f"**{group.task}**: {' '.join(about(group))}"
    return "\n\n".join((about_it, *(found.markdown() for found in tables if found is not None)))


def remarks(parts: Sequence[str]) -> str:
    """In Markdown: how values are judged, and in what the experiments of each part differ from the
    published ones.
    """
    blocks = [TOLERANCE]
    for part in parts:
        listed = "\n".join(f"- {note}" for note in notes(part))
        blocks.append(f"**{PARTS[part]}: divergences**\n\n{listed}")
    return "\n\n".join(blocks)
