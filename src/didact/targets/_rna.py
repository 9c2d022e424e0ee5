"""Short RNAs that bind to a hidden target: the duplex energies of FLEXS, by ViennaRNA's model."""

import functools
import hashlib
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Float64, Int, Int32, Int64, Integer

from ._duplex import LETTERS, Duplex, import_vienna, loop_energies
from ._strings import (
    LEAST_VALUE,
    RewardLaw,
    StringTarget,
    are_digits,
    require_digits,
    require_strings,
    strings_of,
)

Strings = Integer[Array | np.ndarray, "*batch length"]
_LENGTH = 14
_MODE_SHARE = 1e-4


class RNASummary(NamedTuple):
    """What is computed from the energies of all strings, in 0.01 kcal/mol."""

    lowest_energy: int
    mode_energy: int
    """At most this energy have the best 0.01 %."""
    log_z: float
    expected_value: float


class RNAFacts(NamedTuple):
    """A hidden target, and what is known about it."""

    target: str
    """From FLEXS, `flexs/landscapes/rna.py`."""
    perfect_energy: int
    """Of the duplex of the target with its reverse complement, in 0.01 kcal/mol."""
    known: RNASummary
    tables_sha256: str
    """Of the energy parameters with which the other facts hold."""
    modes_sha256: str
    """Of the modes' numbers as int32, little-endian, sorted."""


class L14RNA(StringTarget):
    """What the targets for strings of 14 letters share: see `L14RNA1`."""

    facts: eqx.AbstractClassVar[RNAFacts]

    @property
    def beta(self) -> float:
        """40."""
        return 40.0

    @property
    def max_reward(self) -> float:
        """10."""
        return 10.0

    @property
    def alphabet(self) -> str:
        """The letter of each digit."""
        return LETTERS

    @property
    def blocks(self) -> None:
        """Letters stand for themselves."""
        return None

    @property
    def length(self) -> int:
        """14."""
        return _LENGTH

    @property
    def law(self) -> RewardLaw:
        """The reward of a value."""
        highest = self.facts.known.lowest_energy / self._unit
        return RewardLaw(self.beta, self.max_reward, highest, floor=1e-12, adds=True)

    @property
    def log_z(self) -> float:
        """Logarithm of the sum of R over all strings, in nats: computed once, from `histogram`."""
        return self.facts.known.log_z

    @property
    def expected_value(self) -> float:
        """Expectation of max(v, 1e-3) under R/Z: computed once, from `histogram`."""
        return self.facts.known.expected_value

    @property
    def mode_numbers(self) -> Int[Array, " modes"]:
        """Numbers of the modes, ascending. They are found when first asked for, in some seconds."""
        return jnp.asarray(_find_modes(self.facts))

    def energy(self, x: Strings) -> Float64[np.ndarray, "*batch"]:
        """Energy of the duplex of the target with each string, in kcal/mol, on the host: one
        compiled program for any number of strings.

        **Errors:** `ValueError` for digits other than 0 to 3, or another number of them than 14.
        """
        require_strings(x, _LENGTH)
        require_digits(x, len(LETTERS))
        digits = np.reshape(np.asarray(x), (-1, _LENGTH))
        return self._duplex().energies(digits).reshape(np.shape(x)[:-1]) / 100

    def value(self, x: Strings) -> Float[Array, "*batch"]:
        """v of strings, given by their digits."""
        dtype = jnp.result_type(float)
        if not isinstance(x, Tracer):
            return jnp.asarray(100 * self.energy(x) / self._unit, dtype)
        require_strings(x, _LENGTH)
        energies = jax.vmap(self._duplex().energy)(x.reshape(-1, _LENGTH))
        values = energies.reshape(x.shape[:-1]).astype(dtype) / self._unit
        return jnp.where(are_digits(x, len(LETTERS)), values, jnp.nan)

    def histogram(
        self, start: int = 0, stop: int = len(LETTERS) ** _LENGTH
    ) -> tuple[Int64[np.ndarray, " levels"], Int64[np.ndarray, " levels"]]:
        """Energies, in 0.01 kcal/mol, that occur among the strings with numbers from `start` to
        `stop` - 1, and how often each occurs. All strings take about an hour on one core.
        """
        total = np.zeros(2**16, np.int64)
        for first in range(start, stop, _BLOCK):
            numbers = np.arange(first, min(first + _BLOCK, stop))
            energies = (
                self._duplex().energies(strings_of(numbers, len(LETTERS), _LENGTH)).astype(np.int64)
            )
            total += np.bincount(energies + 2**15, minlength=2**16)
        levels = np.flatnonzero(total)
        return levels - 2**15, total[levels]

    def summary(
        self, levels: Int64[np.ndarray, " levels"], counts: Int64[np.ndarray, " levels"]
    ) -> RNASummary:
        """What `histogram` of all strings says of the target, in float64. The properties return
        these numbers as they were computed once.
        """
        value = levels / self._unit
        log_mass = self.law.log_reward(value, np) + np.log(counts)
        log_z = np.logaddexp.reduce(log_mass)
        mass = np.exp(log_mass - log_z)
        # The best 0.01 %, and all that are as good as the last of them.
        last = np.searchsorted(np.cumsum(counts), _MODE_SHARE * (counts.sum() - 1), "right")
        return RNASummary(
            lowest_energy=int(levels[0]),
            mode_energy=int(levels[last]),
            log_z=float(log_z),
            expected_value=float(np.sum(mass * np.maximum(value, LEAST_VALUE))),
        )

    @property
    def _unit(self) -> float:
        """The energy at which v is 1, in 0.01 kcal/mol."""
        return self.facts.perfect_energy * _LENGTH / 100

    def _duplex(self) -> Duplex:
        return _make_duplex(self.facts)


