"""The verdict as a table."""

from collections.abc import Callable, Mapping
from typing import Any

from ._process import note, show

Perfect = Callable[[Mapping[str, Any]], float | int | str | None]


def _shared(key: str) -> Perfect:
    """What a perfect sampler scores where the verdict says so, on average over the seeds."""

    def read(verdict: Mapping[str, Any]) -> float | int | None:
        known = [value for value in _per_seed(verdict, key) if value is not None]
        return sum(known) / len(known) if known else None

    return read


_ROWS: dict[str, tuple[str, Perfect | float | int | str | None]] = {
    "total variation": ("tv", 0),
    "KL(target, Student), nats": ("kl", 0),
    "mass given less than half": ("missed_mass", 0),
    "error of learned log Z": ("log_z_error", 0),
    "learned log Z": ("log_z", _shared("log_z_true")),
    "log Z from weighted draws": ("log_z_estimate", _shared("log_z_true")),
    "ELBO, at most log Z": ("elbo", _shared("log_z_true")),
    "EUBO, at least log Z": ("eubo", _shared("log_z_true")),
    "mean value of draws": ("mean_value", _shared("expected_value")),
    "  of the best 100": ("top_value", None),
    "  their mean edit distance": ("top_distance", None),
    "rank correlation with reward": ("spearman", 1),
    "effective share of draws": ("ess", 1),
    "k-hat of weights": ("k_hat", "< 0.7"),
    "Wasserstein-2 distance": ("w2", _shared("w2_floor")),
    "sliced Wasserstein-2": ("sliced_w2", None),
    "squared MMD": ("mmd_squared", 0),
    "log-likelihood of samples": ("log_likelihood", None),
    "modes found in training": ("modes_found", _shared("num_modes")),
    "  by the Student's batches": ("modes_found_student", _shared("num_modes")),
    "modes held by the Student": ("modes_held", _shared("num_modes")),
    "modes among final draws": ("modes_reached", _shared("modes_reached_perfect")),
    "entropic mode coverage": ("entropic_mode_coverage", None),
    "divergence of modes, bits": ("mode_divergence", 0),
    "mode-mass recall": ("mode_mass_recall", 1),
    "share of draws in modes": ("mode_mass", _shared("mode_mass_target")),
    "empirical L1": ("empirical_l1", _shared("empirical_l1_floor")),
    "different objects asked for": ("distinct", None),
    "objects set aside": ("failures", None),
}
"""Metrics by their names, and what a perfect sampler scores."""
_ONLY_BY_SAMPLES = frozenset(("log_z", "log_z_estimate", "ess", "modes_reached"))
"""Of no use beside an exact verdict."""
_INTERVALS = {
    "elbo": ("elbo_low", "elbo_high"),
    "eubo": ("eubo_low", "eubo_high"),
    "log_z_estimate": ("log_z_low", "log_z_high"),
    "modes_held": ("modes_held_low", "modes_held_high"),
    "mode_mass_recall": ("mode_mass_recall_low", "mode_mass_recall_high"),
}


def say_reason(verdict: Mapping[str, Any]) -> None:
    """Note why a verdict is not exact, where there is something to say."""
    if verdict["reason"]:
        note(f"didact: {verdict['reason']} The verdict is by samples.")


def print_verdict(verdict: Mapping[str, Any]) -> None:
    """Show what is known, beside what a perfect sampler scores: one seed; or of several the mean
    and each, or of many the lowest and the highest.
    """
    from rich.console import Console
    from rich.table import Table

    show(_title(verdict))
    table = Table()
    seeds = verdict["seeds"]
    few = len(seeds) <= 3  # more would not fit beside one another
    each = [f"seed {seed}" for seed in seeds] if few else ["lowest", "highest"]
    mean = ["mean"] if len(seeds) > 1 else []
    last = ["90 % interval"] if len(seeds) == 1 and _interval(verdict, "elbo") else []
    for heading in ("", "perfect", *mean, *each, *last):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for label, (name, perfect) in _ROWS.items():
        values = _per_seed(verdict, name)
        present = [value for value in values if value is not None]
        if not present or (verdict["exact"] and name in _ONLY_BY_SAMPLES):
            continue
        shown = values if few else [min(present), max(present)]
        table.add_row(
            label,
            _cell(perfect(verdict) if callable(perfect) else perfect),
            *([_number(sum(present) / len(present))] if mean else []),
            *map(_cell, shown),
            *([_interval(verdict, name)] if last else []),
        )
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)
    if verdict["num_modes"] is not None:
        mass = verdict.get("mode_mass_target")
        share = ""
        if mass is not None and mass < 0.995:
            share = f", with {100 * mass:.3g} % of its probability"
        show(f"The target has {verdict['num_modes']:,} modes{share}.")


def _title(verdict: Mapping[str, Any]) -> str:
    """What was judged: a run that is not at its end says so."""
    title = "Verdict" + ("" if verdict["exact"] else " (by samples)")
    if verdict.get("finished", True):
        return title
    planned = verdict.get("steps")
    of_all = "" if planned is None else f" of {planned:,}"
    return f"{title} at step {verdict['step']:,}{of_all} (unfinished)"


def _per_seed(verdict: Mapping[str, Any], name: str) -> list[Any]:
    """The values of a metric; one that all seeds share is repeated."""
    value = verdict.get(name)
    return value if isinstance(value, list) else [value] * len(verdict["seeds"])


def _interval(verdict: Mapping[str, Any], name: str) -> str:
    """The interval of the first seed; empty where there is none, or the value is exact."""
    if verdict["exact"]:
        return ""
    ends = [_per_seed(verdict, end)[0] for end in _INTERVALS.get(name, ())]
    if not ends or None in ends:
        return ""
    return " to ".join(map(_number, ends))


def _cell(value: float | int | str | None) -> str:
    return "–" if value is None else value if isinstance(value, str) else _number(value)


def _number(value: float | int) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
