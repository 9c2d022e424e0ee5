"""Positions under constraints, as an unconstrained vector."""

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ._checks import require

Position = PyTree


class _Leaf(eqx.Module):
    """The map from a piece of the vector to one array of the position."""

    name: eqx.AbstractVar[str]
    shape: eqx.AbstractVar[tuple[int, ...]]
    """Of the array."""
    dtype: eqx.AbstractVar[str]
    """Of the array, and of all arithmetic here: what is inside the bounds is so in this dtype."""
    free_shape: eqx.AbstractVar[tuple[int, ...]]
    """Of the unconstrained numbers; each is named by the entry at its place in the array."""

    @abc.abstractmethod
    def forward(self, z: Float[Array, " *free"]) -> Float[Array, " *shape"]:
        """The array."""

    @abc.abstractmethod
    def inverse(self, x: Float[Array, " *shape"]) -> Float[Array, " *free"]:
        """The unconstrained numbers; NaN outside the constraint."""

    @abc.abstractmethod
    def log_det(self, z: Float[Array, " *free"]) -> Float[Array, ""]:
        """log|det dx/dz|."""

    @abc.abstractmethod
    def is_free(self) -> np.ndarray:
        """Which of the unconstrained numbers are entries of the array themselves."""

    @abc.abstractmethod
    def arguments(self) -> tuple[Array, Array, bool]:
        """Lower bounds, upper bounds, and whether it is a simplex, as given."""


class _Interval(_Leaf):
    """Entries between bounds, each its own: identity, exponential or scaled logistic."""

    lower: Float[Array, " *shape"]
    upper: Float[Array, " *shape"]
    least: Float[Array, " *shape"]
    most: Float[Array, " *shape"]
    """The outermost numbers inside the bounds."""
    name: str = eqx.field(static=True)

    def __init__(self, name: str, lower: np.ndarray, upper: np.ndarray):
        wrong = ~(lower < upper)
        if wrong.any():
            at = np.unravel_index(np.argmax(wrong), wrong.shape)
            raise ValueError(
                f"bounds of {_label(name, at)}: lower must be < upper (in {lower.dtype}), got "
                f"lower {lower[at]} and upper {upper[at]}."
            )
        least, most = _next(lower, upper), _next(upper, lower)
        with np.errstate(over="ignore", invalid="ignore"):
            width = np.where(np.isfinite(lower) & np.isfinite(upper), upper - lower, 1)
        if not (np.all(least < most) and np.isfinite(width).all()):
            raise ValueError(
                f"bounds of {name} lie too close together or too far apart for {lower.dtype}: "
                "rescale the parameter, or leave a far bound out (None)."
            )
        self.lower, self.upper = jnp.asarray(lower), jnp.asarray(upper)
        self.least, self.most = jnp.asarray(least), jnp.asarray(most)
        self.name = name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.lower.shape

    @property
    def dtype(self) -> str:
        return str(self.lower.dtype)

    @property
    def free_shape(self) -> tuple[int, ...]:
        return self.lower.shape

    def _cases(self) -> tuple[Array, Array, Array, Array, Array]:
        """Has a lower and an upper bound; both with 0 for none; their distance, or 1."""
        below, above = jnp.isfinite(self.lower), jnp.isfinite(self.upper)
        lower, upper = jnp.where(below, self.lower, 0), jnp.where(above, self.upper, 0)
        return below, above, lower, upper, jnp.where(below & above, upper - lower, 1)

    def forward(self, z: Float[Array, " *free"]) -> Float[Array, " *shape"]:
        below, above, lower, upper, width = self._cases()
        # Measured from the nearer bound, where floating-point numbers may be denser.
        step = width * jax.nn.sigmoid(-jnp.abs(z))
        two_sided = jnp.where(z < 0, lower + step, upper - step)
        grown = jnp.exp(_within_exp(z))
        one_sided = jnp.where(below, lower + grown, upper - grown)
        bounded = jnp.where(below & above, two_sided, one_sided)
        return jnp.where(below | above, jnp.clip(bounded, self.least, self.most), z)

    def inverse(self, x: Float[Array, " *shape"]) -> Float[Array, " *free"]:
        below, above, lower, upper, _ = self._cases()
        over = jnp.log(jnp.where(below, x - lower, 1))
        under = jnp.log(jnp.where(above, upper - x, 1))
        one_sided = jnp.where(below, over, under)
        return jnp.where(below | above, jnp.where(below & above, over - under, one_sided), x)

    def log_det(self, z: Float[Array, " *free"]) -> Float[Array, ""]:
        below, above, _, _, width = self._cases()
        two_sided = jnp.log(width) - jax.nn.softplus(z) - jax.nn.softplus(-z)
        # Beyond the numbers that exp can give, where x stays as it is, it falls off.
        inside = _within_exp(z)
        one_sided = inside - jnp.abs(z - inside)
        bounded = jnp.where(below & above, two_sided, one_sided)
        return jnp.sum(jnp.where(below | above, bounded, 0))

    def is_free(self) -> np.ndarray:
        return np.asarray(~(jnp.isfinite(self.lower) | jnp.isfinite(self.upper)))

    def arguments(self) -> tuple[Array, Array, bool]:
        return self.lower, self.upper, False


