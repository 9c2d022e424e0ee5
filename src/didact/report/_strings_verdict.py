"""The verdict on a run over strings, exact where they can be listed and else by samples.

By samples the law is not known. Where log Z is, the ELBO still bounds the error of the law: with
g = log Z - ELBO, which is the KL divergence of the Student's paths from the target's, the total
variation is at most min(√(g/2), √(1 - e^-g)), and at most 1 - e^-g of the target's probability is
on strings that the Student never draws. (Pinsker; Bretagnolle and Huber, 1979.)
"""

import dataclasses
import math

import numpy as np

from . import _verdict as verdict
from ._numbers import count, mean, number, one, percent
from ._read import FoundString, RunData, scalar, values
from ._vectors_verdict import of_weights
from ._verdict import GOOD_HELD, POOR_HELD, Metric, Verdict, num_modes

GOOD_GAP, POOR_GAP = 0.02, 0.5
"""Nats of log Z - ELBO. With the first, at most a tenth of the probability is in the wrong place;
with the second it may be a half, and where rewards differ little that needs no training."""
_LABELS = {
    "good": "Close to the target as a whole",
    "partial": "Partly there",
    "poor": "Far off",
    "unknown": "Not settled by draws alone",
}


def judge(run: RunData) -> Verdict:
    """The verdict on the final Student, in words that do not flatter."""
    if not by_samples(run):
        judged = verdict.judge(run)
        said = [] if judged.grade == "unknown" else [*_of_light_modes(run), *_of_values(run)]
        return dataclasses.replace(judged, remarks=(*judged.remarks, *said))
    found = (
        _guarantee(run),
        _progress(run),
        *_of_values(run),
        _of_modes(run),
        of_weights(run),
        _why(run),
    )
    grade = _grade(gap(run), _held(run))
    remarks = tuple(remark for remark in found if remark)
    return Verdict(grade, _LABELS[grade], _headline(run), remarks)


def by_samples(run: RunData) -> bool:
    """Whether there is a verdict, and it rests on draws."""
    tv, lower = (mean(values(run.final, key)) for key in ("tv", "elbo"))
    return tv is None and lower is not None


def gap(run: RunData) -> float | None:
    """log Z less the lower end of the ELBO's interval, in nats; None where log Z is not known."""
    true, lower = scalar(run.final, "log_z_true"), mean(values(run.final, "elbo_low"))
    lower = mean(values(run.final, "elbo")) if lower is None else lower
    return None if true is None or lower is None else max(0.0, true - lower)


def furthest(gap: float) -> float:
    """The largest total variation from the target that a gap leaves possible."""
    return min(math.sqrt(gap / 2), math.sqrt(-math.expm1(-gap)))


def table(run: RunData) -> list[Metric]:
    """The rows for which there are numbers."""
    final = run.final
    return [m for m in verdict.table(final) if np.isfinite(values(final, m.key)).any()]


def rule(run: RunData) -> str:
    """Where the lines between the verdicts are, in words."""
    if not by_samples(run):
        return verdict.rule(run)
    held = mean(values(run.final, "modes_held")) is not None
    good = f", and at least {percent(GOOD_HELD)} of the modes held" if held else ""
    poor = f" or less than {percent(POOR_HELD)} of the modes held" if held else ""
    return (
        f"“{_LABELS['good']}” at the top means that the ELBO, by the lower end of its interval, is "
        + f"at most {GOOD_GAP:g} nats below log Z, which leaves at most "
        + f"{percent(furthest(GOOD_GAP))} of the probability in the wrong place{good}; “far off” "
        + f"means more than {POOR_GAP:g} nats{poor}. Where log Z is not known, draws cannot "
        + "settle it. These lines are for orientation."
    )


def score(run: RunData, entry: FoundString) -> float | None:
    """What a string is valued by: its value, or what the reward function of the user's gave."""
    if entry.value is not None or not is_scored(run):
        return entry.value
    target = run.part("target")
    beta = scalar(target, "beta")
    if entry.log_reward is None or not beta:
        return None
    log_score = entry.log_reward / beta
    if target.get("returns", "score") != "score":
        return log_score
    return float(np.exp(min(log_score, 700.0)))


def is_scored(run: RunData) -> bool:
    """Whether the reward is a function of the user's."""
    return run.part("target").get("type") == "targets.HostReward"


def _grade(gap: float | None, held: float | None) -> str:
    if (gap is not None and gap > POOR_GAP) or (held is not None and held < POOR_HELD):
        return "poor"
    if gap is None:
        return "unknown"
    return "good" if gap <= GOOD_GAP and (held is None or held >= GOOD_HELD) else "partial"


def _held(run: RunData) -> float | None:
    """The share of the modes that are held, where the evaluation says so."""
    held, modes = mean(values(run.final, "modes_held")), num_modes(run)
    return held / modes if held is not None and modes else None


