"""The laws of the parts, as functions for parts of your own."""

from ._behaviour import check_behaviour as check_behaviour
from ._behaviour import make_agents as make_agents
from ._environment import check_environment as check_environment
from ._kernel import check_kernel as check_kernel
from ._laws import Checked as Checked
from ._laws import ConformanceError as ConformanceError
from ._objective import check_objective as check_objective
from ._target import check_target as check_target

__all__ = [
    "Checked",
    "ConformanceError",
    "check_behaviour",
    "check_environment",
    "check_kernel",
    "check_objective",
    "check_target",
    "make_agents",
]
