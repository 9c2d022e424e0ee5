"""Energies of RNA duplexes: short strings against one target, exactly as ViennaRNA has them."""

import functools
import hashlib
import itertools
from collections.abc import Mapping
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, Int16

LETTERS = "UCGA"
"""Digit of each letter in a string: U is 0."""
ANY = 4
"""In place of a digit: whichever letter is best at this place, for each loop by itself."""
_NONE = 5  # in place of a digit: beyond the end of the string
_SYMBOLS = 6

FORBIDDEN = 8_000
"""Stands for infinity. The recursion adds four of these at most, which int16 still holds; and one
of them with the best of loops is more than any `start`, so it is never chosen.
"""
_LARGEST = 30  # unpaired letters of a loop; ViennaRNA looks at no larger ones
_ASYMMETRY_CAP = 300
_LANES = 16  # int16 numbers in a vector register of usual width
OPTIMISED = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
"""Whoever asks for many strings gains by all optimisation, also where JAX is told to save it
(JAX_DISABLE_MOST_OPTIMIZATIONS): 30 times in speed, for nothing in compilation.
"""
_CHUNK = 128  # strings evaluated together: their rows fit into a core's cache

# Unpaired letters (u of the target, v of the string) of loops that have a table each.
_SMALL_LOOPS = ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2))
# All other loops, whose pairs count by themselves. A bulge has letters on one side only.
_KINDS = ("bulge", "1xn", "2x3", "generic")

Rows = Int16[np.ndarray, "*letters target"]


class LargeLoops(NamedTuple):
    """Loops of one kind, with energy outer + size[u, v] + inner."""

    size: Int16[np.ndarray, "31 v"]
    """By unpaired letters of the target, and of the string."""
    outer: Int16[np.ndarray, "4 4 target"]
    """By the letter of the string in the outer pair, the one before it, and the outer position."""
    inner: Int16[np.ndarray, "4 4 target"]
    """By the letter of the string in the inner pair, the one after it, and the inner position."""


class DuplexTables(NamedTuple):
    """The energies that ViennaRNA gives to the parts of duplexes with one target, in 0.01 kcal/mol;
    `FORBIDDEN` where letters do not pair.

    A pair is a position of the target and one of the string. Strands are antiparallel: from the
    outermost pair inwards, positions of the target rise and those of the string fall. A loop lies
    between an outer pair and the next inner one, with u letters of the target and v of the string
    unpaired between them. The last axis of all tables is the pair's position in the target, for
    loops the inner pair's.
    """

    start: Int16[np.ndarray, "4 5 target"]
    """The outermost pair: by its letter of the string and the one after it (4: there is none)."""
    end: Int16[np.ndarray, "4 5 target"]
    """The innermost pair: by its letter of the string and the one before it (4: there is none)."""
    small: Mapping[tuple[int, int], Rows]
    """Loops of a few (u, v): by the string's letters from the outer pair's to the inner pair's."""
    large: Mapping[str, LargeLoops]
    """All other loops: "bulge" (u or v is 0), "1xn", "2x3" and "generic"."""

    @property
    def sha256(self) -> str:
        """A hash of all numbers."""
        arrays = [self.start, self.end, *self.small.values()]
        arrays += [array for loops in self.large.values() for array in loops]
        total = hashlib.sha256()
        for array in arrays:
            total.update(np.ascontiguousarray(array, "<i2").tobytes())
        return total.hexdigest()


def loop_energies(target: str, length: int) -> DuplexTables:
    """Ask ViennaRNA for everything that a duplex of `target` and a string of `length` letters can
    meet: about 20,000 questions, answered in a tenth of a second.

    The model is ViennaRNA's default: Turner 2004 at 37 °C, dangles on both sides of a duplex.

    **Errors:** `ImportError` without ViennaRNA.
    """
    rna = import_vienna()
    ask = _Vienna(rna, target)
    small = {loop: ask.small(*loop) for loop in _SMALL_LOOPS}
    large = {kind: ask.large(kind, length) for kind in _KINDS}
    return DuplexTables(ask.start(), ask.end(), small, large)


def import_vienna() -> ModuleType:
    """The module of ViennaRNA."""
    try:
        import RNA
    except ImportError as error:
        raise ImportError("RNA targets need ViennaRNA: pip install 'didact[rna]'.") from error
    return RNA


