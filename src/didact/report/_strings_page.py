"""The chapters of the page of a run over strings."""

from collections.abc import Iterable, Sequence

from . import _strings_verdict as verdict
from ._html import Html, markup, tag
from ._metrics import metrics
from ._numbers import MISSING, number, one, percent
from ._parts import (
    NO_MODES,
    about_holding,
    about_student,
    about_teacher,
    about_z,
    explanation,
    grid,
    image,
    samplers,
    stepper,
    training,
)
from ._pictures import Frame, Gallery, Picture
from ._read import Found, FoundString, RunData, scalar
from ._strings_gallery import best, diverse
from ._strings_verdict import is_scored, score
from ._verdict import num_modes

_MAX_WRITTEN, _MOST_COLOURED = 60, 4


def chapters(
    run: RunData, pictures: Gallery, frames: Sequence[Frame]
) -> Iterable[tuple[str, str, Html]]:
    """Key, heading and body of each."""
    yield "what", "What was trained", _explanation(run)
    table = metrics(run, verdict.table(run), verdict.rule(run))
    yield "verdict", "The verdict in numbers", table
    yield "best", "The best that it found", _best(run, pictures)
    yield "densities", f"Profiles: {_profiled(run)}", _profiles(run, pictures)
    yield "course", "How they changed in training", _course(run, frames)
    modes = num_modes(run)
    yield "modes", "Finding and holding" if modes else "Quality", _modes(run, pictures.modes)
    yield "values", "Value of what it draws", _values(run, pictures.values)
    yield "training", "Training curves", training(run, pictures.training)


def _explanation(run: RunData) -> Html:
    what = "molecules" if run.blocks else "strings"
    lead = (
        f"This run trained a sampler: a program that draws {what} at random, each with a "
        + "probability proportional to its reward, and so shows all good ones and not only the "
        + "best. The rewards can be asked for one by one; where they are high is what it learns."
    )
    terms = (
        ("String", _about_strings(run)),
        (_valued(run), _about_value(run)),
        ("Target", _about_target(run)),
        ("Mode", _about_modes(run)),
        ("Student", about_student("a string")),
        ("Teacher", about_teacher(run)),
        ("Found and held", about_holding(run)),
    )
    return explanation(run, lead, terms)


def _about_strings(run: RunData) -> str:
    length, count = scalar(run.summary, "length"), scalar(run.summary, "num_terminal_states")
    symbols = len(run.alphabet) or None
    long = "a fixed number of" if length is None else number(length)
    if run.blocks:
        text = f"A molecule: a chain of {long} building blocks out of {number(symbols)}, each "
        text += "written as a letter"
    else:
        of = "" if symbols is None else f" out of {number(symbols)}"
        text = f"A word of {long} letters{of}"
        short = symbols is not None and symbols <= 30 and all(len(s) == 1 for s in run.alphabet)
        text += f": {''.join(run.alphabet)}" if short else ""
    text += "." if count is None else f". There are {count:,.0f} of them."
    if run.summary.get("grows_in_front") is True:
        text += " It is built from nothing by putting one letter in front or at the end, again and "
        text += "again; most strings can be built in many ways, and all of them count."
    elif run.summary.get("grows_in_front") is False:
        text += " It is built from its first letter to its last."
    return text


def _valued(run: RunData) -> str:
    return "Score" if is_scored(run) else "Value"


def _about_value(run: RunData) -> str:
    target = run.part("target")
    beta = scalar(target, "beta")
    if is_scored(run):
        text = "What the given function says of a string."
        if target.get("returns", "score") != "score":
            return (
                text
                + " It is the logarithm of a reward"
                + ("." if beta in (None, 1.0) else f", and is multiplied by {number(beta)}.")
            )
    elif scalar(run.final, "mean_value") is None and scalar(run.final, "expected_value") is None:
        return ""
    else:
        text = "The number that says how good a string is."
    if beta is None:
        return text
    text += f" The reward is proportional to its power of {number(beta)}"
    rarer = 0.9**-beta if 0 < beta < 100 else None
    if rarer is None:
        return text + "."
    return text + (
        ": a string that is 10 % worse than another is to be drawn "
        + f"{number(rarer, digits=2)} times more rarely."
    )


def _about_target(run: RunData) -> str:
    text = (
        "The distribution to be sampled: the probability of a string is its reward divided by Z, "
        + "the sum of all rewards. "
    )
    if verdict.by_samples(run):
        text += (
            "Not all rewards were asked for, so the probability of a string is not known. "
            if is_scored(run)
            else "There are too many strings to compute the probability of each. "
        )
    if scalar(run.summary, "log_z") is None and run.final.get("exact") is not True:
        text += "Z is not known. "
    return (text + about_z(run)).strip()


