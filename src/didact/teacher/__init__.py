"""Teacher rewards: what the second sampler is after.

Those of the Teacher map the Student's detached residual δ (δ > 0: the Student draws the
trajectory too rarely) to log R_T. Source: Kim et al., "Adaptive teachers for amortized samplers",
ICLR 2025. Other methods with an auxiliary sampler differ in this reward alone.
"""

from .._types import TeacherReward as TeacherReward
from ._complementary import Complementary as Complementary
from ._double_log import DoubleLog as DoubleLog
from ._loss_guided import LossGuided as LossGuided
from ._one_sided import OneSided as OneSided
from ._plain import Plain as Plain
from ._sibling import Sibling as Sibling

__all__ = [
    "Complementary",
    "DoubleLog",
    "LossGuided",
    "OneSided",
    "Plain",
    "Sibling",
    "TeacherReward",
]
