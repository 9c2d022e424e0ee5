"""Scores of objects by a function of the user's: each object once, whatever happens."""

import atexit
import contextlib
import dataclasses
import functools
import hashlib
import logging
import math
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64

from ._cache import FORMAT_VERSION, Cache, Key
from ._identity import address_of, folder_of, version_of
from ._pool import Calls, HostError, Objects, Pool

_FRUITLESS_BATCHES, _FRUITLESS_OBJECTS = 3, 20
_log = logging.getLogger("didact")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The arguments of `didact.targets.HostReward` that say how scores are come by."""

    score_fn: Callable[[Any], Sequence[float]]
    returns: Literal["score", "log_reward"]
    workers: int
    timeout: float | None
    call_size: int
    cache: str | bool
    cache_key: str | None


@dataclasses.dataclass
class Counters:
    """What an evaluator has done since it was made.

    `evaluations`: objects given to the function; `cache_hits`: objects of a batch whose score was
    known, each counted once a batch; `failures`: objects set aside.
    """

    evaluations: int = 0
    cache_hits: int = 0
    failures: int = 0


class Scores(NamedTuple):
    """Scores of a batch. `keys`: equal for equal objects; `failures`: by position, why an object
    was set aside, whose score is then NaN.
    """

    values: Float64[np.ndarray, " n"]
    keys: list[Key]
    failures: dict[int, str]


class Evaluator:
    """Asks the cache for the scores of objects, and the function for those that are not there.

    An object on which the function fails twice, the second time alone, is set aside: it has no
    score, and this process does not ask for it again. Another process does.
    """

    def __init__(self, settings: Settings):
        function = settings.score_fn
        self.settings, self.counters = settings, Counters()
        self.address = address_of(function)
        self.error: HostError | None = None
        self.version = _version(settings)
        folder = folder_of(function)
        self._pool = Pool(
            Calls(
                function=function,
                address=self.address,
                folder=None if folder is None else str(folder),
                workers=settings.workers,
                timeout=settings.timeout,
                call_size=settings.call_size,
                fault=functools.partial(_fault, signed=settings.returns == "log_reward"),
                unchanged=lambda: _version(settings) == self.version,
            )
        )
        self._cache = Cache(self._file(), self.address)
        self._failed: dict[Key, str] = {}
        self._fruitless_batches = self._fruitless_objects = 0
        self._lock = threading.RLock()

    def __call__(self, objects: Objects) -> Scores:
        """The scores of objects, a list of strings or an array [n, ...].

        **Errors:** `HostError` where the function or the cache cannot be used as it is. It is kept
        as `error`: a compiled program that has asked raises another.
        """
        self.error = None
        try:
            with self._lock:
                return self._scores(objects)
        except HostError as error:
            self.error = error
            raise

    def _scores(self, objects: Objects) -> Scores:
        keys = _keys(objects)
        distinct: dict[Key, int] = {}
        for i, key in enumerate(keys):
            distinct.setdefault(key, i)
        known = self._cache.get(key for key in distinct if key not in self._failed)
        missing = [i for key, i in distinct.items() if key not in known and key not in self._failed]
        self.counters.cache_hits += len(distinct) - len(missing)
        if missing:
            asked = [objects[i] for i in missing] if isinstance(objects, list) else objects[missing]
            known |= self._evaluate(asked, [keys[i] for i in missing])
        values = np.array([known.get(key, math.nan) for key in keys], np.float64)
        failures = {i: self._failed[key] for i, key in enumerate(keys) if key not in known}
        return Scores(values, keys, failures)

    def close(self) -> None:
        """End the workers and close the cache: both begin again when they are needed."""
        with self._lock:
            self._pool.close()
            self._cache.close()

    def _evaluate(self, objects: Objects, keys: list[Key]) -> dict[Key, float]:
        """The scores that the function gives, kept as they come."""
        known: dict[Key, float] = {}
        with contextlib.closing(self._pool.results(objects)) as parts:
            for start, results in parts:
                self.counters.evaluations += len(results)
                scores: dict[Key, float] = {}
                for i, result in enumerate(results, start):
                    if isinstance(result, str):
                        self._set_aside(keys[i], objects[i], result)
                    else:
                        scores[keys[i]] = result
                known |= self._cache.put(scores)
        self._fruitless_batches = 0 if known else self._fruitless_batches + 1
        self._fruitless_objects = 0 if known else self._fruitless_objects + len(keys)
        if (
            self._fruitless_batches >= _FRUITLESS_BATCHES
            and self._fruitless_objects >= _FRUITLESS_OBJECTS
        ):
            raise HostError(
                f"the reward function {self.address} failed on all of the last "
                f"{self._fruitless_objects} objects (the last time: {self._failed[keys[-1]]}): "
                "mend it and begin again; all scores are kept."
            )
        return known

    def _set_aside(self, key: Key, x: Any, reason: str) -> None:
        if not self.counters.failures:
            _log.warning(
                "The reward function %s fails on %r (%s): it is set aside with the lowest reward, "
                "as whatever else it fails on will be.",
                *(self.address, x if isinstance(x, str) else np.asarray(x).tolist(), reason),
            )
        self.counters.failures += 1
        self._failed[key] = reason

    def _file(self) -> Path | None:
        """A file for each version of a function, so that no score is taken for another's."""
        cache = self.settings.cache
        if cache is False:
            return None
        version = version_of(self.settings.score_fn, self.settings.cache_key)
        kind = f"{FORMAT_VERSION}\0{version}\0{self.settings.returns}".encode()
        name = re.sub(r"[^\w.-]+", "-", self.address)[:80]
        folder = _default_folder() if cache is True else Path(str(cache)).expanduser()
        return folder / f"{name}-{hashlib.sha256(kind).hexdigest()[:16]}.sqlite"


_evaluators: dict[Settings, Evaluator] = {}
_making = threading.Lock()


def evaluator(settings: Settings) -> Evaluator:
    """The evaluator of these settings: one in a process, however many targets are made of them."""
    with _making:
        if not _evaluators:
            atexit.register(_close_all)
        if settings not in _evaluators:
            _evaluators[settings] = Evaluator(settings)
        return _evaluators[settings]


def _close_all() -> None:
    for made in _evaluators.values():
        made.close()


def _default_folder() -> Path:
    import pooch  # takes a tenth of a second

    return Path(pooch.os_cache("didact")) / "rewards"


def _version(settings: Settings) -> str | None:
    """Of the function, where it can be known."""
    try:
        return version_of(settings.score_fn, settings.cache_key)
    except HostError:
        return None


def _fault(score: float, *, signed: bool) -> str | None:
    """What is wrong with a score."""
    if not math.isfinite(score):
        return f"returned {score}"
    if score < 0 and not signed:
        return f"returned {score:g}, and scores must be >= 0 (returns='log_reward' takes logs)"
    return None


def _keys(objects: Objects) -> list[Key]:
    if isinstance(objects, list):
        return list(objects)
    start = hashlib.sha256(f"{objects.dtype.str}{objects.shape[1:]}".encode())
    keys: list[Key] = []
    for x in objects:
        digest = start.copy()
        digest.update(x.tobytes())
        keys.append(digest.digest())
    return keys