class _Vienna:
    """ViennaRNA's answers about one target.

    It numbers letters A, C, G, U from 1, and the pairs CG, GC, GU, UG, AU, UA from 1; seen from the
    other side, a pair has another number.
    """

    def __init__(self, rna: ModuleType, target: str):
        number = {letter: 1 + place for place, letter in enumerate("ACGU")}
        pairs = {pair: 1 + place for place, pair in enumerate(("CG", "GC", "GU", "UG", "AU", "UA"))}
        self.rna = rna
        self.params = rna.param()
        self.target = [number[letter] for letter in target]
        # -1 is the neighbour of a letter at the end.
        self.string = [*(number[letter] for letter in LETTERS), -1]
        self.pair = [[pairs.get(a + b, 0) for b in LETTERS] for a in target]
        self.reverse = [[pairs.get(b + a, 0) for b in LETTERS] for a in target]

    def start(self) -> Int16[np.ndarray, "4 5 target"]:
        table = self._empty(4, 5)
        for i, a, b in self._pairs(5):
            before = self.target[i - 1] if i > 0 else -1
            stem = self.rna.E_ExtLoop(self.pair[i][a], before, self.string[b], self.params)
            table[a, b, i] = self.params.DuplexInit + stem
        return table

    def end(self) -> Int16[np.ndarray, "4 5 target"]:
        table = self._empty(4, 5)
        for i, a, b in self._pairs(5):
            after = self.target[i + 1] if i + 1 < len(self.target) else -1
            table[a, b, i] = self.rna.E_ExtLoop(
                self.reverse[i][a], self.string[b], after, self.params
            )
        return table

    def small(self, u: int, v: int) -> Rows:
        table = self._empty(*[4] * (v + 2))
        for i in range(u + 1, len(self.target)):
            outer = i - 1 - u
            for letters in itertools.product(range(4), repeat=v + 2):
                pair, inner = self.pair[outer][letters[0]], self.reverse[i][letters[-1]]
                if pair and inner:
                    neighbours = (
                        self.target[outer + 1],
                        self.string[letters[1]],
                        self.target[i - 1],
                        self.string[letters[-2]],
                    )
                    table[(*letters, i)] = self._loop(u, v, pair, inner, *neighbours)
        return table

    def large(self, kind: str, length: int) -> LargeLoops:
        # The two pairs of a large loop count by themselves. So the energy of a loop of a pair and
        # its mirror image is, its size aside, twice what the pair counts for.
        u, v = {"bulge": (0, 2), "1xn": (1, 3), "2x3": (2, 3), "generic": (3, 3)}[kind]
        size = np.full((_LARGEST + 1, max(length - 1, 0)), FORBIDDEN, np.int16)
        for one, other in np.ndindex(size.shape):
            if _is_large(kind, one, other):
                size[one, other] = self._size(kind, one, other)
        example = self._size(kind, u, v)

        def half(pair: int, after: int, before: int) -> int:
            twice = self._loop(u, v, pair, pair, after, before, before, after) - example
            return twice // 2

        outer, inner = self._empty(4, 4), self._empty(4, 4)
        for i, a, b in self._pairs(4):
            if i + 1 < len(self.target):
                outer[a, b, i] = half(self.pair[i][a], self.target[i + 1], self.string[b])
            if i > 0:
                inner[a, b, i] = half(self.reverse[i][a], self.string[b], self.target[i - 1])
        return LargeLoops(size, outer, inner)

    def _size(self, kind: str, u: int, v: int) -> int:
        if kind == "bulge":
            return self.params.bulge[u + v]
        asymmetry = min(_ASYMMETRY_CAP, abs(u - v) * self.params.ninio[2])
        return self.params.internal_loop[u + v] + asymmetry

    def _loop(self, u: int, v: int, outer: int, inner: int, *neighbours: int) -> int:
        """Neighbours: after and before the outer pair, before and after the inner one, each time
        first in the target, then in the string.
        """
        return self.rna.E_IntLoop(u, v, outer, inner, *neighbours, self.params)

    def _pairs(self, neighbours: int):
        """Positions of the target, and letters of the string that pair with them, with each
        neighbour.
        """
        for i, a in itertools.product(range(len(self.target)), range(4)):
            if self.pair[i][a]:
                yield from ((i, a, b) for b in range(neighbours))

    def _empty(self, *letters: int) -> Rows:
        return np.full((*letters, len(self.target)), FORBIDDEN, np.int16)


def _is_large(kind: str, u: int, v: int) -> bool:
    few, many = min(u, v), max(u, v)
    if u + v > _LARGEST:
        return False
    return {
        "bulge": few == 0 and many >= 2,
        "1xn": few == 1 and many >= 3,
        "2x3": few == 2 and many == 3,
        "generic": few >= 2 and u + v >= 6,
    }[kind]


