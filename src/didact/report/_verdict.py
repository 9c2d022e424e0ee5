"""What the metrics mean, what a perfect sampler would score, and the verdict in words."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ._numbers import count, mean, number, percent
from ._read import Floats, Record, RunData, scalar, values

# The lines between the three verdicts: share of the modes held, and total variation.
GOOD_HELD, GOOD_TV = 0.95, 0.1
POOR_HELD, POOR_TV = 0.5, 0.5
# Where the target names no modes: total variation, and share of its probability on objects that
# the Student gives less than half of what they should have.
GOOD_MISSED, POOR_MISSED = 0.05, 0.3


@dataclass(frozen=True)
class Metric:
    """One row of the verdict table.

    `perfect` maps the final evaluation to what a perfect sampler scores, as text; `signed`
    metrics are differences, written with their sign; `by_samples` ones say nothing beside an
    exact verdict, `of_modes` ones where the target names no modes; `error` is the key of the
    standard error where the value comes from draws.
    """

    key: str
    name: str
    meaning: str
    perfect: Callable[[Record], str]
    signed: bool = False
    by_samples: bool = False
    of_modes: bool = False
    error: str | None = None


@dataclass(frozen=True)
class Verdict:
    """The verdict: `grade` is good, partial, poor or unknown; `remarks` are whole sentences."""

    grade: str
    label: str
    headline: str
    remarks: tuple[str, ...]


_UNKNOWN = "not known"


def _constant(text: str) -> Callable[[Record], str]:
    return lambda _: text


def _from(key: str, digits: int = 3) -> Callable[[Record], str]:
    def write(final: Record) -> str:
        known = scalar(final, key)
        return _UNKNOWN if known is None else number(known, digits=digits)

    return write


def _expected_reached(final: Record) -> str:
    """Modes among the draws of a perfect sampler, on average; for modes of equal probability where
    the evaluation does not say.
    """
    known = scalar(final, "modes_reached_perfect")
    if known is not None:
        return number(round(known)) if abs(known - round(known)) < 5e-3 else f"≈ {count(known)}"
    modes, mass = scalar(final, "num_modes"), scalar(final, "mode_mass_target")
    draws = scalar(final, "num_draws")
    if not modes or mass is None or draws is None:
        return _UNKNOWN
    expected = modes * (1 - (1 - min(1.0, mass / modes)) ** draws)
    return number(modes) if modes - expected < 0.5 else f"≈ {number(round(expected))}"


METRICS: tuple[Metric, ...] = (
    Metric(
        "modes_held",
        "Modes held",
        "Modes to which the final Student gives at least half of the probability they should have.",
        _from("num_modes"),
        of_modes=True,
    ),
    Metric(
        "mode_mass_recall",
        "Mode-mass recall",
        "Share of the modes’ probability that the Student reproduces, mode by mode; too much on "
        + "one mode does not make up for too little on another.",
        _constant("1"),
        of_modes=True,
    ),
    Metric(
        "mode_mass",
        "Probability on modes",
        "How often a sample of the Student lies in a mode.",
        _from("mode_mass_target"),
        of_modes=True,
    ),
    Metric(
        "tv",
        "Total variation",
        "Share of the probability that lies in the wrong place: 0 is perfect, 1 is all of it. "
        + "What weighs little hardly shows in it, even if all of it is missed.",
        _constant("0"),
    ),
    Metric(
        "missed_mass",
        "Mass given less than half",
        "Share of the target’s probability on objects to which the Student gives less than half of "
        + "what they should have: what it misses.",
        _constant("0"),
    ),
    Metric(
        "kl",
        "KL divergence (nats)",
        "Information lost when the Student stands in for the target, KL(target ‖ Student); "
        + "missing a part of the target is punished hard.",
        _constant("0"),
    ),
    Metric(
        "jsd",
        "Jensen–Shannon divergence (nats)",
        "A symmetric distance between the two, at most log 2 = 0.693.",
        _constant("0"),
    ),
    Metric(
        "spearman",
        "Rank correlation",
        "Spearman’s, of the Student’s probability of an object with its reward, over all objects: "
        + "1 if they are in the same order, 0 if the one says nothing of the other.",
        _constant("1"),
    ),
    Metric(
        "mean_value",
        "Mean value",
        "The mean value of what the Student draws, beside its exact expectation under the target. "
        + "It can be right though much is missed, and too high where the Student draws only the "
        + "best.",
        _from("expected_value", 4),
    ),
    Metric(
        "log_z",
        "Learned log Z",
        "The Student’s estimate of the logarithm of the sum of all rewards.",
        _from("log_z_true", 5),
    ),
    Metric(
        "log_z_error",
        "Error of log Z",
        "Learned minus true value; below 0 the Student has missed reward.",
        _constant("0"),
        signed=True,
    ),
    Metric(
        "elbo",
        "ELBO",
        "A lower bound on log Z: the mean of log R + log P_B − log P_F over what the Student "
        + "samples; blind to what it never samples.",
        _from("log_z_true", 5),
        error="elbo_standard_error",
    ),
    Metric(
        "eubo",
        "EUBO",
        "An upper bound on log Z: the same mean over paths that end as often in each object as "
        + "they should. It rises with everything that the Student samples too rarely.",
        _from("log_z_true", 5),
    ),
    Metric(
        "log_z_estimate",
        "Log Z from weighted draws",
        "The logarithm of the mean of R · P_B ÷ P_F over draws of the Student: closer to log Z "
        + "than the ELBO, but too low on average, and blind to the same parts of the target.",
        _from("log_z_true", 5),
        by_samples=True,
    ),
    Metric(
        "ess",
        "Effective sample size",
        "As a share of the draws: so many draws of a perfect sampler would be worth as much. "
        + "Judged by how equal the weights are, so it can be high though a part is never drawn.",
        _constant("1"),
        by_samples=True,
    ),
    Metric(
        "k_hat",
        "k̂ of the weights",
        "How heavy the tail of the weights is. Below 0.7 weighted averages can be trusted; above, "
        + "a few draws carry most of the weight.",
        _constant("< 0.7"),
        by_samples=True,
    ),
    Metric(
        "top_value",
        "Value of the best 100",
        "Mean value of the best 100 different draws: what a search for the best alone would look "
        + "at.",
        _constant("higher is better"),
    ),
    Metric(
        "top_distance",
        "Distance of the best 100",
        "How many letters must be inserted, left out or replaced to make one of the best 100 into "
        + "another, on average: whether they are many finds or one find many times.",
        _constant("higher is more diverse"),
    ),
    Metric(
        "distinct",
        "Different objects asked for",
        "Different objects whose reward training has asked for: what it would have cost if each "
        + "had to be made and measured once.",
        _constant("fewer is cheaper"),
    ),
    Metric(
        "modes_found",
        "Modes found in training",
        "Modes visited at least once by any source of training paths. Says where training "
        + "looked, not what the Student learned.",
        _from("num_modes"),
        of_modes=True,
    ),
    Metric(
        "modes_found_student",
        "… by the Student’s own paths",
        "The part of it that the Student itself walked to.",
        _from("num_modes"),
        of_modes=True,
    ),
    Metric(
        "modes_reached",
        "Modes among final samples",
        "Distinct modes among the final draws; a perfect sampler, too, can miss rare modes in so "
        + "many of them.",
        _expected_reached,
        of_modes=True,
    ),
    Metric(
        "empirical_l1",
        "Empirical L1",
        "Mean |p̂ − p| over all objects, p̂ counted from draws: the published measure. Its target "
        + "is not 0 but the sampling noise of a perfect sampler.",
        _from("empirical_l1_floor"),
    ),
)

_OF_SOME = frozenset(
    ("spearman", "mean_value", "eubo", "k_hat", "top_value", "top_distance", "distinct")
)


def table(final: Record) -> list[Metric]:
    """The rows for which `final` has numbers that its exact ones do not replace; of modes only
    where there are some.
    """
    exact = final.get("exact") is True
    without = {m.key for m in METRICS if m.by_samples} if exact else set[str]()
    if scalar(final, "num_modes") is None:
        without |= {m.key for m in METRICS if m.of_modes and scalar(final, m.key) is None}
    if scalar(final, "missed_mass") is None:  # by samples, or of an older version
        without.add("missed_mass")
    # Of objects that have no value, or are too many to be told apart, there is nothing to say.
    without |= {key for key in _OF_SOME if scalar(final, key) is None}
    return [m for m in METRICS if m.key in final and m.key not in without]


def errors_of_draws(metric: Metric, final: Record, seeds: int) -> Floats:
    """Standard errors [seeds] of values that come from draws; NaN where there is none."""
    # Beside an exact value the key is another number's error, or 0.
    if metric.error is not None and final.get("exact") is not True:
        known = values(final, metric.error)
        if known.size == seeds:
            return known
    return np.full(seeds, np.nan)


def judge(run: RunData) -> Verdict:
    """The verdict on the final Student, in words that do not flatter."""
    final = run.final
    modes, tv = num_modes(run), mean(values(final, "tv"))
    held = mean(values(final, "modes_held"))
    missed = mean(values(final, "missed_mass"))
    if held is None and tv is None:
        return Verdict("unknown", "Not judged", _not_judged(run), tuple(_found_only(run)))
    if held is not None and modes:
        grade = _grade(held / modes, tv)
    else:
        grade = _grade_without_modes(tv, missed)
    label = {"good": "Close to the target", "partial": "Partly there", "poor": "Far off"}[grade]
    if grade == "good" and tv is None:
        # How the rest of the mass is spread, nothing has told.
        label = "Modes held"
    return Verdict(grade, label, _headline(run), tuple(_remarks(run)))


def num_modes(run: RunData) -> float | None:
    """The number of modes of the target, if it is known."""
    known = scalar(run.final, "num_modes")
    return scalar(run.summary, "num_modes") if known is None else known


def _grade(held: float, tv: float | None) -> str:
    distance = 0.0 if tv is None else tv
    if held >= GOOD_HELD and distance <= GOOD_TV:
        return "good"
    return "poor" if held < POOR_HELD or distance > POOR_TV else "partial"


def _grade_without_modes(tv: float | None, missed: float | None) -> str:
    distance, left_out = (0.0 if share is None else share for share in (tv, missed))
    if max(distance, left_out) > POOR_MISSED:
        return "poor"
    return "good" if distance <= GOOD_TV and left_out <= GOOD_MISSED else "partial"


def rule(run: RunData) -> str:
    """Where the lines between the verdicts are, in words."""
    if num_modes(run) and mean(values(run.final, "tv")) is None:
        return (
            f"“Modes held” at the top means at least {percent(GOOD_HELD)} of the modes, “far off” "
            + f"less than {percent(POOR_HELD)}. Of the mass that lies elsewhere it says nothing: "
            + "total variation needs all objects. These lines are for orientation."
        )
    if num_modes(run):
        lines = (
            f"at least {percent(GOOD_HELD)} of the modes held and a total variation of at most "
            + f"{GOOD_TV:g}; “far off” less than {percent(POOR_HELD)} held or a total variation "
            + f"above {POOR_TV:g}"
        )
    else:
        lines = (
            f"a total variation of at most {GOOD_TV:g} and at most {percent(GOOD_MISSED)} of the "
            + "probability on objects that get less than half; “far off” one of the two above "
            + f"{POOR_MISSED:g}, since the target names no modes that could be counted"
        )
    return f"“Close to the target” at the top means {lines}. These lines are for orientation."


def _headline(run: RunData) -> str:
    final, modes = run.final, num_modes(run)
    held, tv = mean(values(final, "modes_held")), mean(values(final, "tv"))
    error = mean(values(final, "log_z_error"))
    parts: list[str] = []
    if held is not None:
        seeds = f" (mean over {run.num_seeds} seeds)" if run.num_seeds > 1 else ""
        of_all = f" of {number(modes)}" if modes else ""
        about = "" if mean(values(final, "modes_held_low")) is None else "about "
        parts.append(f"The Student holds {about}{count(held)}{of_all} modes{seeds}")
    if tv is not None:
        parts.append(f"total variation {number(tv, digits=2)}")
    if error is not None:
        parts.append(f"log Z off by {number(error, digits=2, signed=True)}")
    sentence = "; ".join(parts) + "."
    return sentence[0].upper() + sentence[1:]


def _remarks(run: RunData) -> list[str]:
    final, modes = run.final, num_modes(run)
    held, found = values(final, "modes_held"), values(final, "modes_found")
    remarks: list[str] = []
    missed = mean(values(final, "missed_mass"))
    if missed is not None:
        remarks.append(
            f"{_share(missed)} of the target’s probability is on objects that the Student "
            + "gives less than half of what they should have."
        )
    if modes and np.isfinite(held).any() and np.isfinite(found).any():
        remarks.append(_finding_and_holding(modes, held, found))
    mass, target = mean(values(final, "mode_mass")), scalar(final, "mode_mass_target")
    if mass is not None and target is not None:
        remarks.append(
            f"A sample of the Student lies in a mode in {percent(mass)} of cases; "
            + f"it should be in {percent(target)}."
        )
    known = held[np.isfinite(held)]
    if modes and known.size > 1 and np.ptp(known) > max(1.0, 0.1 * modes):
        remarks.append(
            f"The seeds disagree: from {number(known.min())} to {number(known.max())} modes held. "
            + "A mean hides this; look at the seeds one by one."
        )
    return remarks


def _share(share: float) -> str:
    return "None" if share == 0 else "Less than 0.1 %" if share < 5e-4 else percent(share)


def _finding_and_holding(modes: float, held: Floats, found: Floats) -> str:
    kept, seen = mean(held) or 0.0, mean(found) or 0.0
    seen_text = f"Training found {count(seen)} of {number(modes)} modes"
    if seen - kept > 0.05 * modes:
        return (
            f"{seen_text}, but the trained Student holds only {count(kept)}: "
            + "finding is not holding, and only what is held shows up in samples."
        )
    if kept - seen > 0.05 * modes:
        return (
            f"{seen_text}; the Student holds {count(kept)}, so it gives their due to "
            + "some that it was never shown."
        )
    if seen < GOOD_HELD * modes:
        return f"{seen_text}: the rest was never visited, which is why the Student misses it."
    return f"{seen_text}, and the trained Student holds on to what was found."


def _found_only(run: RunData) -> list[str]:
    found, modes = mean(values(run.final, "modes_found")), num_modes(run)
    if found is None:
        return []
    of_all = f" of {number(modes)}" if modes else ""
    return [
        f"Training found {count(found)}{of_all} modes. That says where training looked, "
        + "not what the Student learned."
    ]


def _not_judged(run: RunData) -> str:
    reason = run.final.get("reason")
    if isinstance(reason, str) and reason:
        return f"No exact verdict: {reason}"
    if run.final.get("exact") is False:
        return "No exact verdict: the evaluation is by samples."
    return f"No exact verdict on this run yet: {run.how_to_evaluate} makes it."
