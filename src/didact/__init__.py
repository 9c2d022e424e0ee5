"""didact: amortized samplers for unnormalised densities, taught where they are wrong."""

import importlib
from typing import TYPE_CHECKING

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from . import behaviours as behaviours
    from . import chem as chem
    from . import datasets as datasets
    from . import environments as environments
    from . import metrics as metrics
    from . import networks as networks
    from . import novelty as novelty
    from . import objectives as objectives
    from . import presets as presets
    from . import replay as replay
    from . import targets as targets
    from . import teacher as teacher
    from . import testing as testing
    from ._constraints import Constraint as Constraint
    from ._experiment import Experiment as Experiment
    from ._experiment import OptimiserConfig as OptimiserConfig
    from ._fit import Fit as Fit
    from ._fit import FitConfig as FitConfig
    from ._fit import fit as fit
    from ._fit import fit_numpyro as fit_numpyro
    from ._fit import load_fit as load_fit
    from ._sampler import Sampler as Sampler
    from ._sharding import batch_mesh as batch_mesh
    from ._train import StepInfo as StepInfo
    from ._train import TrainState as TrainState
    from ._train import ask as ask
    from ._train import init as init
    from ._train import objects as objects
    from ._train import step as step
    from ._train import tell as tell
    from ._train import train_chunk as train_chunk
    from .checkpoint import CheckpointPolicy as CheckpointPolicy
    from .checkpoint import load_sampler as load_sampler
    from .checkpoint import save_sampler as save_sampler
    from .run import Run as Run
    from .run import RunError as RunError
    from .run import train as train
    from .samples import write_samples as write_samples

__all__ = [
    "CheckpointPolicy",
    "Constraint",
    "Experiment",
    "Fit",
    "FitConfig",
    "OptimiserConfig",
    "Run",
    "RunError",
    "Sampler",
    "StepInfo",
    "TrainState",
    "__version__",
    "ask",
    "batch_mesh",
    "behaviours",
    "chem",
    "datasets",
    "environments",
    "fit",
    "fit_numpyro",
    "init",
    "load_fit",
    "load_sampler",
    "metrics",
    "networks",
    "novelty",
    "objectives",
    "objects",
    "presets",
    "replay",
    "save_sampler",
    "step",
    "targets",
    "teacher",
    "tell",
    "testing",
    "train",
    "train_chunk",
    "write_samples",
]

_HOMES = {
    "_constraints": ("Constraint",),
    "_experiment": ("Experiment", "OptimiserConfig"),
    "_fit": ("Fit", "FitConfig", "fit", "fit_numpyro", "load_fit"),
    "_sampler": ("Sampler",),
    "_sharding": ("batch_mesh",),
    "_train": ("StepInfo", "TrainState", "ask", "init", "objects", "step", "tell", "train_chunk"),
    "checkpoint": ("CheckpointPolicy", "load_sampler", "save_sampler"),
    "run": ("Run", "RunError", "train"),
    "samples": ("write_samples",),
}


def __getattr__(name: str) -> object:
    """Import what is asked for: `didact --help` need not wait for JAX."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f".{home}", __name__), name)
    return importlib.import_module(f".{name}", __name__)


def __dir__() -> list[str]:
    return __all__
