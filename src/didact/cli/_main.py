"""The entry point: which command is meant, and how it ends."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .._version import __version__
from ._bench import Bench, bench
from ._commands import Evaluate, List, Report, Sample, evaluate, listing, report, sample
from ._compare import Compare, compare
from ._data import data
from ._density import train_density
from ._parse import parse
from ._process import BadInput, enough_memory, extras, note, show, termination, warnings
from ._reproduce import Reproduce, reproduce
from ._train import train

_COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "sample": (Sample, sample),
    "evaluate": (Evaluate, evaluate),
    "report": (Report, report),
    "list": (List, listing),
    "bench": (Bench, bench),
    "compare": (Compare, compare),
    "reproduce": (Reproduce, reproduce),
}

_USAGE = f"""didact {__version__}: amortized samplers, taught where they are wrong.

  didact train grid      train on the deceptive grid; the same command resumes
  didact train 25gmm     train a diffusion sampler; also 40gmm, manywell-32, funnel, ...
  didact train qm9       train on strings; also seh, tfbind8, l14-rna1
  didact train --density MODULE:FUNCTION --dim N
                         fit a density of your own, with a verdict
  didact train sequence --alphabet ACGT --length 12 --reward MODULE:FUNCTION
                         train on strings with a reward of your own
  didact data fetch all  get the data of qm9, seh and tfbind8
  didact sample RUN      draw from a trained Student into .npz or .csv
  didact evaluate RUN    verdict on the trained Student
  didact report RUN      write report.html
  didact compare RUN RUN what differs in runs, with paired differences
  didact bench           compare methods on tasks, over seeds
  didact reproduce grid  make the paper's tables; also diffusion, biochem, all
  didact list            all tasks, presets, environments and targets

didact COMMAND --help shows the options of a command."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `didact` command."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # XLA warns in capitals of a slow compilation, which any busy machine has. What is an error
    # comes as an exception.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names of any kind can be shown
    try:
        with termination(), warnings(), enough_memory(), extras():
            code = _dispatch(arguments)
    except BadInput as error:
        note(f"didact: {error}")
        code = 2
    except KeyboardInterrupt:
        note("didact: stopped.")
        code = 130
    except BrokenPipeError:
        # The reader of our output left (didact list | head): nothing is wrong.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        show(_USAGE)
        return 0 if arguments else 2
    name, *rest = arguments
    if name == "--version":
        show(f"didact {__version__}")
        return 0
    if name == "train":
        if rest[:1] in (["-h"], ["--help"]):
            show(_USAGE)
            return 0
        if any(word.partition("=")[0] == "--density" for word in rest):
            return train_density(rest)
        return train(rest)
    if name == "data":
        return data(rest)
    if name in _COMMANDS:
        options, command = _COMMANDS[name]
        return command(parse(options, name, rest))
    names = ", ".join(["train", "data", *_COMMANDS])
    raise BadInput(f"unknown command {name!r}; the commands are {names} (didact --help).")