class L14RNA1(L14RNA):
    r"""Strings of 14 of the letters U, C, G, A, by how well each binds to a hidden RNA of 100
    letters: the first such task of FLEXS.

    The value v of a string is the energy of its duplex with the target, over 14 % of the energy
    that the target's own reverse complement has. Energies are exactly those of ViennaRNA's
    `RNA.duplexfold`, computed inside the compiled program.

    $$R(x) = 10\,\big(\max(v(x), 10^{-3}) / \max v\big)^{40} + 10^{-12}$$

    Modes are the best 0.01 per cent of all 4^14 strings, less those in which one letter differs
    from a mode that comes before it, where strings come in lexicographic order with A < U < C < G.
    There are 8,967. They are found when they are first asked for, which takes some seconds.

    A sample x is a string's digits, int32 [14]: U is 0, C 1, G 2, A 3.

    Needs ViennaRNA (extra `didact[rna]`), which is asked for its energy parameters when the first
    reward is computed.

    **Errors:** `ImportError` without ViennaRNA; `ValueError` where its energy parameters are not
    the default ones (Turner 2004, 37 °C), with which log Z and the modes were computed.

    **References:** Sinai et al. (2020), "AdaLead: a simple and robust adaptive greedy search
    algorithm for sequence design" (FLEXS); Kim et al. (2025); Lorenz et al. (2011), "ViennaRNA
    Package 2.0".
    """

    facts: ClassVar[RNAFacts] = RNAFacts(
        target="GAACGAGGCACAUUCCGGCUCGCCCGGCCCAUGUGAGCAUGGGCCGGACC"
        "CCGUCCGCGCGGGGCCCCCGCGCGGACGGGGGCGAGCCGGAAUGUGCCUC",
        perfect_energy=-26_010,
        known=RNASummary(-3_840, -2_850, 5.220216427701308, 0.9737558988712272),
        tables_sha256="196eb7313412886d1bfd5a6a80c68efbf274f9d98ec34ceed64fbebcd2e9af4b",
        modes_sha256="ec8d67fa1b3f0e28d20d0c96896dc6938be911f78559aef4a9742fac970c61a7",
    )


