"""The verdict on a run over vectors: what each number means, and the whole in words.

Nothing here is exact: the numbers come from draws of the Student and, where the target can be
sampled, from exact samples.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ._numbers import count, mean, number, one, percent
from ._read import Record, RunData, scalar, values
from ._verdict import Verdict, num_modes

# The lines between the three verdicts: share of the modes reached, and nats between the bounds.
GOOD_REACHED, POOR_REACHED, POOR_FACTOR = 0.95, 0.5, 5.0
GOOD_K_HAT = 0.7


@dataclass(frozen=True)
class Metric:
    """One row of the table of the verdict.

    `perfect` maps the final evaluation to what a perfect sampler scores, as text; `interval` names
    the keys of a 90 % interval; `signed` metrics are differences.
    """

    key: str
    name: str
    meaning: str
    perfect: Callable[[Record], str]
    interval: tuple[str, str] | None = None
    signed: bool = False


def _constant(text: str) -> Callable[[Record], str]:
    return lambda _: text


def _from(key: str, otherwise: str = "not known") -> Callable[[Record], str]:
    def write(final: Record) -> str:
        value = scalar(final, key)
        return otherwise if value is None else one(value)

    return write


_LOG_Z = _from("log_z_true", "log Z, not known")

METRICS: tuple[Metric, ...] = (
    Metric(
        "elbo",
        "ELBO",
        "A lower bound on log Z: the mean log weight of paths that the Student draws. Blind to "
        + "regions it never draws.",
        _LOG_Z,
        ("elbo_low", "elbo_high"),
    ),
    Metric(
        "eubo",
        "EUBO",
        "An upper bound on log Z: the mean log weight of paths drawn backwards from exact samples. "
        + "It rises with everything that the Student draws too rarely, so a missed region shows.",
        _LOG_Z,
        ("eubo_low", "eubo_high"),
    ),
    Metric(
        "log_z_estimate",
        "Log Z from weighted draws",
        "The logarithm of the mean weight: closer to log Z than the ELBO, and blind to the same "
        + "regions. Its interval can be trusted where k̂ is small.",
        _LOG_Z,
        ("log_z_low", "log_z_high"),
    ),
    Metric(
        "log_z",
        "Learned log Z",
        "The number that the Student learned as one of its parameters.",
        _LOG_Z,
    ),
    Metric(
        "log_z_error",
        "Error of learned log Z",
        "Learned minus true value.",
        _constant("0"),
        signed=True,
    ),
    Metric(
        "ess",
        "Effective sample size",
        "As a share of the draws: so many exact draws would be worth as much as the weighted "
        + "ones. High also where regions are never drawn.",
        _constant("1"),
    ),
    Metric(
        "k_hat",
        "k̂ of the weights",
        "How heavy the tail of the weights is. Below 0.7 weighted averages can be trusted; above, "
        + "a few draws carry most of the weight, and more draws hardly help.",
        _constant("< 0.7"),
    ),
    Metric(
        "w2",
        "Wasserstein-2 distance",
        "How far, on root-mean-square average, draws of the Student must be moved to become exact "
        + "samples. It depends on how many are compared, so read it beside what exact samples "
        + "score against others.",
        _from("w2_floor"),
    ),
    Metric(
        "sliced_w2",
        "Sliced Wasserstein-2",
        "The same along random directions: less noise, and less to see of single regions.",
        _constant("near 0"),
    ),
    Metric(
        "mmd_squared",
        "Squared maximum mean discrepancy",
        "The square of the largest difference of means that smooth functions find between draws "
        + "and exact samples; noise can make it negative.",
        _constant("0, give or take noise"),
    ),
    Metric(
        "log_likelihood",
        "Log-likelihood of exact samples",
        "How probable the Student makes exact samples, on average, in nats: missing a region is "
        + "punished hard.",
        _constant("the higher, the better"),
    ),
    Metric(
        "modes_reached",
        "Modes among final draws",
        "Distinct modes that draws of the Student fall into; a perfect sampler, too, can miss rare "
        + "ones in so many draws.",
        _from("modes_reached_perfect"),
    ),
    Metric(
        "entropic_mode_coverage",
        "Entropic mode coverage",
        "How evenly the draws are spread over the modes: 1 if all are drawn equally often, 0 if "
        + "only one is drawn.",
        _constant("1, where modes weigh alike"),
    ),
    Metric(
        "mode_divergence",
        "Divergence of the modes (bits)",
        "How far the shares of the modes among the draws are from those of the target: 0 where "
        + "they agree, 1 where they share no mode.",
        _constant("0"),
    ),
    Metric(
        "mode_mass",
        "Share of draws in modes",
        "How often a draw of the Student lies in any mode.",
        _from("mode_mass_target"),
    ),
    Metric(
        "modes_found",
        "Modes found in training",
        "Modes visited at least once by any source of training paths. Says where training looked, "
        + "not what the Student learned.",
        _from("num_modes"),
    ),
    Metric(
        "modes_found_student",
        "… by the Student’s own paths",
        "The part of it that the Student itself walked to.",
        _from("num_modes"),
    ),
)


def table(final: Record) -> list[Metric]:
    """The rows for which there are numbers."""
    return [m for m in METRICS if np.isfinite(values(final, m.key)).any()]


def all_reachable(run: RunData) -> bool:
    """Whether the draws are enough to count modes: exact samples reach nearly all, or, where there
    are none, there are a hundred draws for each mode.
    """
    modes, perfect = num_modes(run), scalar(run.final, "modes_reached_perfect")
    draws = scalar(run.final, "num_draws")
    if perfect is None:
        return bool(modes and draws and draws >= 100 * modes)
    return bool(modes and perfect >= GOOD_REACHED * modes)


def reached(run: RunData) -> float | None:
    """The share of the modes that draws of the Student fall into, where that can be counted."""
    found, modes = mean(values(run.final, "modes_reached")), num_modes(run)
    return found / modes if found is not None and modes and all_reachable(run) else None


def gap(run: RunData) -> float | None:
    """Nats between the bounds on log Z: EUBO and ELBO, or log Z itself and the ELBO."""
    upper = mean(values(run.final, "eubo"))
    upper = scalar(run.final, "log_z_true") if upper is None else upper
    lower = mean(values(run.final, "elbo"))
    return None if upper is None or lower is None else max(0.0, upper - lower)


def good_gap(run: RunData) -> float:
    """Nats between the bounds that still count as good: they grow with the dimension."""
    return 1 + (scalar(run.summary, "dim") or 0.0) / 16


def judge(run: RunData) -> Verdict:
    """The verdict on the final Student, in words that do not flatter."""
    final = run.final
    between = gap(run)
    if not table(final):
        text = f"No verdict on this run yet: {run.how_to_evaluate} makes it."
        return Verdict("unknown", "Not judged", text, ())
    label = {"good": "Close to the target", "partial": "Partly there", "poor": "Far off"}
    label["unknown"] = "Not settled by draws alone"
    grade = _grade(reached(run), between, good_gap(run))
    return Verdict(grade, label[grade], _headline(run), tuple(_remarks(run)))


def rule(run: RunData) -> str:
    """Where the lines between the verdicts are, in words."""
    modes = f"at least {percent(GOOD_REACHED)} of the modes among the draws, and "
    few = f"less than {percent(POOR_REACHED)} of the modes or "
    if not all_reachable(run):
        modes = few = ""
    limit = number(good_gap(run), digits=2)
    return (
        f"“Close to the target” at the top means {modes}at most {limit} nats between the bounds on "
        + f"log Z (1 and a sixteenth for each coordinate); “far off” {few}more than "
        + f"{POOR_FACTOR:g} times as much. Where the target can neither be sampled nor its Z is "
        + "known, draws cannot settle it. These lines are for orientation."
    )


def _grade(share: float | None, between: float | None, limit: float) -> str:
    if share is None and between is None:
        return "unknown"
    if (share is not None and share < POOR_REACHED) or (between or 0.0) > POOR_FACTOR * limit:
        return "poor"
    enough = between is not None and between <= limit
    return "good" if enough and (share is None or share >= GOOD_REACHED) else "partial"


def _headline(run: RunData) -> str:
    final, parts, modes = run.final, [], num_modes(run)
    found = mean(values(final, "modes_reached"))
    if found is not None and modes and all_reachable(run):
        seeds = f" (mean over {run.num_seeds} seeds)" if run.num_seeds > 1 else ""
        parts.append(f"draws of the Student reach {count(found)} of {number(modes)} modes{seeds}")
    lower, upper = mean(values(final, "elbo")), mean(values(final, "eubo"))
    true = scalar(final, "log_z_true")
    if lower is not None and upper is not None:
        parts.append(f"log Z is bounded by {one(lower)} and {one(upper)}")
    elif lower is not None:
        parts.append(f"log Z is at least {one(lower)}")
    if true is not None and parts:
        parts[-1] += f" (it is {one(true)})"
    sentence = "; ".join(parts or ["the draws say nothing of log Z or of modes"]) + "."
    return sentence[0].upper() + sentence[1:]


def _remarks(run: RunData) -> list[str]:
    found = (_of_bounds(run), of_weights(run), _of_distance(run), _of_modes(run), _of_seeds(run))
    return [remark for remark in found if remark]


def _of_bounds(run: RunData) -> str:
    final = run.final
    lower, upper = mean(values(final, "elbo")), mean(values(final, "eubo"))
    true = scalar(final, "log_z_true")
    if lower is None or upper is None:
        return (
            "The target cannot be sampled exactly here, so there is no upper bound on log Z: "
            + "regions that the Student never draws would go unnoticed."
            if lower is not None and scalar(final, "modes_reached") is None
            else ""
        )
    if true is not None and upper - true > 3 * max(true - lower, 0.0) and upper - true > 1:
        return (
            "The upper bound is much further from log Z than the lower one: the mark of a Student "
            + "that leaves parts of the target out, which its own draws cannot show."
        )
    return ""


def of_weights(run: RunData) -> str:
    """What the draws are worth by their weights, and whether these can be trusted; or nothing."""
    k, share = mean(values(run.final, "k_hat")), mean(values(run.final, "ess"))
    draws = scalar(run.final, "num_scored")
    if k is None and share is None:
        return ""
    worth = ""
    if share is not None and draws is not None:
        exact = max(1, round(share * draws))
        worth = f"Weighted, {number(draws)} draws are worth as much as {number(exact)} exact "
        worth += "one" if exact == 1 else "ones"
    if k is None:
        return worth and worth + "."
    trust = "can be trusted" if k < GOOD_K_HAT else "cannot be trusted"
    side = "below" if k < GOOD_K_HAT else "not below"
    said = f"the weights {trust} (k̂ = {number(k, digits=2)}, {side} {GOOD_K_HAT:g})"
    return f"{worth}; {said}." if worth else said[0].upper() + said[1:] + "."


def _of_distance(run: RunData) -> str:
    distance, floor = mean(values(run.final, "w2")), mean(values(run.final, "w2_floor"))
    if distance is None or not floor:
        return ""
    draws = scalar(run.final, "w2_draws")
    sets = (
        "two sets of exact samples"
        if draws is None
        else f"two sets of {number(draws)} exact samples"
    )
    return (
        f"Its draws are {number(distance)} away from exact samples (Wasserstein-2); {sets} are "
        + f"{number(floor)} apart."
    )


def _of_modes(run: RunData) -> str:
    modes, final = num_modes(run), run.final
    seen, kept = mean(values(final, "modes_found")), mean(values(final, "modes_reached"))
    if not modes or seen is None or kept is None or not all_reachable(run):
        return ""
    text = f"Training found {count(seen)} of {number(modes)} modes"
    if seen - kept > 0.05 * modes:
        return (
            f"{text}, but draws of the trained Student reach only {count(kept)}: finding is not "
            + "holding."
        )
    if seen < GOOD_REACHED * modes:
        return f"{text}: the rest was never visited, which is why the Student misses it."
    return f"{text}, and draws of the trained Student reach {count(kept)}."


def _of_seeds(run: RunData) -> str:
    found, modes = values(run.final, "modes_reached"), num_modes(run)
    known = found[np.isfinite(found)]
    if not modes or not all_reachable(run) or known.size < 2:
        return ""
    if np.ptp(known) <= max(1.0, 0.1 * modes):
        return ""
    return (
        f"The seeds disagree: their draws reach from {number(known.min())} to "
        + f"{number(known.max())} modes. A mean hides this; look at the seeds one by one."
    )
