"""What belongs to the whole process, which no object may change."""

import contextlib
import inspect
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from ._laws import Ledger

LAW = "nothing that belongs to the whole process changes"


@contextlib.contextmanager
def unchanged(ledger: Ledger, thing: object) -> Iterator[None]:
    """Compare the state of the process before and after: while an object is made again from its
    attributes, where that is possible, and while it is checked.
    """
    before = _snapshot()
    _make_again(ledger, thing)
    _compare(ledger, before, "its constructor")
    yield
    _compare(ledger, before, "one of its methods")


def _snapshot() -> dict[str, Any]:
    return {
        "NumPy's global random state": _numpy_state(),
        "NumPy's handling of floating-point errors": np.geterr(),
        "the settings of JAX": dict(jax.config.values),
        "the environment variables": dict(os.environ),
    }


def _numpy_state() -> tuple[Any, ...]:
    name, words, *rest = np.random.get_state()  # noqa: NPY002
    return name, np.asarray(words).tobytes(), *rest


def _compare(ledger: Ledger, before: dict[str, Any], who: str) -> None:
    now = _snapshot()
    changed = [name for name, value in before.items() if now[name] != value]
    ledger.holds(LAW, f"{who} changes {' and '.join(changed)}." if changed else None)


class _NotMadeAgain(Exception):
    """A constructor does not take what the object has of its arguments."""


def _make_again(ledger: Ledger, thing: object) -> None:
    parameters = inspect.signature(type(thing)).parameters.values()
    given = {p.name: getattr(thing, p.name) for p in parameters if hasattr(thing, p.name)}
    if any(p.default is p.empty and p.name not in given for p in parameters):
        ledger.leave_out("its constructor: not all of its arguments are attributes")
        return
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        _check_random_states(ledger, lambda: type(thing)(**given))
    except _NotMadeAgain as error:
        ledger.leave_out(f"its constructor: it does not take its own attributes ({error})")
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002


def _check_random_states(ledger: Ledger, make: Callable[[], object]) -> None:
    """From states that no constructor would set."""
    seeds = iter((0x5EED1, 0x5EED2))

    def after() -> tuple[bool, bool, object]:
        seed = next(seeds)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        before = random.getstate(), _numpy_state()
        try:
            make()
        except Exception as error:  # whatever a constructor of the user's raises
            raise _NotMadeAgain(str(error)) from error
        now = random.getstate(), _numpy_state()
        return now[0] != before[0], now[1] != before[1], now[0]

    python, numpy, state = after()
    ledger.holds(LAW, "its constructor changes NumPy's global random state." if numpy else None)
    # That something draws from Python's is no fault of the object: checkers of types do.
    seeded = python and after()[2] == state
    ledger.holds(LAW, "its constructor seeds Python's random state." if seeded else None)