class _Simplex(_Leaf):
    """Rows of K positive numbers that sum to 1, by stick-breaking."""

    name: str = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    dtype: str = eqx.field(static=True)

    def __init__(self, name: str, shape: tuple[int, ...], dtype: str):
        if not shape or shape[-1] < 2:
            raise ValueError(
                f"simplex {name} needs a last axis of at least 2, got shape {shape}: a single "
                "weight is always 1, leave it out of the position."
            )
        self.name, self.shape, self.dtype = name, shape, dtype

    @property
    def free_shape(self) -> tuple[int, ...]:
        return (*self.shape[:-1], self.shape[-1] - 1)

    def _log_parts(self, z: Array) -> tuple[Array, Array, Array]:
        """Logs of the share broken off, of the share left, and of the stick before the break."""
        # The offset makes z = 0 the centre (1/K, ..., 1/K).
        shifted = z - jnp.log(jnp.arange(z.shape[-1], 0, -1, dtype=z.dtype))
        off, left = -jax.nn.softplus(-shifted), -jax.nn.softplus(shifted)
        return off, left, jnp.cumsum(left, axis=-1) - left

    def forward(self, z: Float[Array, " *free"]) -> Float[Array, " *shape"]:
        off, left, stick = self._log_parts(z)
        log_x = jnp.concatenate([stick + off, (stick + left)[..., -1:]], axis=-1)
        limits = jnp.finfo(z.dtype)
        return jnp.clip(jnp.exp(log_x), limits.tiny, 1 - limits.epsneg)

    def inverse(self, x: Float[Array, " *shape"]) -> Float[Array, " *free"]:
        rest = jnp.cumsum(x[..., ::-1], axis=-1)[..., ::-1]
        pieces = jnp.arange(x.shape[-1] - 1, 0, -1, dtype=x.dtype)
        return jnp.log(x[..., :-1]) - jnp.log(rest[..., 1:]) + jnp.log(pieces)

    def log_det(self, z: Float[Array, " *free"]) -> Float[Array, ""]:
        off, left, stick = self._log_parts(z)
        return jnp.sum(off + left + stick)

    def is_free(self) -> np.ndarray:
        return np.zeros(self.free_shape, bool)

    def arguments(self) -> tuple[Array, Array, bool]:
        unbounded = jnp.full(self.shape, jnp.inf, self.dtype)
        return -unbounded, unbounded, True


