"""One call from a log-density to draws, log Z and a verdict."""

from ._fit import fit as fit
from ._numpyro import fit_numpyro as fit_numpyro
from ._result import Fit as Fit
from ._result import load_fit as load_fit
from ._training import FitConfig as FitConfig

__all__ = ["Fit", "FitConfig", "fit", "fit_numpyro", "load_fit"]