def _about_modes(run: RunData) -> str:
    modes, mass = num_modes(run), scalar(run.final, "mode_mass_target")
    if not modes:
        return NO_MODES
    share = "" if mass is None else f" They have {percent(mass)} of the probability."
    return (
        "A string that the task names as one of those to be found, for its high value. There are "
        + f"{number(modes)}.{share}"
    )


def _best(run: RunData, pictures: Gallery) -> Html:
    if run.found is None:
        return Html()
    molecules = bool(run.blocks) or any(entry.smiles for entry in run.found.best)
    show = _molecules if molecules else _table
    parts = [tag("p", _about_best(run, run.found))]
    if molecules and not pictures.molecules:
        parts.append(tag("p", *_without_drawings(run.found), class_="small"))
    first, far = best(run), diverse(run)
    lists = [(f"The best {number(len(first))}", first)]
    if len(far) > 1:
        all_of = number(len(run.found.best))
        lists.append((f"{number(len(far))} of the best {all_of} that are far from each other", far))
    shown = (
        tag("div", tag("h3", heading), show(run, run.found, numbers, pictures))
        for heading, numbers in lists
    )
    return (
        markup(*parts, *shown) if molecules else markup(*parts, tag("div", *shown, class_="pair"))
    )


def _about_best(run: RunData, found: Found) -> str:
    draws = "draws" if found.num_draws is None else f"{number(found.num_draws)} draws"
    text = (
        f"Of {draws} of the first seed’s Student, the {number(len(found.best))} best different "
        + f"ones, from #1 to #{number(len(found.best))}; best.csv lists all. "
    )
    if found.mean_distance is not None:
        text += f"Their {found.distance} from each other is {one(found.mean_distance)} on average"
        text += " (0 is the same, 1 nothing in common). " if "Tanimoto" in found.distance else ". "
    if any(entry.log_prob is not None for entry in found.best):
        text += (
            "Log P is the logarithm of the probability with which the Student draws a string, "
            + "computed exactly over all ways to build it"
        )
        text += (
            "; beside it stands what it should be. "
            if _log_z(run) is not None
            else ". What it should be is not known, as log Z is not. "
        )
    return text + "That good ones are among so many draws says nothing of those that are not."


def _without_drawings(found: Found) -> tuple[str, ...]:
    """Why there are texts in place of pictures."""
    extra = tag("code", "pip install 'didact[chem]'")
    if any(entry.smiles for entry in found.best):
        return "Molecules are drawn where RDKit is installed: ", extra, ", and write the page anew."
    return (
        "Molecules are drawn where RDKit is installed: ",
        extra,
        ", then evaluate the run and write the page anew. Until then their blocks are shown.",
    )


def _molecules(run: RunData, found: Found, numbers: Sequence[int], pictures: Gallery) -> Html:
    """Molecules with their numbers below them."""
    cards: list[Html] = []
    for i in numbers:
        entry = found.best[i]
        drawing = pictures.molecules.get(entry.smiles or "")
        shown = (
            tag("code", entry.smiles or _in_blocks(run, entry), class_="formula")
            if drawing is None
            else image(drawing)
        )
        cards.append(tag("figure", shown, tag("figcaption", *_caption(run, i, entry))))
    return tag("div", *cards, class_="grid molecules")


def _caption(run: RunData, i: int, entry: FoundString) -> Iterable[Html | str]:
    worth = score(run, entry)
    name = _valued(run).lower() if worth is not None else "log R"
    worth = entry.log_reward if worth is None else worth
    yield tag("b", f"{name} {number(worth, digits=4)}")
    mode = " · mode" if entry.mode else ""
    yield tag("span", f"#{i + 1} · ", tag("code", entry.string[:_MAX_WRITTEN]), mode)
    yield tag("span", _probabilities(run, entry))


def _probabilities(run: RunData, entry: FoundString) -> str:
    """log P of a string, and what it should be."""
    if entry.log_prob is None:
        return ""
    due = _due(run, entry)
    text = f"log P {entry.log_prob:.1f}".replace("-", "−")
    return text if due is None else f"{text}, should be {due:.1f}".replace("-", "−")


def _log_z(run: RunData) -> float | None:
    known = scalar(run.final, "log_z_true")
    return scalar(run.summary, "log_z") if known is None else known


def _due(run: RunData, entry: FoundString) -> float | None:
    """The logarithm of the probability that a string has under the target."""
    log_z = _log_z(run)
    return None if log_z is None or entry.log_reward is None else entry.log_reward - log_z


def _in_blocks(run: RunData, entry: FoundString) -> str:
    """The blocks of a molecule, one after the other."""
    known = dict(zip(run.alphabet, run.blocks, strict=True)) if run.blocks else {}
    return " – ".join(known.get(letter, letter) for letter in entry.string[:_MAX_WRITTEN])