class Constraint(eqx.Module):
    r"""A position of any shape under constraints, as an unconstrained vector z [n].

    $$x = T(z), \qquad \log p(z) = \log p(T(z)) + \log\lvert\det T'(z)\rvert$$

    | entry of the position | transform |
    |---|---|
    | without bounds | x = z |
    | lower bound l | x = l + exp(z) |
    | upper bound u | x = u − exp(z) |
    | both | x = l + (u − l) / (1 + exp(−z)) |
    | rows of K weights that sum to 1 | stick-breaking: K − 1 numbers z |

    A bounded side takes the exponential and not softplus, because it is usually a scale: another
    unit is then a shift of z, and tails such as those of half-Cauchy or inverse Gamma densities
    become exponential ones.

    **Arguments:**

    - `template`: a number d for positions that are vectors [d]; or one position: a pytree of
      floats, arrays or `jax.ShapeDtypeStruct`s, of which shapes and dtypes matter;
    - `bounds`: (lower, upper), each a number, None or ±inf for no bound, an array, or a pytree
      of these that is a prefix of the position;
    - `simplex`: True, or a pytree of booleans that is a prefix of the position: leaves that are
      points of the probability simplex over their last axis. A density of them is understood
      with respect to Lebesgue measure on the first K − 1 weights, as Dirichlet's is.

    Everything is finite for every finite z, with finite gradients: positions stay inside their
    bounds, at the last representable number where the exact one is beyond it (a row of weights
    sums to 1 up to rounding).

    **Errors:** `ValueError` for a template that is empty or not of float32 or float64, bounds or
    simplex of another structure, lower >= upper, a simplex over fewer than 2 weights, and bounds
    of a simplex that cut into it.

    Reference: the Stan Reference Manual, chapter "Constraint Transforms".
    """

    leaves: tuple[_Leaf, ...]
    structure: Any = eqx.field(static=True)

    def __init__(
        self,
        template: int | PyTree,
        bounds: PyTree = None,
        simplex: bool | PyTree = False,
    ):
        if isinstance(template, int | np.integer) and not isinstance(template, bool):
            require("dim", template, at_least=1)
            template = jax.ShapeDtypeStruct((int(template),), jnp.result_type(float))
        paths, self.structure = jax.tree.flatten_with_path(template)
        if not paths:
            raise ValueError("template has no arrays: give one position, or the dimension.")
        names = [_path_name(path) for path, _ in paths]
        structs = [_struct(name, leaf) for name, (_, leaf) in zip(names, paths, strict=True)]
        if bounds is None:
            bounds = (None, None)
        if not isinstance(bounds, tuple | list) or len(bounds) != 2:
            raise ValueError("bounds must be a pair (lower, upper); None stands for no bound.")
        lower = self._per_leaf("lower bounds", bounds[0], template)
        upper = self._per_leaf("upper bounds", bounds[1], template)
        weights = self._per_leaf("simplex", simplex, template)
        self.leaves = tuple(map(_leaf, names, structs, lower, upper, weights))

    def _per_leaf(self, what: str, prefix: PyTree, template: PyTree) -> list[Any]:
        """One value for each leaf of the position."""
        if jax.tree_util.treedef_is_leaf(self.structure):
            return [prefix]  # a list of numbers may stand for the array
        try:
            full = jax.tree.broadcast(prefix, template, is_leaf=lambda value: value is None)
        except ValueError as error:
            raise ValueError(
                f"{what} must be one value, or a pytree that matches the position: "
                f"{jax.tree.structure(prefix)} does not match {self.structure}."
            ) from error
        return jax.tree.leaves(full, is_leaf=lambda value: value is None)

    @property
    def size(self) -> int:
        """Number n of unconstrained coordinates."""
        return sum(math.prod(leaf.free_shape) for leaf in self.leaves)

    def to_position(self, z: Float[Array, " n"]) -> Position:
        """The position T(z)."""
        arrays = [leaf.forward(piece) for leaf, piece in self._pieces(z)]
        return jax.tree.unflatten(self.structure, arrays)

    def from_position(self, position: Position) -> Float[Array, " n"]:
        """The z of a position; NaN for entries outside their bounds, ±inf for those on them.

        **Errors:** `ValueError` for a position of another structure or shapes.
        """
        arrays = [jnp.asarray(leaf) for leaf in jax.tree.leaves(position)]
        expected = [leaf.shape for leaf in self.leaves]
        shapes = [array.shape for array in arrays]
        if jax.tree.structure(position) != self.structure or shapes != expected:
            raise ValueError(
                f"the position must have structure {self.structure} and shapes {expected}, got "
                f"{jax.tree.structure(position)} and {shapes}: give one like the template."
            )
        pieces = [
            leaf.inverse(array.astype(leaf.dtype)).reshape(-1)
            for leaf, array in zip(self.leaves, arrays, strict=True)
        ]
        return jnp.concatenate([piece.astype(jnp.result_type(float)) for piece in pieces])

    def log_det(self, z: Float[Array, " n"]) -> Float[Array, ""]:
        """log|det T'(z)|, with the first K − 1 weights of a simplex as its coordinates."""
        terms = [leaf.log_det(piece).astype(z.dtype) for leaf, piece in self._pieces(z)]
        return jnp.sum(jnp.stack(terms))

    def arguments(self) -> tuple[PyTree, tuple[PyTree, PyTree], PyTree]:
        """`template`, `bounds` and `simplex` that make the same constraint, one value a leaf."""
        structs = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in self.leaves]
        lower, upper, simplex = zip(*(leaf.arguments() for leaf in self.leaves), strict=True)
        template, lower, upper, simplex = (
            jax.tree.unflatten(self.structure, part) for part in (structs, lower, upper, simplex)
        )
        return template, (lower, upper), simplex

    def names(self) -> list[str]:
        """Labels of the numbers of a position, leaf by leaf: `x[0]`, `mu`, `net.weights[2, 0]`."""
        return [_label(leaf.name, at) for leaf in self.leaves for at in np.ndindex(leaf.shape)]

    def coordinate_names(self) -> list[str]:
        """Labels of the entries that the coordinates of z move [n]; K − 1 of a simplex."""
        return [_label(leaf.name, at) for leaf in self.leaves for at in np.ndindex(leaf.free_shape)]

    def is_free(self) -> np.ndarray:
        """Which coordinates of z are entries of the position as they stand [n]."""
        return np.concatenate([leaf.is_free().reshape(-1) for leaf in self.leaves])

    def _pieces(self, z: Array) -> list[tuple[_Leaf, Array]]:
        sizes = [math.prod(leaf.free_shape) for leaf in self.leaves]
        pieces = jnp.split(z, np.cumsum(sizes)[:-1])
        return [
            (leaf, piece.reshape(leaf.free_shape).astype(leaf.dtype))
            for leaf, piece in zip(self.leaves, pieces, strict=True)
        ]


