"""The folder of a run: its lock, its configuration, and whether it holds the run that is meant."""

import contextlib
import dataclasses
import datetime
import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ._config import foreign_names, renewed, to_json
from ._describe import describe
from ._experiment import Experiment
from ._files import in_short, is_half_written, make_folder, read_object, write_whole
from ._probe import differing_reward, probe
from ._version import __version__
from .metrics import finite_or_none
from .targets import HostReward

FORMAT_VERSION = 1
_MAX_DIFFERENCES, _MAX_NAME = 6, 200
_NOT_OF_THE_EXPERIMENT = (
    *("out", "seed", "seeds", "evaluations", "draws", "extend", "skip_nonfinite"),
    *("checkpoint_seconds", "checkpoint_steps", "keep_checkpoints", "keep_best"),
    *(*HostReward.execution, "no_cache"),
)
_LABELS = (
    *("task", "preset", "dim", "side", "convention", "sigma", "num_steps", "steps", "batch_size"),
)


class RunError(ValueError):
    """A run folder cannot be used; the message says why and what to do."""


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Make a folder, and keep other processes from training in it at the same time."""
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} exists and is not a run folder: choose another folder.")
    make_folder(path)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise RunError(
            f"another process is training in {path}: wait for it, or choose another folder."
        ) from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(folder)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What keeps a file of a run from being written becomes an error of the run."""
    try:
        yield
    except OSError as error:
        file = error.filename
        if not isinstance(file, str | Path) or not Path(file).is_relative_to(path):
            raise
        remedy = {
            errno.ENOSPC: "make room",
            errno.EDQUOT: "make room",
            errno.EROFS: "make the folder writable",
            errno.EACCES: "make the folder writable",
            errno.EPERM: "make the folder writable",
        }.get(error.errno or 0, "look after its disk")
        raise RunError(
            f"{file} cannot be used ({error.strerror or error}): {remedy}, and the run goes on "
            "from its newest checkpoint."
        ) from error


@contextlib.contextmanager
def run_errors() -> Iterator[None]:
    """What is wrong with the files of a run is an error of the run."""
    try:
        yield
    except ValueError as error:
        raise RunError(str(error)) from error


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a run folder, of this format, as plain values."""
    file = path / "config.json"
    if not path.exists():
        raise RunError(f"{path} does not exist: name the folder of a run.")
    if not file.is_file():
        raise RunError(f"{path} is not a run folder: it has no config.json.")
    try:
        config = read_object(file)
        for name, kind in {"format_version": int, "seeds": list, "experiment": dict}.items():
            if not isinstance(config.get(name), kind):
                raise ValueError(f"its {name} is missing")
    except ValueError as error:
        raise damaged(file, error) from error
    version = config["format_version"]
    if version != FORMAT_VERSION:
        raise RunError(f"{file} has format version {version}: update didact to read it.")
    return config


def damaged(file: Path, error: Exception) -> RunError:
    """What to say of a file that is not as it was written."""
    return RunError(
        f"{file} cannot be used ({in_short(error)}): restore it, or train into another folder."
    )


def how_to_give(path: Path, experiment: Any, given: Mapping[str, Any]) -> str:
    """What to do about the objects of the user's that a configuration names."""
    missing = [name for name in foreign_names(experiment) if name not in given]
    listed = ", ".join(f"{name[:_MAX_NAME]!r}: ..." for name in missing[:_MAX_DIFFERENCES])
    return (
        f"{path / 'config.json'} cannot be read here, as it names what is not part of didact: "
        f"didact.Run.load({str(path)!r}, given={{{listed}}}) reads it, with the "
        f"object{'s themselves' if len(missing) > 1 else ' itself'} in place of the dots."
    )


def lengths_of(config: Mapping[str, Any]) -> tuple[int, ...]:
    """The numbers of steps that a run was to have: at first, and each time that it was made longer.

    **Errors:** `ValueError` for a configuration that says something else.
    """
    steps = config["experiment"].get("steps")
    lengths = config.get("lengths", [steps])
    whole = isinstance(lengths, list) and all(type(length) is int for length in lengths)
    if not whole or lengths[-1:] != [steps] or lengths != sorted({*lengths} - {0}):
        raise ValueError("its lengths are not its numbers of steps")
    return tuple(lengths)


