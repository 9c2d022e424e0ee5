"""Parts of the page that several chapters use: pictures, moments of training, tables, words."""

import base64
from collections.abc import Iterable, Sequence

from ._appendix import shortened
from ._html import Html, markup, tag
from ._numbers import number
from ._pictures import Frame, Picture
from ._read import RunData, scalar, section
from ._verdict import num_modes


def stepper(text: str, frames: Sequence[Frame], kind: str = "film") -> Html:
    """Moments of the training to choose from, without a script; `text` stands above."""
    if not frames:
        return Html()
    last = len(frames) - 1
    steps: list[Html] = []
    for i, frame in enumerate(frames):
        checked = {"checked": ""} if i == last else {}
        steps.append(
            tag(
                "div",
                tag("input", type="radio", name="frame", id=f"frame-{i}", **checked),
                tag("label", tag("span", f"{frame.step:,}"), for_=f"frame-{i}"),
                tag(
                    "div",
                    tag(
                        "p",
                        _jump("◀ earlier", i - 1, last),
                        tag("span", tag("b", f"Step {frame.step:,}"), tag("br"), frame.facts),
                        _jump("later ▶", i + 1, last),
                        class_="caption",
                    ),
                    grid(frame.pictures, f"{kind} film-{len(frame.pictures)}"),
                    class_="frame",
                ),
                class_="step",
            )
        )
    return markup(
        tag("p", text),
        tag(
            "div",
            *steps,
            class_="stepper",
            style=f"--frames:{len(frames)}",
            role="group",
            aria_label="Moments of the training",
        ),
    )


def _jump(text: str, index: int, last: int) -> Html:
    """A label that selects another frame; empty at the ends."""
    if not 0 <= index <= last:
        return tag("span", class_="jump")
    return tag("label", text, for_=f"frame-{index}", class_="jump")


def grid(pictures: Sequence[Picture], kind: str) -> Html:
    """Pictures beside one another, each below its title."""
    return tag(
        "div",
        *(
            tag(
                "figure",
                tag("figcaption", p.title),
                image(p),
            )
            for p in pictures
        ),
        class_=f"grid {kind}",
    )


def image(picture: Picture) -> Html:
    """A picture by itself, within the page."""
    kind = {"png": "png", "svg": "svg+xml"}[picture.kind]
    data = base64.b64encode(picture.image).decode("ascii")
    return tag("img", src=f"data:image/{kind};base64,{data}", alt=picture.alt)


def metric_table(head: Sequence[str], rows: Iterable[Html]) -> Html:
    """The table of the verdict."""
    return tag(
        "table",
        tag("thead", tag("tr", *(tag("th", h, scope="col") for h in head))),
        tag("tbody", *rows),
        class_="metrics",
    )


def metric_row(name: str, perfect: str, own: str, each: str | None, meaning: str) -> Html:
    """One row of it; `each` is what the seeds score, None where there is one seed."""
    return tag(
        "tr",
        tag("th", name, scope="row"),
        tag("td", perfect, data_label="Perfect sampler"),
        tag("td", own, data_label="Student", class_="own"),
        "" if each is None else tag("td", each, data_label="Per seed", class_="seeds"),
        tag("td", meaning, class_="meaning"),
    )


def training(run: RunData, pictures: Sequence[Picture]) -> Html:
    """The chapter with the curves of the training."""
    if not pictures:
        return Html()
    text = (
        f"The loss {_loss(run)}, on the paths it was shown; thin lines are raw values of each "
        + "seed, thick lines a running mean."
    )
    if run.has_teacher:
        text += (
            " The Teacher keeps proposing hard paths, so the Student’s loss need not fall "
            + "steadily; the Teacher’s own target moves all the time."
        )
    return markup(tag("p", text), grid(pictures, "charts"))


def _loss(run: RunData) -> str:
    """What the Student's loss measures, no more precisely than its configuration says."""
    objective = run.part("objective")
    squared = section(objective, "regression").get("type") == "objectives.Squared"
    of_paths = objective.get("type") in ("objectives.TB", "objectives.VarGrad")
    measure = "is the squared mismatch" if squared else "grows with the mismatch"
    what = "a path" if of_paths else "a path or a part of it"
    return f"{measure} between how likely the Student makes {what} and how likely it should be"


def explanation(run: RunData, lead: str, terms: Iterable[tuple[str, str]]) -> Html:
    """What was trained: a paragraph, the method, and what the words on the page mean."""
    method = run.summary.get("method")
    cards = (tag("div", tag("dt", name), tag("dd", text)) for name, text in terms if text)
    return markup(
        tag("p", lead, class_="lead"),
        tag("p", tag("b", "This run. "), shortened(str(method))) if method else Html(),
        tag("dl", *cards, class_="terms"),
    )


def about_student(what: str) -> str:
    """What the Student is, where it builds `what` step by step."""
    return (
        f"The sampler that is wanted in the end: a neural network that builds {what} step by "
        + "step. It learns from paths: how likely does it make this path, how likely should it "
        + "be, and by how much must the network change?"
    )


def about_z(run: RunData) -> str:
    """What is known of Z, and whether the result was checked exactly."""
    log_z = scalar(run.summary, "log_z")
    text = "" if log_z is None else f"Z is known (log Z = {number(log_z, digits=5)}). "
    if run.final.get("exact") is True:
        text += (
            "The result can be checked exactly, not by eye: the probability of every object can "
            + "be computed."
        )
    return text


def about_holding(run: RunData) -> str:
    """What it means to find a mode and to hold it; empty where there are none."""
    if not num_modes(run):
        return ""
    return (
        "A mode is found once any training path has ended in it, and held if the trained "
        + "Student gives it at least half of the probability it should have. Finding takes "
        + "one visit and can be forgotten; only what is held shows up in samples."
    )


NO_MODES = "This target names no modes, so none are counted."


def samplers(run: RunData) -> str:
    """The heading over the pictures of all laws."""
    return "Target, Student, Teacher" if run.has_teacher else "Target and Student"


def about_teacher(run: RunData) -> str:
    """What a Teacher is, and whether there was one."""
    if run.has_teacher:
        return (
            "A second sampler, trained at the same time to propose paths on which the Student is "
            + "wrong, above all those it takes too rarely. It moves on when the Student has "
            + "learned, so it is not meant to look like the target."
        )
    return (
        "A second sampler that proposes paths on which the Student is wrong. This run had none: "
        + "the Student learned without one."
    )