class _Plan(NamedTuple):
    """The recursion as rows to be added and compared: see `Duplex.energy`."""

    rows: Int16[np.ndarray, "rows width"]
    """All tables, by letters; `first` is where each begins."""
    first: Int[np.ndarray, " tables"]
    single: Mapping[str, Int[np.ndarray, " loops"]]
    """Loops with one u each, those that reach less far back along the string first: the number of
    their table, the kind of their source, how far back it is, how far to shift it, and their size.
    """
    num_single: Int[np.ndarray, " length"]
    """How many of them stay within the string, by position."""
    long_size: Int16[np.ndarray, "v 29"]
    """Of loops with all u from 2 on, by v."""
    long_kind: Int[np.ndarray, " v"]
    """Which large loops they are."""


# Numbers of the tables in a plan. Those of `outer` and `inner` follow the order of _KINDS.
_START, _END, _OUTER, _INNER, _SMALL = 0, 1, 2, 6, 10


class Duplex:
    """The least energy of a duplex of one target with each string, by dynamic programming.

    **Arguments:** `tables`: energies of the target, made for strings of `length` >= 2 letters.
    """

    def __init__(self, tables: DuplexTables, length: int):
        self.length = length
        self._plan = _make_plan(tables, length)

    def energy(self, x: Int[Array, " length"]) -> Int16[Array, ""]:
        r"""The least energy of a duplex with one string, in 0.01 kcal/mol.

        Let c(i, j) be the least energy of a duplex with the innermost pair (i, j), all of it but
        what the innermost pair counts for at its end. Then

        $$c(i, j) = \min\Big(\text{start}(i, j),\; \min_{u, v}\; c(i-1-u,\; j+1+v) +
        \text{loop}_{u v}(i, j)\Big)$$

        and the energy is the least c + end. All i of one j are computed together, from the last
        letter of the string to the first, and each loop is one row of c, shifted along the target
        by 1 + u, plus one row of a table that the letters of the string choose. For large loops
        the rows are those of c + outer: size and inner are added after the shift, inner after the
        least over u is taken. With the target along the rows and int16 numbers, `vmap` over
        strings compiles into vector instructions.

        **Arguments:** `x`: digits below 4, or `ANY`. With `ANY` the result is a lower bound on
        the energy of all strings that x stands for: every term of the recursion is one.
        """
        plan, length = self._plan, self.length
        width = plan.rows.shape[1]
        margin = _LARGEST + 1  # a shift goes beyond the start of a row by so much at most
        table, single = jnp.asarray(plan.rows), jax.tree.map(jnp.asarray, plan.single)
        num_single = jnp.asarray(plan.num_single)
        long_size, long_kind = jnp.asarray(plan.long_size), jnp.asarray(plan.long_kind)

        def shifted(row: Array, by: int) -> Array:
            return lax.slice_in_dim(row, margin - by, margin - by + width)

        def position(carry, now):
            memory, best = carry
            j, places = now
            rows = table.at[places].get(mode="promise_in_bounds")

            def add_single(n, c):
                at = single["kind"][n], j + single["back"][n], margin - single["shift"][n]
                source = lax.dynamic_slice(memory, at, (1, 1, width))[0, 0]
                row = lax.dynamic_index_in_dim(rows, single["table"][n], keepdims=False)
                return jnp.minimum(c, row + (source + single["size"][n]))

            def add_long(v, c):
                kind = long_kind[v]
                at = 1 + kind, j + 1 + v, 0
                source = lax.dynamic_slice(memory, at, (1, 1, margin + width))[0, 0]
                terms = [shifted(source, 3 + n) + size for n, size in enumerate(long_size[v])]
                row = lax.dynamic_index_in_dim(rows, _INNER + kind, keepdims=False)
                return jnp.minimum(c, row + functools.reduce(jnp.minimum, terms))

            # Loops and not one expression: XLA would compute that again wherever c is used.
            c = lax.fori_loop(0, num_single[j], add_single, rows[_START])
            c = lax.fori_loop(0, length - 1 - j, add_long, c)
            best = jnp.minimum(best, jnp.min(c + rows[_END]))
            new = jnp.concatenate([c[None], c + rows[_OUTER : _OUTER + len(_KINDS)]])
            memory = lax.dynamic_update_slice(memory, new[:, None], (0, j, margin))
            return (memory, best), None

        forbidden = jnp.asarray(FORBIDDEN, jnp.int16)
        memory = jnp.full((1 + len(_KINDS), length, margin + width), forbidden)
        positions = jnp.arange(length, dtype=jnp.int32), self._places(x)
        (_, best), _ = lax.scan(position, (memory, forbidden), positions, reverse=True)
        return best

    def energies(self, digits: Int[np.ndarray, "n length"]) -> Int16[np.ndarray, " n"]:
        """`energy` of many strings, in 0.01 kcal/mol."""
        missing = -len(digits) % _CHUNK
        padded = np.concatenate([digits, np.zeros((missing, self.length), digits.dtype)])
        chunks = padded.astype(np.int32).reshape(-1, _CHUNK, self.length)
        with jax.ensure_compile_time_eval():  # also while a program is traced that needs the modes
            results = [self._batch(chunk) for chunk in chunks]
        return np.concatenate([np.zeros(0, np.int16), *map(np.asarray, results)])[: len(digits)]

    def strings_below(self, energy: int) -> Int[np.ndarray, "n length"]:
        """Digits of all strings with at most this energy, in lexicographic order.

        By branch and bound: prefixes grow letter by letter, and those are dropped whose lower
        bound, with `ANY` in all later places, is too high.
        """
        found = np.full((1, self.length), ANY)
        for place in range(self.length):
            longer = np.repeat(found, len(LETTERS), axis=0)
            longer[:, place] = np.tile(np.arange(len(LETTERS)), len(found))
            found = longer[self.energies(longer) <= energy]
        return found

    @functools.cached_property
    def _batch(self):
        return jax.jit(jax.vmap(self.energy), compiler_options=OPTIMISED)

    def _places(self, x: Int[Array, " length"]) -> Int[Array, "length tables"]:
        """Number of the row of each table, at each position of the string."""
        none = jnp.full((3,), _NONE, jnp.int32)
        letters = jnp.concatenate([none[:1], jnp.asarray(x, jnp.int32), none])
        before, at, *after = (letters[k : k + self.length] for k in range(5))
        backwards = at * _SYMBOLS + before
        forwards = list(itertools.accumulate([at, *after], lambda code, b: code * _SYMBOLS + b))
        outer, inner = [backwards] * len(_KINDS), [forwards[1]] * len(_KINDS)
        small = [forwards[1 + v] for _, v in _SMALL_LOOPS]
        codes = [forwards[1], backwards, *outer, *inner, *small]
        return jnp.stack(codes, axis=1) + jnp.asarray(self._plan.first, jnp.int32)