def _headline(run: RunData) -> str:
    final = run.final
    lower, true = mean(values(final, "elbo")), scalar(final, "log_z_true")
    held, modes = mean(values(final, "modes_held")), num_modes(run)
    parts: list[str] = []
    if held is not None and modes:
        parts.append(f"the Student holds {count(held)} of {number(modes)} modes")
    if lower is not None and true is not None:
        distance = number(max(0.0, true - lower), digits=2)
        parts.append(f"by its draws the Student is {distance} nats from the target (log Z − ELBO)")
    elif lower is not None:
        best = None if run.found is None else score(run, run.found.best[0])
        if best is not None and run.found is not None:
            draws = number(run.found.num_draws)
            parts.append(f"the best of {draws} draws has a score of {number(best, digits=4)}")
        parts.append(f"log Z, which is not known, is at least {one(lower)}")
    average, due = mean(values(final, "mean_value")), scalar(final, "expected_value")
    if average is not None and due is not None:
        parts.append(f"mean value {one(average)}, where exact samples have {one(due)}")
    sentence = "; ".join(parts) + "."
    if run.num_seeds > 1:
        sentence = sentence[:-1] + f" (means over {run.num_seeds} seeds)."
    return sentence[0].upper() + sentence[1:]


def _guarantee(run: RunData) -> str:
    """What the gap says for certain of the whole law, drawn or not."""
    distance = gap(run)
    if distance is None:
        return (
            "The sum of all rewards is not known. Nothing here could show that the Student leaves "
            + "out a part of the target: the numbers judge what it draws, and no more."
        )
    left_out = -math.expm1(-distance)
    if left_out > 0.95:
        return (
            "So far from log Z, the ELBO guarantees nothing: nearly all of the target’s "
            + "probability could be on strings that the Student never draws."
        )
    return (
        "As log Z is known, its distance from the ELBO counts also what is never drawn: at most "
        + f"{percent(furthest(distance))} of the probability lies in the wrong place, and at most "
        + f"{percent(left_out)} of the target’s is on strings that the Student never draws. "
        + "(By the lower end of the ELBO’s 90 % interval.)"
    )


def _progress(run: RunData) -> str:
    """What training has done to the ELBO."""
    if len(run.evaluations) < 2:
        return ""
    # Of the same number of draws each, and not beside the final one of more.
    first, last = run.evaluations[0], run.evaluations[-1]
    before, after = mean(values(first, "elbo")), mean(values(last, "elbo"))
    if before is None or after is None or scalar(first, "step") != 0:
        return ""
    draws = scalar(last, "num_draws")
    each = "" if draws is None else f", by {number(draws)} draws each time"
    true = scalar(run.final, "log_z_true")
    perfect = "" if true is None else f"; for a perfect sampler it is {one(true)}"
    return f"In training the ELBO went from {one(before)} to {one(after)}{each}{perfect}."


def _of_light_modes(run: RunData) -> list[str]:
    """Modes that ought to be rare are easily held, by a sampler that has learned nothing too."""
    held, recall = _held(run), mean(values(run.final, "mode_mass_recall"))
    if held is None or recall is None or held < recall + 0.25:
        return []
    return [
        "Those that it holds have little weight: of the probability of all modes, it reproduces "
        + f"{percent(recall)}."
    ]


def _of_values(run: RunData) -> list[str]:
    """What the values of draws say."""
    final = run.final
    average, due = mean(values(final, "mean_value")), scalar(final, "expected_value")
    best, draws = mean(values(final, "top_value")), scalar(final, "num_draws")
    said: list[str] = []
    if average is not None and due is not None and not by_samples(run):
        said.append(
            f"A draw of the Student has a value of {one(average)} on average, an exact sample of "
            + f"the target {one(due)}."
        )
    if best is not None and draws is not None:
        said.append(
            f"The best 100 of {number(draws)} draws have a value of {one(best)} on average: what a "
            + "search would look at. It says nothing of what is missed."
        )
    return said


def _of_modes(run: RunData) -> str:
    """Modes found, and drawn: a few draws of so many strings cannot say which are held."""
    final, modes = run.final, num_modes(run)
    seen, drawn = mean(values(final, "modes_found")), mean(values(final, "modes_reached"))
    if not modes or (seen is None and drawn is None):
        return ""
    parts: list[str] = []
    if seen is not None:
        parts.append(f"training found {count(seen)} of {number(modes)} modes")
    if drawn is not None:
        draws = number(scalar(final, "num_draws"))
        parts.append(f"{count(drawn)} are among {draws} draws of the trained Student")
    text = "; ".join(parts)
    text = text[0].upper() + text[1:] + ". "
    perfect = scalar(final, "modes_reached_perfect")
    if perfect is not None:
        return text + f"As many draws of a perfect sampler reach {count(round(perfect, 1))}."
    if mean(values(final, "modes_held")) is not None:
        return text.rstrip()
    return text + (
        "Each mode is one string among very many, so draws cannot say how many are held: also a "
        + "perfect sampler would reach only some."
    )


def _why(run: RunData) -> str:
    reason = run.final.get("reason")
    known = reason[:400] if isinstance(reason, str) and reason else "there is no exact verdict."
    return "By samples: " + known
