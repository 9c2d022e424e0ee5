"""What a check says: the laws that hold, or the one that is broken."""

import dataclasses
from collections.abc import Callable
from typing import Any, NoReturn

import equinox as eqx
import jax
import numpy as np
from numpy.typing import ArrayLike

_LONGEST = 160


class ConformanceError(AssertionError):
    """A law that an object breaks. The message says which one, on what, and by how much."""


@dataclasses.dataclass(frozen=True)
class Checked:
    """What a check has found to hold; `print` shows it.

    `subject` is the object, `laws` are the laws that hold, `extent` says over how many states,
    draws or trajectories, and `left_out` what could not be checked, and why.
    """

    subject: str
    laws: tuple[str, ...]
    extent: str
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.subject}: {len(self.laws)} laws hold, over {self.extent}."]
        lines += [f"  + {law}" for law in self.laws]
        lines += [f"  - not checked: {reason}" for reason in self.left_out]
        return "\n".join(lines)


class Ledger:
    """The laws that an object has been found to obey so far.

    **Arguments:** `shared_features`: as in `check_environment`.
    """

    def __init__(self, subject: object, *, shared_features: bool = False):
        self.subject, self.shared_features = show(subject), shared_features
        self._object = subject
        self._laws: list[str] = []
        self._left_out: list[str] = []

    def holds(self, law: str, fault: str | None) -> None:
        """Note a law, or raise where there is a fault."""
        if fault is not None:
            self.breaks(law, fault)
        if law not in self._laws:
            self._laws.append(law)

    def breaks(self, law: str, fault: str) -> NoReturn:
        """Raise `ConformanceError`."""
        raise ConformanceError(f"{self.subject} breaks the law '{law}':\n{fault}")

    def must_be(self, kind: type, module: str, *, otherwise: str = "") -> None:
        """Raise if the object is not of a kind, which users find in a module of the package."""
        law = f"it is {'an' if kind.__name__[0] in 'AEIO' else 'a'} {kind.__name__}"
        if isinstance(self._object, type) and issubclass(self._object, kind):
            self.breaks(law, f"This is the class {self._object.__name__}: give an instance of it.")
        if not isinstance(self._object, kind):
            self.breaks(law, f"Subclass didact.{module}.{kind.__name__}{otherwise}.")

    def leave_out(self, reason: str) -> None:
        """Note what could not be checked."""
        if reason not in self._left_out:
            self._left_out.append(reason)

    def close(self, extent: str) -> Checked:
        """The summary."""
        return Checked(self.subject, tuple(self._laws), extent, tuple(self._left_out))


def all_finite(tree: Any) -> bool:
    """Whether no number of some arrays is infinite or NaN."""
    return all(bool(np.all(np.isfinite(leaf))) for leaf in jax.tree.leaves(tree))


def fault_at(bad: ArrayLike, describe: Callable[..., str], unit: str) -> str | None:
    """The first place of an array that is bad, described by its indices, and how many there are."""
    bad = np.asarray(bad)
    if not bad.any():
        return None
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"{describe(*place)} ({np.count_nonzero(bad)} of {bad.size} {unit})."


def show(value: Any) -> str:
    """An object in one line, arrays of more than a few numbers by their shapes."""
    text = " ".join(eqx.tree_pformat(value, width=10**6).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def show_state(state: Any) -> str:
    """A state, an object or an action in one line, with its numbers."""

    def short(leaf: Any) -> Any:
        return np.array2string(
            np.asarray(leaf), separator=", ", precision=4, threshold=12, max_line_width=10**6
        )

    return show(jax.tree.map(short, state)).replace("'", "")


def take(tree: Any, *place: int) -> Any:
    """One entry of a tree of batched arrays."""
    return jax.tree.map(lambda leaf: leaf[place], tree)
