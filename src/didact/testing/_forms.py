"""Shapes and dtypes, found by tracing: nothing is compiled."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ._laws import Ledger, show

COMPILES = "its methods can be compiled and batched"
ACCEPTS = "its methods accept what they are to be given"


def numbers_as_arrays(thing: Any) -> Any:
    """An object as a training program sees it: plain numbers that are not static as arrays."""

    def convert(leaf: Any) -> Any:
        if isinstance(leaf, bool) or not isinstance(leaf, int | float):
            return leaf
        return jnp.asarray(leaf, jnp.int32 if isinstance(leaf, int) else jnp.result_type(float))

    return jax.tree.map(convert, thing)


@contextlib.contextmanager
def compiles(ledger: Ledger, what: str) -> Iterator[None]:
    """What is traced here must not ask for the value of an array."""
    try:
        yield
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
        reason = str(error).splitlines()[0].strip()
        ledger.breaks(
            COMPILES,
            f"{what} asks for the value of a traced array: what decides shapes or is looked at by "
            f"Python must be a field eqx.field(static=True). {reason}",
        )
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        reason = str(error).splitlines()[0].strip() if str(error) else "no message"
        ledger.breaks(ACCEPTS, f"{what} raises {type(error).__name__}: {reason}")


def form_of(ledger: Ledger, what: str, function: Callable[..., Any], *args: Any) -> Any:
    """Shapes and dtypes of what a function returns for traced arguments."""
    with compiles(ledger, what):
        return eqx.filter_eval_shape(function, *args)


def scalar_fault(what: str, form: Any, kind: type, word: str) -> str | None:
    """Why a form is not that of one number of a kind."""
    if not hasattr(form, "shape") or not hasattr(form, "dtype"):
        return f"{what} returns {show(form)}: it must be a JAX array."
    if form.shape != () or not jnp.issubdtype(form.dtype, kind):
        return f"{what} returns {show_form(form)}: it must be one {word}, of shape ()."
    return None


def difference(what: str, form: Any, wanted: Any, of: str) -> str | None:
    """Where two forms differ."""
    if jax.tree.structure(form) != jax.tree.structure(wanted):
        return f"{what} has the structure {show_form(form)}, {of} has {show_form(wanted)}."
    for one, other in zip(jax.tree.leaves(form), jax.tree.leaves(wanted), strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            return f"{what} is {show_form(form)}, {of} is {show_form(wanted)}."
    return None


def show_form(form: Any) -> str:
    """Shapes and dtypes in one line."""

    def short(leaf: Any) -> str:
        return f"{leaf.dtype}{list(leaf.shape)}"

    return show(jax.tree.map(short, form)).replace("'", "")