def open_run(
    path: Path,
    experiment: Experiment,
    seeds: tuple[int, ...],
    total: int,
    labels: Mapping[str, Any],
) -> dict[str, Any]:
    """The configuration of the run that a folder holds, if it is this one; of a new one in an empty
    folder.

    **Arguments:** `total`: steps that the run is to have. Where these are more than those of the
    experiment, whose schedules stay what they are, a run that has fewer is made longer.
    """
    if (path / "config.json").exists():
        config = read_config(path)
        try:
            lengths = lengths_of(config)
        except ValueError as error:
            raise damaged(path / "config.json", error) from error
        difference = _difference(config, lengths, experiment, seeds, total, labels)
        difference = difference or differing_reward(config.get("probe"), experiment)
        if difference:
            longer = total > lengths[-1] and experiment.steps == total
            hint = f", or make this run longer (extend={total}, --extend {total})" if longer else ""
            raise RunError(f"{path} holds another run ({difference}): choose another folder{hint}.")
        changed = _changed(config, lengths, experiment, total, labels)
        if changed != config:
            write_json(path / "config.json", changed)
        return changed
    if not all(is_half_written(file) for file in path.iterdir()):
        raise RunError(f"{path} exists and is not a run folder: choose another folder.")
    made = dataclasses.replace(experiment, steps=total)
    facts = describe(made) | dict(labels)
    config = {
        "format_version": FORMAT_VERSION,
        "didact_version": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seeds": list(seeds),
        "lengths": sorted({experiment.steps, total}),
        "command": facts.pop("command", "didact.train(...)"),
        "summary": facts,
        "experiment": to_json(made),
    }
    if foreign_names(config["experiment"]):
        config["probe"] = probe(experiment, seeds)
    write_json(path / "config.json", config)
    return config


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object; numbers that are not finite become null."""
    text = json.dumps(finite_or_none(dict(value)), indent=2, allow_nan=False)
    with write_whole(path) as file:
        file.write(f"{text}\n".encode())


def _changed(
    config: Mapping[str, Any],
    lengths: tuple[int, ...],
    experiment: Experiment,
    total: int,
    labels: Mapping[str, Any],
) -> dict[str, Any]:
    """The configuration with what a run that goes on may have otherwise: more steps, and steps that
    are skipped and not its end.
    """
    stored = config["experiment"]
    changed = {"steps": total, "skip_nonfinite": experiment.skip_nonfinite}
    if total == lengths[-1] and experiment.skip_nonfinite == stored.get("skip_nonfinite", False):
        return dict(config)
    summary = config.get("summary")
    summary = summary if isinstance(summary, dict) else {}
    said = {name: value for name, value in labels.items() if name != "command"}
    return dict(config) | {
        "lengths": sorted({*lengths, total}),
        "command": labels.get("command", config.get("command")),
        "summary": summary | said | {"steps": total},
        "experiment": stored | changed,
    }


def _difference(
    config: Mapping[str, Any],
    lengths: tuple[int, ...],
    experiment: Experiment,
    seeds: Sequence[int],
    total: int,
    labels: Mapping[str, Any],
) -> str:
    """Everything in which a run differs from the one that is wanted; empty if nothing."""
    found: dict[str, tuple[str, str]] = {}
    if config["seeds"] != list(seeds):
        found["seeds"] = repr(config["seeds"]), repr(list(seeds))
    stored = config["experiment"]
    with contextlib.suppress(RecursionError):
        stored = renewed(stored)
    wanted = to_json(dataclasses.replace(experiment, steps=total))
    if experiment.steps in lengths and total >= lengths[-1]:  # as long, or to be made longer
        wanted["steps"] = stored.get("steps")
    if experiment.skip_nonfinite:  # what went on so far skipped nothing, and would not have
        stored = stored | {"skip_nonfinite": True}
    have, want = _flat(stored), _flat(wanted)
    differing = sorted(k for k in have.keys() | want.keys() if have.get(k) != want.get(k))
    if differing:
        # What the user said explains more than where in the experiment it ended up.
        shown = describe(experiment) | dict(labels) | {"steps": wanted["steps"]}
        said, complete = _said_differently(config.get("summary"), shown)
        if not (said and complete):
            differing = [name for name in differing if name.rpartition(".")[2] not in said]
            said |= {name: (repr(have.get(name)), repr(want.get(name))) for name in differing}
        found |= said
    shown = [f"{name} is {there} there, {here} here" for name, (there, here) in found.items()]
    more = len(shown) - _MAX_DIFFERENCES
    return "; ".join(shown[:_MAX_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")


def _said_differently(
    labels: Any, facts: Mapping[str, Any]
) -> tuple[dict[str, tuple[str, str]], bool]:
    """Labels in which two runs differ; and the options, where both were made by the command line,
    of which these are all that there is to say.
    """
    if not isinstance(labels, dict):
        return {}, False
    said = {
        name: (repr(labels.get(name)), repr(facts.get(name)))
        for name in _LABELS
        if labels.get(name) != facts.get(name)
    }
    there, here = labels.get("options"), facts.get("options")
    if not (isinstance(there, dict) and isinstance(here, dict)):
        return said, False
    for name in dict.fromkeys((*there, *here)):
        if name not in (*said, *_NOT_OF_THE_EXPERIMENT) and there.get(name) != here.get(name):
            said[name] = _option(there, name), _option(here, name)
    return said, True


def _option(options: Mapping[str, Any], name: str) -> str:
    return repr(options[name]) if name in options else "the default"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = ((str(i), item) for i, item in enumerate(value))
    else:
        return {prefix: value}
    flat = {}
    for name, item in items:
        flat |= _flat(item, f"{prefix}.{name}" if prefix else str(name))
    return flat