def unconstrained_logdensity(
    logdensity_fn: Callable[[Position], Array], constraint: Constraint
) -> Callable[[Float[Array, " n"]], Float[Array, ""]]:
    """The log-density of z that a log-density of positions becomes: z -> log p(T(z)) + log|det T'|.

    Its integral over all z is that of p over all positions.
    """
    return _PulledBack(logdensity_fn, constraint)


class _PulledBack(eqx.Module):
    """A module and not a closure, so that programs compiled for one serve the next."""

    logdensity_fn: Callable[[Position], Array]
    constraint: Constraint

    def __call__(self, z: Float[Array, " n"]) -> Float[Array, ""]:
        value = jnp.asarray(self.logdensity_fn(self.constraint.to_position(z)))
        return value.astype(z.dtype) + self.constraint.log_det(z)


def _struct(name: str, leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of a leaf of the template."""
    if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    if str(leaf.dtype) not in ("float32", "float64"):
        raise ValueError(
            f"template leaf {name} is of dtype {leaf.dtype}: positions are float32 or float64; "
            "sum discrete parameters out, and write 1.0 for 1."
        )
    if math.prod(leaf.shape) == 0:
        raise ValueError(f"template leaf {name} is empty, of shape {leaf.shape}: leave it out.")
    return jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype))


def _leaf(name: str, struct: jax.ShapeDtypeStruct, lower: Any, upper: Any, simplex: Any) -> _Leaf:
    low = _bound(f"lower bound of {name}", lower, struct, -np.inf)
    high = _bound(f"upper bound of {name}", upper, struct, np.inf)
    if not isinstance(simplex, bool | np.bool_):
        raise ValueError(f"simplex of {name} must be True or False, got {simplex!r}.")
    if not simplex:
        return _Interval(name, low, high)
    if np.any(low > 0) or np.any(high < 1):
        raise ValueError(
            f"simplex {name} cannot have bounds within (0, 1): leave them out, and take "
            "account of them in the density."
        )
    return _Simplex(name, struct.shape, str(struct.dtype))


def _bound(what: str, value: Any, struct: jax.ShapeDtypeStruct, default: float) -> np.ndarray:
    try:
        array = np.asarray(default if value is None else value, np.float64)
        array = np.broadcast_to(array, struct.shape)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{what} must be a number or an array that broadcasts to shape {struct.shape}, got "
            f"{value!r}."
        ) from error
    if np.isnan(array).any():
        raise ValueError(f"{what} is NaN: give a number, or None for no bound.")
    with np.errstate(over="ignore"):
        return array.astype(struct.dtype)


def _next(bound: np.ndarray, towards: np.ndarray) -> np.ndarray:
    """The next number inside a bound, never a subnormal one: processors take those for 0."""
    following = np.nextafter(bound, towards)
    tiny = np.finfo(bound.dtype).tiny
    return np.where(np.abs(following) < tiny, np.where(towards > bound, tiny, -tiny), following)


def _within_exp(z: Array) -> Array:
    """z, cut to where exp(z) is a normal number well below overflow."""
    limits = np.finfo(z.dtype)
    return jnp.clip(z, np.log(limits.tiny), np.log(limits.max) - 1)


def _path_name(path: tuple[Any, ...]) -> str:
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    return name if name and not name[0].isdigit() else f"x{name}"


def _label(name: str, at: tuple[Any, ...]) -> str:
    return f"{name}[{', '.join(str(int(i)) for i in at)}]" if at else name
