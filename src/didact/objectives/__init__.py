"""Objectives: a scored batch in, a loss and a residual per trajectory out."""

from .._types import Objective as Objective
from .._types import ObjectiveOutput as ObjectiveOutput
from .._types import Regression as Regression
from .._types import Scored as Scored
from ._db import DB as DB
from ._gafn import GAFN as GAFN
from ._mle import MLE as MLE
from ._regression import Huber as Huber
from ._regression import Linex as Linex
from ._regression import ShiftedCosh as ShiftedCosh
from ._regression import Squared as Squared
from ._reverse_kl import ReverseKL as ReverseKL
from ._subtb import SubTB as SubTB
from ._tb import TB as TB
from ._tb import log_weight as log_weight
from ._vargrad import VarGrad as VarGrad

__all__ = [
    "DB",
    "GAFN",
    "MLE",
    "TB",
    "Huber",
    "Linex",
    "Objective",
    "ObjectiveOutput",
    "Regression",
    "ReverseKL",
    "Scored",
    "ShiftedCosh",
    "Squared",
    "SubTB",
    "VarGrad",
    "log_weight",
]
