"""Read a run folder. Only `config.json` must be there and sound; the rest may be missing.

Of what a stranger's folder holds no more is read than any run writes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from .._archive import Archive
from .._config import foreign_names
from .._files import in_short, open_to_read, read_lines, read_object
from .._json import parse

Record: TypeAlias = Mapping[str, object]
Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]

FORMAT_VERSION = 1
MAX_FRAMES = 25
"""With more evaluations than 24, snapshots are left out between the first and the last."""
_MAX_FOUND_BYTES, _MAX_FOUND, _MAX_TEXT, _MAX_SYMBOLS = 2**22, 100, 500, 1000
_MAX_ROWS, _MAX_SEEDS = 10_000, 1024
_MAX_POINTS, _MAX_PANELS, _MAX_CELLS, _MAX_FRAME_CELLS = 2**18, 64, 2**22, 2**24
"""Of a picture, as many as states that can be listed; and of all of them together."""
_UNREADABLE = (OSError, ValueError, KeyError)


@dataclass(frozen=True)
class Snapshot:
    """Terminal probabilities of the first seed at one step of training.

    `student` and `teacher` are [n, side, side] (n = 1 in two dimensions, one marginal for each
    pair of coordinates above), or [1, side] in one dimension; over strings profiles
    [1, num_symbols, length].
    """

    step: int
    student: Floats
    teacher: Floats | None


@dataclass(frozen=True)
class TargetPicture:
    """The target as the snapshots' pictures show it.

    `panels` has the shape of a snapshot's `student`; `modes` is a mask over the cells of a grid in
    two dimensions; `pairs` names the coordinates of each panel, `marginal` says that they are
    marginals of a larger space. Of a density over vectors `extent` [n, 4] is the lowest and highest
    value of both coordinates of each panel ([1, 2] in one dimension), `density` [cells, cells] the
    density in the plane, finer than its panel, `source` what the panels are made from.
    """

    panels: Floats
    modes: Bools | None
    pairs: tuple[tuple[int, int], ...]
    marginal: bool
    extent: Floats | None = None
    density: Floats | None = None
    source: str = ""


@dataclass(frozen=True)
class Diagnostics:
    """Weights and a few draws of the first seed's Student on a density over vectors.

    `log_weight` [n] of forward trajectories, `x` [m, c] of the first m of them, in some of the
    `coordinates`; `target_x` [k, c] are exact samples of the target, `backward_log_weight` [n]
    belong to trajectories drawn backwards from such; both empty where there are none.
    """

    coordinates: tuple[int, ...]
    x: Floats
    log_weight: Floats
    target_x: Floats
    backward_log_weight: Floats

    def column(self, coordinate: int, points: Floats) -> Floats:
        """One coordinate of `x` or `target_x`; empty where it is not kept."""
        if coordinate not in self.coordinates or not points.size:
            return np.zeros(0)
        return points[:, self.coordinates.index(coordinate)]


@dataclass(frozen=True)
class FoundString:
    """One string: `smiles` is its molecule; None for what is not known of it."""

    string: str
    value: float | None
    log_reward: float | None
    log_prob: float | None
    mode: bool | None
    smiles: str | None


@dataclass(frozen=True)
class Found:
    """The best different strings among draws of the first seed's Student, the best first.

    `diverse` are the numbers of some that are far from each other; `mean_distance` of all,
    `distance` says what that means.
    """

    best: tuple[FoundString, ...]
    diverse: tuple[int, ...]
    distance: str
    mean_distance: float | None
    num_draws: float | None


@dataclass(frozen=True)
class RunData:
    """What a run folder holds, as far as the report uses it.

    `final` is the final evaluation; `pictured` the target's picture; `notes` says what was missing
    or unreadable.
    """

    path: Path
    config: Record
    train: tuple[Record, ...]
    evaluations: tuple[Record, ...]
    final: Record
    pictured: TargetPicture | None
    snapshots: tuple[Snapshot, ...]
    diagnostics: Diagnostics | None
    found: Found | None
    notes: tuple[str, ...]

    @property
    def target(self) -> Floats | None:
        """The target's panels."""
        return None if self.pictured is None else self.pictured.panels

    @property
    def modes(self) -> Bools | None:
        """The cells that are modes."""
        return None if self.pictured is None else self.pictured.modes

    @property
    def void(self) -> Bools | None:
        """The cells [n, side, side] of the panels in which no object lies; None if there are none.

        A grid's are known by its rule: no two coordinates may be the last. Elsewhere they are
        taken to be those in which neither target nor samplers have any probability.
        """
        panels = self.target
        if panels is None or panels.ndim != 3 or self.over_vectors or self.over_strings:
            return None
        if self.part("environment").get("type") == "environments.Hypergrid":
            void = np.zeros(panels.shape, dtype=np.bool_)
            void[:, -1, -1] = True
        else:
            void = panels == 0
            for snapshot in self.snapshots:
                void &= snapshot.student == 0
                void &= True if snapshot.teacher is None else snapshot.teacher == 0
        return void if void.any() else None

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The coordinates of each panel."""
        return () if self.pictured is None else self.pictured.pairs

    @property
    def marginal(self) -> bool:
        """Whether the panels are marginals of a larger space."""
        return self.pictured is not None and self.pictured.marginal

    @property
    def over_vectors(self) -> bool:
        """Whether the objects are real vectors, so that nothing is counted in cells."""
        return self.summary.get("space") == "vectors"

    @property
    def over_strings(self) -> bool:
        """Whether the objects are strings of symbols."""
        return self.summary.get("space") == "strings"

    @property
    def alphabet(self) -> tuple[str, ...]:
        """The symbols of strings; empty where they have no letters."""
        return _texts(self.summary.get("alphabet"))

    @property
    def blocks(self) -> tuple[str, ...]:
        """The SMILES that each symbol stands for; empty where the strings are no molecules."""
        blocks = _texts(self.summary.get("blocks"))
        return blocks if len(blocks) == len(self.alphabet) else ()

    @property
    def summary(self) -> Record:
        """The short description of the run that `config.json` carries."""
        return section(self.config, "summary")

    @property
    def foreign(self) -> tuple[str, ...]:
        """Addresses in the configuration that are not part of didact, each once."""
        return _foreign(self.config)

    @property
    def how_to_evaluate(self) -> str:
        """What makes the numbers of the verdict anew, in words."""
        return _how_to_evaluate(self.config)

    @property
    def step(self) -> float | None:
        """The step up to which the training has gone, as far as the folder says."""
        return _last_step(self.train, self.final)

    @property
    def finished(self) -> bool | None:
        """Whether all planned steps are done; None where the folder does not say."""
        total = scalar(self.summary, "steps")
        return None if self.step is None or total is None else self.step >= total

    @property
    def has_teacher(self) -> bool:
        """Whether anything in the folder comes from a Teacher."""
        in_metrics = any(r.get("teacher_loss") is not None for r in self.train[-1:])
        in_evaluations = any(r.get("teacher_mode_mass") is not None for r in self.evaluations[-1:])
        return in_metrics or in_evaluations or any(s.teacher is not None for s in self.snapshots)

    @property
    def num_seeds(self) -> int:
        """Number of seeds trained side by side."""
        seeds = self.config.get("seeds")
        return len(cast(Sequence[object], seeds)) if isinstance(seeds, list) else 1

    def part(self, name: str) -> Record:
        """The configuration of one part of the experiment, for example "objective"."""
        return section(section(self.config, "experiment"), name)


def read(run_dir: Path) -> RunData:
    """Read the folder `run_dir`.

    Raises:
        ValueError: `config.json` is missing, unreadable or of a later format.
    """
    notes: list[str] = []
    config = _read_config(run_dir / "config.json")
    summary = section(config, "summary")
    records = _read_lines(run_dir / "metrics.jsonl", notes)
    train = tuple(r for r in records if r.get("kind") == "train")
    evaluations = tuple(r for r in records if r.get("kind") == "evaluation")
    final = _read_final(run_dir / "evaluation.json", evaluations, _how_to_evaluate(config), notes)
    if evaluations and final is evaluations[-1]:
        final = _completed(final, train, summary)
    notes.extend(_progress(final, train, summary))
    pictured = _read_target(run_dir / "snapshots" / "target.npz", notes)
    target = None if pictured is None else pictured.panels
    return RunData(
        path=run_dir,
        config=config,
        train=train,
        evaluations=evaluations,
        final=final,
        pictured=pictured,
        snapshots=tuple(_read_snapshots(run_dir / "snapshots", target, notes)),
        diagnostics=_read_diagnostics(run_dir / "diagnostics.npz", notes),
        found=_read_found(run_dir / "found.json", config, notes)
        if summary.get("space") == "strings" and summary.get("alphabet")
        else None,
        notes=tuple(notes),
    )


def section(record: Record, key: str) -> Record:
    """The object at `key`, empty if there is none."""
    value = record.get(key)
    return cast(Record, value) if isinstance(value, dict) else {}


def scalar(record: Record, key: str) -> float | None:
    """The finite number at `key` (the mean, if it is a list), or None."""
    known = [v for v in values(record, key) if math.isfinite(v)]
    return float(sum(known)) / len(known) if known else None


def values(record: Record, key: str) -> Floats:
    """The numbers at `key`, one per seed; NaN where null or not a number."""
    entry = record.get(key)
    entries = cast(list[object], entry) if isinstance(entry, list) else [entry]
    return np.array([_as_float(e) for e in entries[:_MAX_SEEDS]], dtype=np.float64)


def series(records: Iterable[Record], key: str, by: str = "reward_calls") -> tuple[Floats, Floats]:
    """The course of `key` in training: reward calls, or what `by` names, [n] and values
    [n, seeds].

    Records without the key are left out; missing seeds are NaN.
    """
    rows = [(scalar(r, by), values(r, key)) for r in records if r.get(key) is not None]
    known = [(x, y) for x, y in rows if x is not None and np.isfinite(y).any()]
    seeds = max((y.size for _, y in known), default=0)
    table = np.full((len(known), seeds), np.nan)
    for row, (_, y) in zip(table, known, strict=True):
        row[: y.size] = y
    return np.array([x for x, _ in known], dtype=np.float64), table


def _as_float(entry: object) -> float:
    if isinstance(entry, int | float):
        try:
            number = float(entry)
        except OverflowError:
            return math.nan
        # Beyond, squares overflow; NaN is not below either.
        return number if abs(number) < 1e100 else math.nan
    return math.nan


def _read_config(path: Path) -> Record:
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file, so this is no run folder; "
            + "give the folder that `didact train --out` wrote"
        )
    try:
        config = read_object(path)
    except _UNREADABLE as error:
        raise ValueError(
            f"{path}: not a readable configuration ({in_short(error)}); restore it from a copy or "
            + "train again"
        ) from error
    version = config.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format_version is {repr(version)[:40]}, this version of didact reads "
            + f"{FORMAT_VERSION}; use the version that wrote it (`didact_version` in the file)"
        )
    return config


def _read_lines(path: Path, notes: list[str]) -> list[Record]:
    """The objects of a file with one on each line; broken lines are counted, not fatal."""
    records: list[Record] = []
    broken, last_is_broken = 0, False
    try:
        for line in read_lines(path):
            if not line.strip():
                continue
            record = _record(line)
            broken, last_is_broken = broken + (record is None), record is None
            if record is not None:
                records.append(record)
            if len(records) > _MAX_ROWS:
                raise ValueError(f"it has more than {_MAX_ROWS:,} rows")
    except OSError:
        notes.append("metrics.jsonl is missing: there are no curves of the training.")
    except ValueError:
        notes.append("metrics.jsonl is longer than a run writes it: its end was ignored.")
    if last_is_broken:
        notes.append("The last line of metrics.jsonl is cut off and was ignored.")
        broken -= 1
    if broken:
        notes.append(f"{broken} unreadable line(s) of metrics.jsonl were ignored.")
    return records


def _record(line: bytes) -> Record | None:
    """The object that a line holds; None if it is broken."""
    try:
        content = cast(object, parse(line))
    except ValueError:
        return None
    return cast(Record, content) if isinstance(content, dict) else None


def _read_final(
    path: Path, evaluations: Sequence[Record], how_to_evaluate: str, notes: list[str]
) -> Record:
    """The newer one of `evaluation.json` and the last evaluation of the training."""
    newest = scalar(evaluations[-1], "step") if evaluations else None
    try:
        final = read_object(path)
        step = scalar(final, "step")
        if step is None or newest is None or step >= newest:
            return final
        problem = f"evaluation.json is of step {step:,.0f}"
    except FileNotFoundError:
        problem = "evaluation.json is missing"
    except _UNREADABLE:
        problem = "evaluation.json cannot be read"
    if evaluations:
        at_step = "" if newest is None else f" at step {newest:,.0f}"
        notes.append(
            f"{problem}: the verdict is the last one of the training{at_step}. "
            + f"{how_to_evaluate} makes a full one of the newest checkpoint."
        )
        return evaluations[-1]
    notes.append(f"{problem}: {how_to_evaluate} makes it.")
    return {}


def _completed(row: Record, train: Sequence[Record], summary: Record) -> Record:
    """An evaluation of the training, with what only `evaluation.json` has beside its numbers."""
    at_step = next((r for r in train if r.get("step") == row.get("step")), {})
    known: dict[str, object] = {
        "num_modes": summary.get("num_modes"),
        "mode_mass_target": summary.get("mode_mass"),
        "log_z_true": summary.get("log_z"),
        "modes_found": at_step.get("modes_found"),
        "modes_found_student": at_step.get("modes_found_student"),
    }
    return {k: v for k, v in known.items() if v is not None} | dict(row)


def _progress(final: Record, train: Sequence[Record], summary: Record) -> Iterable[str]:
    """Notes on a verdict that is older than the training, and on a training not at its end."""
    judged, reached = scalar(final, "step"), _last_step(train, final)
    total = scalar(summary, "steps")
    if judged is not None and reached is not None and judged < reached:
        yield (
            f"The verdict is of step {judged:,.0f}, training has gone on to step {reached:,.0f}."
        )
    if reached is not None and total is not None and reached < total:
        yield f"The training is unfinished: {reached:,.0f} of {total:,.0f} steps."


def _last_step(train: Sequence[Record], final: Record) -> float | None:
    steps = [scalar(record, "step") for record in (final, *train[-1:])]
    return max((step for step in steps if step is not None), default=None)


def _how_to_evaluate(config: Record) -> str:
    """The command line cannot load what it would have to import from elsewhere."""
    return "`run.evaluate()` in Python" if _foreign(config) else "`didact evaluate` on this folder"


def _foreign(config: Record) -> tuple[str, ...]:
    return foreign_names(config.get("experiment"))


def _read_target(path: Path, notes: list[str]) -> TargetPicture | None:
    try:
        names = ("target", "modes", "pairs", "extent", "density", "source")
        arrays = _arrays(path, *names)
        panels = _panels(arrays["target"])
        marginal = arrays["target"].ndim == 3
        modes = np.asarray(arrays["modes"], dtype=np.bool_) if "modes" in arrays else None
        listed = _whole(arrays["pairs"]).reshape(-1, 2) if "pairs" in arrays else [(0, 1)]
        extent = _extent(arrays["extent"], panels) if "extent" in arrays else None
        density = _panels(arrays["density"])[0] if "density" in arrays else None
        source = str(arrays["source"]) if "source" in arrays else ""
    except FileNotFoundError:
        return None
    except _UNREADABLE:
        notes.append("snapshots/target.npz cannot be read: there are no pictures of densities.")
        return None
    if modes is not None and (panels.ndim != 3 or modes.shape != panels.shape[1:]):
        modes = None
    pairs = [(int(pair[0]), int(pair[1])) for pair in listed[: len(panels)]]
    pairs += [(0, 1)] * (panels.shape[0] - len(pairs))
    return TargetPicture(panels, modes, tuple(pairs), marginal, extent, density, source)


def _extent(array: NDArray[np.generic], panels: Floats) -> Floats:
    """Lowest and highest values, two for each axis of each panel."""
    extent = _floats(array)
    if extent.shape != (len(panels), 2 * (panels.ndim - 1)) or not np.isfinite(extent).all():
        raise ValueError("not the ends of the axes")
    if not (extent[:, 0::2] < extent[:, 1::2]).all():
        raise ValueError("an axis without length")
    return extent


def _read_diagnostics(path: Path, notes: list[str]) -> Diagnostics | None:
    try:
        names = ("coordinates", "x", "log_weight", "target_x", "backward_log_weight")
        arrays = _arrays(path, "format_version", *names, most=_MAX_POINTS)
        if int(arrays["format_version"]) != FORMAT_VERSION:
            raise ValueError("of another format")
        coordinates = tuple(int(c) for c in _whole(arrays["coordinates"]).ravel())
        found = Diagnostics(
            coordinates,
            x=_points(arrays["x"], len(coordinates)),
            log_weight=_floats(arrays["log_weight"]).ravel(),
            target_x=_points(arrays.get("target_x", np.zeros(0)), len(coordinates)),
            backward_log_weight=_floats(arrays.get("backward_log_weight", np.zeros(0))).ravel(),
        )
    except FileNotFoundError:
        return None
    except (*_UNREADABLE, TypeError):
        notes.append("diagnostics.npz cannot be read: there are no pictures of weights and draws.")
        return None
    return found


def _read_found(path: Path, config: Record, notes: list[str]) -> Found | None:
    again = f"{_how_to_evaluate(config)} makes it anew."
    try:
        if path.stat().st_size > _MAX_FOUND_BYTES:
            raise ValueError("too large")
        content = read_object(path)
        if content.get("format_version") != FORMAT_VERSION:
            raise ValueError("of another format")
        listed = content["best"]
        if not isinstance(listed, list) or not listed:
            raise ValueError("without strings")
        best = tuple(_found_string(entry) for entry in cast(list[object], listed)[:_MAX_FOUND])
        places = [v for v in values(content, "diverse") if np.isfinite(v) and 0 <= v < len(best)]
    except FileNotFoundError:
        notes.append(f"found.json is missing, so the best strings are not shown: {again}")
        return None
    except (*_UNREADABLE, TypeError, RecursionError):
        notes.append(f"found.json cannot be read, so the best strings are not shown: {again}")
        return None
    return Found(
        best,
        tuple(dict.fromkeys(int(place) for place in places)),
        _text(content.get("distance")) or "distance",
        scalar(content, "mean_distance"),
        scalar(content, "num_draws"),
    )


def _found_string(entry: object) -> FoundString:
    if not isinstance(entry, dict):
        raise ValueError("not a string with its values")
    record = cast(Record, entry)
    mode = record.get("mode")
    return FoundString(
        _text(record["string"]),
        scalar(record, "value"),
        scalar(record, "log_reward"),
        scalar(record, "log_prob"),
        mode if isinstance(mode, bool) else None,
        _text(record.get("smiles")) or None,
    )


def _text(value: object) -> str:
    """A text of a length that can be shown; empty for what is none."""
    return value[:_MAX_TEXT] if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    """The symbols of a string, or of a list, as far as they can be shown."""
    listed = [*value] if isinstance(value, str) else value
    if not isinstance(listed, list):
        return ()
    return tuple(_text(entry) for entry in cast(list[object], listed)[:_MAX_SYMBOLS])


def _points(array: NDArray[np.generic], coordinates: int) -> Floats:
    """Draws [m, coordinates]."""
    return _floats(array).reshape(-1, coordinates)


def _arrays(path: Path, *names: str, most: int = _MAX_CELLS) -> dict[str, NDArray[np.generic]]:
    """Those arrays of an npz file that are there, of so many numbers each at most; nothing in it is
    executed.
    """
    with open_to_read(path) as file:
        archive = Archive(file)
        there = [name for name in names if name in archive]
        if any(math.prod(archive.header(name).shape) > most for name in there):
            raise ValueError("it holds more numbers than a run writes")
        return {name: archive[name] for name in there}


def _floats(array: NDArray[np.generic]) -> Floats:
    with np.errstate(invalid="ignore"):  # some of the bits that are NaN are said to be invalid
        return np.asarray(array, dtype=np.float64)


def _whole(array: NDArray[np.generic]) -> NDArray[np.int64]:
    if array.dtype.kind not in "iu":
        raise ValueError("not whole numbers")
    return array.astype(np.int64)


def _panels(array: NDArray[np.generic]) -> Floats:
    """Probabilities as [n, side, side], or as [1, side] in one dimension."""
    panels = np.nan_to_num(_floats(array), nan=0.0, posinf=0.0, neginf=0.0)
    if panels.ndim not in (1, 2, 3) or panels.size == 0:
        raise ValueError("not a density over cells")
    panels = panels if panels.ndim == 3 else panels[None]
    if len(panels) > _MAX_PANELS:
        raise ValueError("more pictures than there are pairs")
    return panels


def _read_snapshots(folder: Path, target: Floats | None, notes: list[str]) -> Iterable[Snapshot]:
    """At most `MAX_FRAMES` snapshots, evenly spread, the first and the last among them; fewer where
    they are large.
    """
    paths = sorted(p for p in folder.glob("*.npz") if p.stem.isascii() and p.stem.isdecimal())
    frames = (
        MAX_FRAMES if target is None else max(2, min(MAX_FRAMES, _MAX_FRAME_CELLS // target.size))
    )
    left = 2 * _MAX_FRAME_CELLS
    keep = np.unique(np.linspace(0, len(paths) - 1, min(frames, len(paths))).round())
    unreadable = 0
    for path in (paths[int(i)] for i in keep):
        try:
            arrays = _arrays(path, "student", "teacher")
            student = _panels(arrays["student"])
            teacher = _panels(arrays["teacher"]) if "teacher" in arrays else None
        except _UNREADABLE:
            unreadable += 1
            continue
        expected = student.shape if target is None else target.shape
        left -= student.size * (1 if teacher is None else 2)
        if left < 0:
            unreadable += 1
        elif student.shape == expected and (teacher is None or teacher.shape == expected):
            yield Snapshot(int(path.stem), student, teacher)
        else:
            unreadable += 1
    if unreadable:
        notes.append(f"{unreadable} snapshot(s) cannot be read and are left out.")
    if not paths:
        notes.append("There are no snapshots: the pictures of densities are left out.")
