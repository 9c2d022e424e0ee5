"""The verdict as a table."""

from collections.abc import Mapping
from typing import Any

from ._process import note, show

_ROWS = {
    "total variation": "tv",
    "KL(target, Student), nats": "kl",
    "true log Z": "log_z_true",
    "error of learned log Z": "log_z_error",
    "learned log Z": "log_z",
    "log Z from weighted draws": "log_z_estimate",
    "ELBO, at most log Z": "elbo",
    "EUBO, at least log Z": "eubo",
    "effective share of draws": "ess",
    "k-hat of weights (good: < 0.7)": "k_hat",
    "Wasserstein-2 distance": "w2",
    "  of exact samples": "w2_floor",
    "sliced Wasserstein-2": "sliced_w2",
    "squared MMD": "mmd_squared",
    "log-likelihood of samples": "log_likelihood",
    "modes found in training": "modes_found",
    "  by the Student's batches": "modes_found_student",
    "modes held by the Student": "modes_held",
    "modes among final draws": "modes_reached",
    "entropic mode coverage": "entropic_mode_coverage",
    "divergence of modes, bits": "mode_divergence",
    "mode-mass recall": "mode_mass_recall",
    "share of draws in modes": "mode_mass",
    "empirical L1": "empirical_l1",
}
_ONLY_BY_SAMPLES = frozenset(
    ("log_z_true", "log_z", "log_z_estimate", "ess", "modes_reached", "mode_mass")
)
"""Of no use beside an exact verdict."""
_INTERVALS = {
    "elbo": ("elbo_low", "elbo_high"),
    "eubo": ("eubo_low", "eubo_high"),
    "log_z_estimate": ("log_z_low", "log_z_high"),
}


def say_reason(verdict: Mapping[str, Any]) -> None:
    """Note why a verdict is not exact, where there is something to say."""
    if verdict["reason"]:
        note(f"didact: {verdict['reason']} The verdict is by samples.")


def print_verdict(verdict: Mapping[str, Any]) -> None:
    """Show what is known: the mean, and each seed or, of many, the lowest and the highest."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Verdict" + ("" if verdict["exact"] else " (by samples)"))
    seeds = verdict["seeds"]
    few = len(seeds) <= 3  # more would not fit beside one another
    each = [f"seed {seed}" for seed in seeds] if few else ["lowest", "highest"]
    last = ["90 % interval"] if len(seeds) == 1 and _interval(verdict, "elbo") else []
    for heading in ("", "mean", *each, *last):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for label, name in _ROWS.items():
        values = _per_seed(verdict, name)
        present = [value for value in values if value is not None]
        if not present or (verdict["exact"] and name in _ONLY_BY_SAMPLES):
            continue
        shown = values if few else [min(present), max(present)]
        table.add_row(
            label,
            _number(sum(present) / len(present)),
            *("–" if value is None else _number(value) for value in shown),
            *([_interval(verdict, name)] if last else []),
        )
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)
    if verdict["num_modes"] is not None:
        show(f"The target has {verdict['num_modes']:,} modes.")


def _per_seed(verdict: Mapping[str, Any], name: str) -> list[Any]:
    """The values of a metric; one that all seeds share is repeated."""
    value = verdict.get(name)
    return value if isinstance(value, list) else [value] * len(verdict["seeds"])


def _interval(verdict: Mapping[str, Any], name: str) -> str:
    """The interval of the first seed; empty where there is none."""
    ends = [_per_seed(verdict, end)[0] for end in _INTERVALS.get(name, ())]
    if not ends or None in ends:
        return ""
    return " to ".join(map(_number, ends))


def _number(value: float | int) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