def _table(run: RunData, found: Found, numbers: Sequence[int], _: Gallery) -> Html:
    """Strings with their numbers beside them."""
    entries = [(i, found.best[i]) for i in numbers]
    valued = any(score(run, entry) is not None for _, entry in entries)
    modes = any(entry.mode is not None for _, entry in entries)
    due = _log_z(run) is not None
    head = ["#", "String", _valued(run) if valued else "log R", "log P"]
    head += ["should be"] * due + ["Mode"] * modes
    rows: list[Html] = []
    for i, entry in entries:
        worth = score(run, entry) if valued else entry.log_reward
        cells = [number(worth, digits=4), _short(entry.log_prob)]
        cells += [_short(_due(run, entry))] * due
        cells += ["yes" if entry.mode else "no"] * modes
        rows.append(
            tag(
                "tr",
                tag("td", str(i + 1)),
                tag("th", _written(run, entry.string), scope="row"),
                *(tag("td", cell) for cell in cells),
            )
        )
    top = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in head)))
    return tag("div", tag("table", top, tag("tbody", *rows), class_="strings"), class_="wide")


def _short(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}".replace("-", "−")


def _written(run: RunData, string: str) -> Html:
    """A string in letters of one width, coloured where there are four of them."""
    text = string if len(string) <= _MAX_WRITTEN else string[:_MAX_WRITTEN] + " …"
    colours = {letter: f"s{i}" for i, letter in enumerate(run.alphabet)}
    if len(colours) != _MOST_COLOURED or len(string) > _MAX_WRITTEN:
        return tag("code", text)
    letters = (
        tag("span", letter, class_=colours[letter]) if letter in colours else letter
        for letter in text
    )
    return tag("code", *letters)


def _profiled(run: RunData) -> str:
    """Whose profiles are known."""
    if run.target is not None:
        return samplers(run)
    return "Student and Teacher" if run.has_teacher else "Student"


def _profiles(run: RunData, pictures: Gallery) -> Html:
    shown = pictures.densities
    if not shown:
        return Html()
    step = run.snapshots[-1].step
    text = (
        "How often each letter stands in each place, in per cent, over all strings that a sampler "
        + f"draws; first seed, step {step:,}. "
    )
    if run.target is not None:
        text += "Target and Student should look the same; where they do not, blue is too rarely "
        text += "and orange too often. "
    else:
        text += (
            "That of the target is not known, as it would take the rewards of all strings; these "
            + "are of some 4,000 draws. "
        )
    text += (
        "A profile looks at one place at a time: two laws with the same profile can still differ "
        + "in which letters go together."
    )
    if run.has_teacher:
        text += " The Teacher is not meant to look like the target."
    kind = "panels" if len(shown) == 3 else "charts"
    return markup(tag("p", text), grid(shown, f"{kind} profiles"), _blocks(run, pictures))


def _blocks(run: RunData, pictures: Gallery) -> Html:
    """What the letters stand for."""
    if not run.blocks:
        return Html()
    cards: list[Html] = []
    for letter, smiles in zip(run.alphabet, run.blocks, strict=True):
        drawing = pictures.molecules.get(smiles)
        shown = tag("code", smiles, class_="formula") if drawing is None else image(drawing)
        cards.append(tag("figure", shown, tag("figcaption", tag("code", letter))))
    return markup(
        tag("h3", "What the letters stand for"), tag("div", *cards, class_="grid molecules blocks")
    )


def _course(run: RunData, frames: Sequence[Frame]) -> Html:
    text = (
        "Choose a moment, in gradient steps; the arrow keys work too. Profiles and colours are as "
        + "above. First seed; the numbers are means over the seeds."
    )
    return stepper(text, frames, "film drawn")


def _modes(run: RunData, pictures: Sequence[Picture]) -> Html:
    if not pictures:
        return Html()
    text = ""
    if num_modes(run):
        text = "Modes visited at least once (found) can only grow: they say where training looked. "
        held = any("modes_held" in row for row in run.evaluations) and not verdict.by_samples(run)
        text += (
            "Modes held are what the Student could sample at that moment: where this curve stays "
            + "below, or falls, training has seen what the Student has not kept. "
            if held
            else "How many are held draws cannot say, as they reach too few of them. "
        )
    if any(p.name == "modes-distinct" for p in pictures):
        text += (
            "What finding them cost is counted in different strings whose reward was asked for, "
            + "since one that is known need not be measured again. "
        )
    if any(p.name == "elbo" for p in pictures):
        text += (
            "The ELBO is at most log Z, whatever the Student is like, and rises with how well its "
            + "draws fit the rewards. "
        )
    text += "Thin lines are seeds, thick lines their mean."
    return markup(tag("p", text), grid(pictures, "charts"))


def _values(run: RunData, pictures: Sequence[Picture]) -> Html:
    if not pictures:
        return Html()
    text = (
        "A perfect sampler does not draw only the best: its draws have the mean value of the "
        + "target, the dashed line. Below it the Student draws too much that is bad, above it too "
        + "little that is less good."
    )
    return markup(tag("p", text), grid(pictures, "charts"))
