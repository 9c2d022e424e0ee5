"""Kept runs of one task beside one another: tables, differences, curves."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..report import Chapter, Chart, Table
from ..report._numbers import MISSING, duration, mean_and_error, number, one
from ..report._read import scalar, values
from ._kept import Kept
from ._metrics import BY_KEY, Metric, columns, kind_of, per_seed
from ._statistics import LEVEL, Difference, paired

_AXES = (
    ("reward_calls", "reward calls"),
    ("step", "gradient steps"),
    ("seconds", "seconds of training"),
)


@dataclasses.dataclass(frozen=True)
class Group:
    """Kept runs of one task, in the order in which they are shown; `labels` name them."""

    task: str
    cells: tuple[Kept, ...]
    labels: tuple[str, ...]
    baseline: int = 0

    @property
    def base(self) -> Kept:
        """The run that the others are compared with."""
        return self.cells[self.baseline]

    def others(self) -> list[tuple[str, Kept]]:
        """The runs beside it."""
        named = zip(self.labels, self.cells, strict=True)
        return [pair for i, pair in enumerate(named) if i != self.baseline]


def groups(cells: Sequence[Kept], baseline: str | None = None) -> list[Group]:
    """The runs of each task; those are compared with the method `baseline`, where it is there, else
    with the first.
    """
    found = []
    for task in dict.fromkeys(kept.task for kept in cells):
        here = tuple(kept for kept in cells if kept.task == task)
        labels = tuple(kept.method for kept in here)
        found.append(Group(task, here, labels, labels.index(baseline) if baseline in labels else 0))
    return found


def table(group: Group, *, short: bool) -> Table:
    """Mean ± standard error over the seeds of each run, with what it cost."""
    shown = columns(group.cells, short=short)
    head = ("method", "n", "reward calls", "steps", "training")
    rows = (
        (label, *_costs(kept), *(value(kept, metric.key) for metric in shown))
        for label, kept in zip(group.labels, group.cells, strict=True)
    )
    return Table((*head, *(metric.title for metric in shown)), tuple(rows))


def across(
    found: Sequence[Group], key: str, methods: Sequence[str], *, less: str | None = None
) -> Table:
    """One metric of several methods on several tasks: mean ± standard error over the seeds.

    **Arguments:** `key` of the metric; `less`: a method from which the others are told, as paired
    differences with intervals.
    """
    metric = BY_KEY[key]

    def column(group: Group) -> list[str]:
        known = {kept.method: kept for kept in group.cells}
        if less is None:
            return [value(known[m], key) if m in known else MISSING for m in methods]
        base = known.get(less)
        pairs = [(known.get(method), base) for method in methods]
        return [
            difference_in_words(difference(kept, base, metric) if kept and base else None)
            for kept, base in pairs
        ]

    columns_of = [column(group) for group in found]
    title = metric.title if less is None else f"{metric.title}, less {less}"
    rows = tuple(zip(methods, *columns_of, strict=True))
    return Table((title, *(group.task for group in found)), rows)


def differences(group: Group, *, short: bool) -> Table | None:
    """Each run less the baseline, seed by seed, with intervals; None where no seeds are shared."""
    shown = columns(group.cells, short=short)
    base, rows = group.base, []
    for label, kept in group.others():
        found = [difference(kept, base, metric) for metric in shown]
        if any(found):
            most = max(each.n for each in found if each)
            rows.append((label, str(most), *map(difference_in_words, found)))
    if not rows:
        return None
    first = f"less {group.labels[group.baseline]}"
    return Table((first, "pairs", *(metric.title for metric in shown)), tuple(rows))


def difference(kept: Kept, base: Kept, metric: Metric) -> Difference | None:
    """A run less another in one metric, over the seeds that both have."""
    return paired(per_seed(kept, metric.key), per_seed(base, metric.key))


def difference_in_words(found: Difference | None) -> str:
    """The mean with its interval; a star where that leaves 0 out."""
    if found is None:
        return MISSING
    text = one(found.mean, signed=True)
    if not math.isfinite(found.low):
        return text
    digits = _decimals(found)
    ends = f"[{_fixed(found.low, digits)}, {_fixed(found.high, digits)}]"
    apart = found.low > 0 or found.high < 0
    return f"{_fixed(found.mean, digits)} {ends}{'*' if apart else ''}"


def value(kept: Kept, key: str) -> str:
    """Mean ± standard error of a metric, a dash where there is none."""
    found = np.array(list(per_seed(kept, key).values()), dtype=np.float64)
    if not found.size:
        return MISSING
    missing = len(kept.seeds) - found.size
    told = f" ({found.size} of {len(kept.seeds)})" if missing else ""
    return mean_and_error(found) + told


def about(group: Group) -> tuple[str, ...]:
    """A sentence about the target, as the verdicts say; none where they say nothing."""
    verdict = group.cells[0].verdict
    modes, mass, log_z, floor = (
        scalar(verdict, name)
        for name in ("num_modes", "mode_mass_target", "log_z_true", "empirical_l1_floor")
    )
    parts = []
    if modes is not None:
        share = "" if mass is None or mass > 0.995 else f" with {100 * mass:.3g} % of the mass"
        parts.append(f"{number(modes)} modes{share}")
    if log_z is not None:
        parts.append(f"log Z = {number(log_z, digits=6)}")
    if floor is not None:
        parts.append(f"a perfect sampler's empirical L1 is {number(floor)}")
    known = "; ".join(parts)
    return (f"{known[0].upper()}{known[1:]}.",) if known else ()


def chapter(group: Group, *, title: str | None = None) -> Chapter:
    """All of it, for a page."""
    found = [table(group, short=False)]
    apart = differences(group, short=False)
    if apart is not None:
        found.append(
            dataclasses.replace(
                apart,
                caption=f"Paired differences, {LEVEL:.0%} intervals".replace("%", " %"),
            )
        )
    return Chapter(
        key=f"task-{group.task}",
        heading=title or group.task,
        text=about(group),
        tables=tuple(found),
        charts=tuple(charts(group)),
    )


def charts(group: Group) -> list[Chart]:
    """Modes found, and total variation or the gap of the EUBO, against each cost."""
    found: list[Chart] = []
    for by, against in _AXES:
        for key, title, log in _quantities(group):
            courses = tuple(
                (label, tuple(_gap(kept, row) for row in kept.curves))
                for label, kept in zip(group.labels, group.cells, strict=True)
            )
            found.append(
                Chart(
                    name=f"{group.task}-{key}-{by}",
                    title=f"{title} against {against}",
                    ylabel=title,
                    key=key,
                    courses=courses,
                    by=by,
                    against=against,
                    log=log,
                    reference=_reference(group, key),
                )
            )
    return found


def _quantities(group: Group) -> list[tuple[str, str, bool]]:
    """What is drawn: key, title, and whether on a logarithmic scale."""
    kind = kind_of(group.cells)
    if kind == "vectors":
        known = any(scalar(kept.verdict, "log_z_true") is not None for kept in group.cells)
        gaps = [("eubo_gap", "EUBO − log Z", True), ("elbo_gap", "log Z − ELBO", True)]
        return gaps if known else [("elbo", "ELBO", False)]
    exact = any("tv" in row for kept in group.cells for row in kept.curves)
    second = ("tv", "total variation", kind == "grid") if exact else ("elbo", "ELBO", False)
    return [("modes_found", "modes found", False), second]


def _gap(kept: Kept, row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row of curves with its distances from the true log Z, where that is known."""
    log_z = scalar(kept.verdict, "log_z_true")
    if log_z is None:
        return row
    gaps = {"eubo_gap": ("eubo", 1), "elbo_gap": ("elbo", -1)}
    return dict(row) | {
        gap: [None if math.isnan(v) else sign * (v - log_z) for v in values(row, key).tolist()]
        for gap, (key, sign) in gaps.items()
        if key in row
    }


def _reference(group: Group, key: str) -> tuple[float, str] | None:
    modes = scalar(group.cells[0].verdict, "num_modes")
    return (modes, f"all {number(modes)}") if key == "modes_found" and modes else None


def _costs(kept: Kept) -> tuple[str, ...]:
    calls, seconds = kept.reward_calls, scalar(kept.verdict, "training_seconds")
    return (
        str(len(kept.seeds)),
        f"{calls:,.0f}" if math.isfinite(calls) else MISSING,
        f"{kept.steps:,}",
        MISSING if seconds is None else duration(seconds),
    )


def _decimals(found: Difference) -> int:
    """So many that half the interval has two significant digits."""
    half = (found.high - found.low) / 2
    if not half > 0:
        return 0 if found.mean == int(found.mean) else 3
    return max(0, 1 - math.floor(math.log10(half)))


def _fixed(value: float, decimals: int) -> str:
    if decimals > 6:
        return number(value, signed=True)
    text = f"{value:+,.{decimals}f}".replace("-", "−")
    return "0" if value == 0 else text
