"""The chapter with the numbers of the verdict, of objects that can be counted."""

from collections.abc import Sequence

import numpy as np

from . import _verdict as verdict
from ._appendix import shortened
from ._html import Html, markup, tag
from ._numbers import mean, mean_and_error, value_and_error
from ._parts import metric_row, metric_table
from ._read import RunData, scalar, values


def metrics(run: RunData, rows: Sequence[verdict.Metric], rule: str) -> Html:
    """The table of `rows`; `rule` says where the lines between the verdicts are."""
    if not rows:
        return tag("p", "There is no evaluation in this folder.")
    per_seed = ("Per seed",) if run.num_seeds > 1 else ()
    head = ("Metric", "Perfect sampler", "Student", *per_seed, "Meaning")
    table = metric_table(head, (_metric_row(m, run) for m in rows))
    return markup(tag("p", _metrics_lead(run)), table, tag("p", rule, class_="small"))


def _metrics_lead(run: RunData) -> str:
    final = run.final
    spread = (
        f"Mean ± standard error over {run.num_seeds} seeds. "
        if run.num_seeds > 1
        else "One seed: nothing here says how much another seed would differ. "
    )
    if final.get("exact") is True:
        return spread + (
            "Unless a row speaks of draws or of training, the numbers are exact: computed from "
            + "the probabilities of all objects, without sampling."
        )
    reason = final.get("reason")
    because = f": {shortened(reason)}" if isinstance(reason, str) and reason else "."
    text = f"{spread}These numbers are not exact{because}"
    if final.get("exact") is False:
        text += (
            " Unless a row speaks of training, they come from draws of the Student and say "
            + "nothing of what it never draws"
        )
        known = scalar(final, "log_z_true") is not None
        text += ", but for how far the ELBO is from the true log Z." if known else "."
    if mean(values(final, "elbo_standard_error")) is not None:
        of = "one seed’s ELBO" if run.num_seeds > 1 else "the ELBO"
        text += f" The ± of {of} is the standard error of its draws."
    return text


def _metric_row(metric: verdict.Metric, run: RunData) -> Html:
    entries = values(run.final, metric.key)
    errors = verdict.errors_of_draws(metric, run.final, entries.size)

    def write(value: float, error: float) -> str:
        return value_and_error(value, error, signed=metric.signed)

    own, each = mean_and_error(entries, signed=metric.signed), ""
    if run.num_seeds > 1:
        each = ", ".join(map(write, entries, errors))
    elif entries.size == 1 and np.isfinite(entries[0]):
        own = write(entries[0], errors[0])
    several = run.num_seeds > 1
    return metric_row(
        metric.name, metric.perfect(run.final), own, each if several else None, metric.meaning
    )
