"""Metrics: how far a sampler is from its target."""

from . import coverage as coverage
from . import distances as distances
from . import empirical as empirical
from . import exact as exact
from . import floor as floor
from . import strings as strings
from . import weights as weights
from ._evaluate import draw_statistics as draw_statistics
from ._evaluate import evaluate_by_samples as evaluate_by_samples
from ._evaluate import evaluate_exactly as evaluate_exactly
from ._evaluate import finite_or_none as finite_or_none
from ._evaluate import learned_log_z as learned_log_z
from ._evaluate import mode_probabilities as mode_probabilities
from ._evaluate import mode_statistics as mode_statistics

__all__ = [
    "coverage",
    "distances",
    "draw_statistics",
    "empirical",
    "evaluate_by_samples",
    "evaluate_exactly",
    "exact",
    "finite_or_none",
    "floor",
    "learned_log_z",
    "mode_probabilities",
    "mode_statistics",
    "strings",
    "weights",
]
