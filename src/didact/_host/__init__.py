"""Reward functions outside JAX: worker processes, a cache on disk, and what becomes of failures."""

from ._evaluator import Counters as Counters
from ._evaluator import Evaluator as Evaluator
from ._evaluator import Scores as Scores
from ._evaluator import Settings as Settings
from ._evaluator import evaluator as evaluator
from ._identity import address_of as address_of
from ._identity import is_importable as is_importable
from ._identity import version_of as version_of
from ._pool import HostError as HostError
