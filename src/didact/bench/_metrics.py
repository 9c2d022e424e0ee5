"""The numbers of a verdict that comparisons show: which, in what order, under what name."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ._kept import Kept


class Metric(NamedTuple):
    """A number of the verdict; `better`: where a better sampler has it: "more", "less", or "near
    0".
    """

    key: str
    title: str
    better: str


METRICS = (
    Metric("modes_found", "modes found", "more"),
    Metric("modes_found_student", "by the Student", "more"),
    Metric("modes_held", "modes held", "more"),
    Metric("mode_mass_recall", "mode-mass recall", "more"),
    Metric("tv", "total variation", "less"),
    Metric("log_z_error", "log Z error", "near 0"),
    Metric("elbo", "ELBO", "more"),
    Metric("eubo", "EUBO", "less"),
    Metric("log_z_estimate", "log Z, weighted", "near log Z"),
    Metric("ess", "ESS", "more"),
    Metric("k_hat", "k-hat", "less"),
    Metric("w2", "W2", "less"),
    Metric("w2_floor", "W2 of the target itself", ""),
    Metric("modes_reached", "modes reached", "more"),
    Metric("log_likelihood", "log-likelihood", "more"),
    Metric("distinct", "different objects", ""),
    Metric("spearman", "Spearman", "more"),
    Metric("mean_value", "mean value", "near the target's"),
    Metric("top_value", "best 100", "more"),
    Metric("missed_mass", "missed mass", "less"),
    Metric("mode_mass", "mass on modes", "near the target's"),
    Metric("empirical_l1", "empirical L1", "near its floor"),
    Metric("kl", "KL", "less"),
    Metric("jsd", "JSD", "less"),
    Metric("elbo_gap", "log Z − ELBO", "less"),
    Metric("eubo_gap", "EUBO − log Z", "less"),
    Metric("log_z_gap", "log Z − weighted estimate", "near 0"),
)
BY_KEY = {metric.key: metric for metric in METRICS}

_SHORT = {
    "grid": ("modes_found", "modes_held", "mode_mass_recall", "tv", "log_z_error", "eubo"),
    "strings": (
        *("modes_found", "modes_held", "mode_mass_recall", "tv", "log_z_error"),
        *("elbo", "eubo", "mean_value"),
    ),
    "vectors": ("elbo", "eubo", "log_z_estimate", "ess", "w2", "modes_reached"),
}
_MORE = {
    "grid": ("modes_found_student", "elbo", "missed_mass", "empirical_l1"),
    "strings": ("distinct", "spearman", "top_value", "missed_mass"),
    "vectors": ("w2_floor", "k_hat", "log_likelihood", "log_z_error", "modes_found"),
}
"""By the kind of object: the columns of a table that fits a terminal, and the others."""

_GAPS = {
    "elbo_gap": ("log_z_true", "elbo"),
    "eubo_gap": ("eubo", "log_z_true"),
    "log_z_gap": ("log_z_true", "log_z_estimate"),
}
_SHARED = ("format_version", "step", "steps", "num_draws", "num_scored")


def per_seed(kept: Kept, key: str) -> dict[int, float]:
    """A metric by seed: what is finite, gaps to the true log Z among it."""
    if key in _GAPS:
        first, second = (per_seed(kept, part) for part in _GAPS[key])
        return {seed: first[seed] - second[seed] for seed in first.keys() & second.keys()}
    entry = kept.verdict.get(key)
    values = entry if isinstance(entry, list) else [entry] * len(kept.seeds)
    return {
        seed: float(value)
        for seed, value in zip(kept.seeds, values, strict=False)
        if isinstance(value, int | float) and math.isfinite(value)
    }


def all_values(kept: Kept) -> dict[str, list[float | None]]:
    """Every number that the verdict has of each seed, in the order of its seeds."""
    verdict: Mapping[str, Any] = kept.verdict
    names = [name for name, value in verdict.items() if isinstance(value, list)]
    named = {name: per_seed(kept, name) for name in (*names, *_GAPS) if name != "seeds"}
    return {
        name: [values.get(seed) for seed in kept.seeds]
        for name, values in named.items()
        if values and name not in _SHARED
    }


def kind_of(cells: Iterable[Kept]) -> str:
    """Of what kind the objects are: "strings", "vectors", or "grid" for others."""
    for kept in cells:
        if per_seed(kept, "mean_value"):
            return "strings"
        if not kept.verdict.get("exact") and not kept.task.startswith("grid-"):
            return "vectors"
    return "grid"


def columns(cells: Iterable[Kept], *, short: bool) -> list[Metric]:
    """The metrics that some of the cells have, those of a short table first."""
    cells = list(cells)
    kind = kind_of(cells)
    wanted = _SHORT[kind] + (() if short else _MORE[kind])
    return [BY_KEY[key] for key in wanted if any(per_seed(kept, key) for kept in cells)]
