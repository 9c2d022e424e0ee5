"""didact: amortized samplers for unnormalised densities, taught where they are wrong."""

from . import behaviours as behaviours
from . import environments as environments
from . import metrics as metrics
from . import networks as networks
from . import objectives as objectives
from . import presets as presets
from . import replay as replay
from . import targets as targets
from . import teacher as teacher
from ._experiment import Experiment as Experiment
from ._experiment import OptimiserConfig as OptimiserConfig
from ._sampler import Sampler as Sampler
from ._train import StepInfo as StepInfo
from ._train import TrainState as TrainState
from ._train import ask as ask
from ._train import init as init
from ._train import objects as objects
from ._train import step as step
from ._train import tell as tell
from ._train import train_chunk as train_chunk
from ._version import __version__ as __version__
from .checkpoint import load_sampler as load_sampler
from .checkpoint import save_sampler as save_sampler
from .run import Run as Run
from .run import train as train

__all__ = [
    "Experiment",
    "OptimiserConfig",
    "Run",
    "Sampler",
    "StepInfo",
    "TrainState",
    "__version__",
    "ask",
    "behaviours",
    "environments",
    "init",
    "load_sampler",
    "metrics",
    "networks",
    "objectives",
    "objects",
    "presets",
    "replay",
    "save_sampler",
    "step",
    "targets",
    "teacher",
    "tell",
    "train",
    "train_chunk",
]
