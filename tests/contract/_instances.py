"""One table for each kind of thing that the package exports.

The contract tests run over these tables. `test_exports.py` fails when a class is exported and
has no instance here: adding one line makes all the laws of its kind apply to it.
"""

import jax.numpy as jnp

from didact._kernels import Categorical
from didact.behaviours import Cycle, FromReplay, FromTeacher, OnPolicy
from didact.environments import Hypergrid
from didact.objectives import DB, TB, Huber, Linex, ShiftedCosh, Squared, SubTB, VarGrad
from didact.teacher import DoubleLog, OneSided, Plain

ENVIRONMENTS = {
    f"hypergrid-{dim}x{side}": Hypergrid(dim, side)
    for dim, side in (
        *((1, 2), (1, 3), (1, 7)),
        *((2, 2), (2, 6)),
        *((3, 3), (4, 2), (4, 3)),
    )
}

SMALL_ENVIRONMENTS = {
    name: ENVIRONMENTS[name] for name in ("hypergrid-1x7", "hypergrid-3x3", "hypergrid-4x3")
}
"""Those with few enough trajectories to list them all, and more than one length of them."""

_LOGITS = {
    "even": ([0.0, 0.0, 0.0, 0.0], [1, 1, 1, 1]),
    "uneven": ([2.0, -1.0, 0.5, 0.0, 1.0], [1, 1, 1, 1, 1]),
    "masked-first": ([3.0, 0.3, -0.2], [0, 1, 1]),
    "masked-last": ([0.1, 1.3, 30.0], [1, 1, 0]),
    "masked-between": ([0.5, 9.0, 0.1, 9.0, -0.4], [1, 0, 1, 0, 1]),
    "single": ([-4.0, 7.0, 2.0], [0, 1, 0]),
    "wide": ([0.1 * (i % 7) for i in range(40)], [i % 3 != 1 for i in range(40)]),
    "large": ([1e4, 1e4 + 1, 1e6], [1, 1, 0]),
    "very-negative": ([-3e9, -3e9, 0.0, -3e9], [1, 1, 0, 1]),
}

KERNELS = {
    f"categorical-{name}": Categorical(jnp.asarray(logits), jnp.asarray(mask, bool))
    for name, (logits, mask) in _LOGITS.items()
}

OBJECTIVES = {
    "tb": TB,
    "vargrad": VarGrad,
    "db": DB,
    "subtb-0.9": lambda regression: SubTB(0.9, regression),
}
"""Functions of a regression."""

REGRESSIONS = {
    "squared": Squared(),
    "huber": Huber(),
    "shifted-cosh": ShiftedCosh(),
    "linex": Linex(),
    "linex-negative": Linex(-0.5),
}

TEACHER_REWARDS = {
    "grid": DoubleLog(),
    "diffusion": DoubleLog(alpha=0.5, floor=0.0, scale=0.5),
    "biochemical": DoubleLog(alpha=0.5, floor=0.0, cap=5000.0),
    "plain": Plain(),
    "one-sided": OneSided(),
}

BEHAVIOURS = {
    "on-policy-explored": OnPolicy(epsilon=0.3, temperature=2.0),
    "from-teacher": FromTeacher(epsilon=0.1),
    "from-replay": FromReplay(),
    "cycle": Cycle((OnPolicy(), FromReplay(), FromTeacher(), FromReplay())),
}