def _make_plan(tables: DuplexTables, length: int) -> _Plan:
    large = [tables.large[kind] for kind in _KINDS]
    # Small loops are read from the inner pair outwards, as the recursion meets the letters.
    small = [_letters_reversed(tables.small[loop]) for loop in _SMALL_LOOPS]
    outer, inner = [loops.outer for loops in large], [loops.inner for loops in large]
    rows = [_all_symbols(t) for t in (tables.start, tables.end, *outer, *inner, *small)]
    first = np.cumsum([0, *(len(table) for table in rows[:-1])])

    # Beyond the first two u, each v has one kind of large loop that takes most of them.
    long_kind = np.asarray([(0, 1, 3)[min(v, 2)] for v in range(length - 1)], np.int32)
    long_size = [large[kind].size[2:, v] for v, kind in enumerate(long_kind)]
    single = [(1 + v, _SMALL + n, 0, 1 + u, 0) for n, (u, v) in enumerate(_SMALL_LOOPS)]
    for kind, loops in enumerate(large):
        single += [
            (1 + v, _INNER + kind, 1 + kind, 1 + u, loops.size[u, v])
            for u, v in np.argwhere(loops.size < FORBIDDEN)
            if u < 2 or kind != long_kind[v]
        ]
    back, table, kind, shift, size = np.asarray(sorted(single), np.int32).T
    return _Plan(
        rows=np.concatenate(rows),
        first=first,
        single={
            "table": table,
            "kind": kind,
            "back": back,
            "shift": shift,
            "size": size.astype(np.int16),
        },
        num_single=np.searchsorted(back, np.arange(length)[::-1], "right").astype(np.int32),
        long_size=np.asarray(long_size, np.int16).reshape(length - 1, _LARGEST - 1),
        long_kind=long_kind,
    )


def _letters_reversed(table: Rows) -> Rows:
    return np.transpose(table, [*reversed(range(table.ndim - 1)), table.ndim - 1])


def _all_symbols(table: Rows) -> Int16[np.ndarray, "rows width"]:
    """Letters, `ANY` and `_NONE` along each axis of letters, then all of these axes as one."""
    beyond = [(0, 0)] * (table.ndim - 1) + [(0, -table.shape[-1] % _LANES)]
    table = np.pad(table, beyond, constant_values=FORBIDDEN)
    for axis in range(table.ndim - 1):
        letters, none = np.split(table, [len(LETTERS)], axis)
        if none.shape[axis] == 0:
            # Whatever these rows hold is added to rows of c beyond the string, which are FORBIDDEN.
            none = np.full_like(table.take([0], axis), FORBIDDEN)
        table = np.concatenate([letters, letters.min(axis, keepdims=True), none], axis)
    return np.reshape(table, (-1, table.shape[-1]))