class L14RNA2(L14RNA):
    """As `L14RNA1`, with the second hidden RNA of FLEXS: 8,402 modes."""

    facts: ClassVar[RNAFacts] = RNAFacts(
        target="GAGGCACAUUCCGGCUCGCCCCCGUCCGCGCGGGGGCCCCGCGCGGACGG"
        "GGUCCGGCCCGCGCGGGGCCCCCGCGCGGGAGCCGGAAUGUGCCUCGUUC",
        perfect_energy=-27_030,
        known=RNASummary(-3_840, -2_940, 6.006368376581905, 0.9391250862872509),
        tables_sha256="a6a2beae88287442627c8815c802478751d695a1a3edb0d7db7bd8397f84421e",
        modes_sha256="961f9fcbcf7c54f38f1c972d497cc3316fae62a6a148ca8cd49bec9aefc849d9",
    )


class L14RNA3(L14RNA):
    """As `L14RNA1`, with the third hidden RNA of FLEXS: 7,400 modes."""

    facts: ClassVar[RNAFacts] = RNAFacts(
        target="CCGGUGAUACUGUUAGUGGUCACGGUGCAUUUAUAGCGCUAAAGUACAGU"
        "CUUCCCCUGUUGAACGGCGCCAUUGCAUACAGGGCCAGCCGCGUAACGCC",
        perfect_energy=-21_560,
        known=RNASummary(-3_370, -2_400, 4.6227023608321485, 1.044328634277988),
        tables_sha256="e4fff56db5b305650df5fd114b0bcc9f669bb309ff6c081b1d76dcf4d131535f",
        modes_sha256="881dd18749e339be2963129cd707e21f66ab11fc110a44b482bb34594d494399",
    )


_PLACE_VALUES = len(LETTERS) ** np.arange(_LENGTH - 1, -1, -1, dtype=np.int32)
_BLOCK = 2**16


def _numbers(digits: Integer[np.ndarray, "n length"]) -> Int64[np.ndarray, " n"]:
    return digits.astype(np.int64) @ _PLACE_VALUES.astype(np.int64)


@functools.cache
def _make_duplex(facts: RNAFacts) -> Duplex:
    tables = loop_energies(facts.target, _LENGTH)
    if tables.sha256 != facts.tables_sha256:
        raise ValueError(
            f"ViennaRNA {import_vienna().__version__} has other energy parameters than those with "
            "which this target's log Z and modes were computed: leave its parameters as they are, "
            "or install viennarna==2.7.2."
        )
    return Duplex(tables, _LENGTH)


@functools.cache
def _find_modes(facts: RNAFacts) -> Int32[np.ndarray, " num_modes"]:
    best = _make_duplex(facts).strings_below(facts.known.mode_energy)
    modes = np.sort(_numbers(_apart(best))).astype(np.int32)
    found = hashlib.sha256(modes.astype("<i4").tobytes()).hexdigest()
    if found != facts.modes_sha256:
        raise ValueError(
            f"found {len(modes)} modes that are not those of the paper: please report."
        )
    modes.setflags(write=False)
    return modes


def _apart(digits: Int[np.ndarray, "n length"]) -> Int[np.ndarray, "m length"]:
    """Those left of the strings when, in lexicographic order with A < U < C < G, each is left out
    that differs in one letter from one that is kept.
    """
    rank = (digits + 1) % len(LETTERS)
    digits = digits[np.lexsort(rank.T[::-1])]
    other = np.arange(1, len(LETTERS))
    changed = (digits[:, :, None] + other) % len(LETTERS) - digits[:, :, None]
    numbers = _numbers(digits)
    neighbours = numbers[:, None, None] + changed * _PLACE_VALUES[:, None]
    kept: set[int] = set()
    keep = []
    for number, near in zip(numbers.tolist(), neighbours.reshape(len(digits), -1), strict=True):
        keep.append(kept.isdisjoint(near.tolist()))
        if keep[-1]:
            kept.add(number)
    return digits[np.asarray(keep, bool)]
