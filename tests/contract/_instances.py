"""One table for each kind of thing that the package exports.

The contract tests run over these tables. `test_exports.py` fails when a class is exported and
has no instance here: adding one line makes all the laws of its kind apply to it.
"""

import jax.numpy as jnp

from didact._kernels import Categorical, Gaussian
from didact.behaviours import (
    MALA,
    Collect,
    Cycle,
    FromChains,
    FromReplay,
    FromSamples,
    FromTeacher,
    FromUniform,
    LocalSearch,
    Mutate,
    OnPolicy,
    Thompson,
)
from didact.environments import (
    Autoregressive,
    Brownian,
    Diffusion,
    Hypergrid,
    PrependAppend,
    VariancePreserving,
)
from didact.objectives import (
    DB,
    GAFN,
    MLE,
    TB,
    Huber,
    Linex,
    ReverseKL,
    ShiftedCosh,
    Squared,
    SubTB,
    VarGrad,
)
from didact.replay import RankDraw
from didact.targets import (
    GMM25,
    GMM40,
    L14RNA1,
    L14RNA2,
    L14RNA3,
    QM9,
    SEH,
    Checkerboard,
    DeceptiveGrid,
    EightGaussians,
    FromFunction,
    Funnel,
    GaussianMixture,
    HostReward,
    LogGaussianCox,
    LogisticRegression,
    ManyWell,
    Ring,
    TFBind8,
)
from didact.teacher import Complementary, DoubleLog, LossGuided, OneSided, Plain, Sibling

ENUMERABLE_ENVIRONMENTS = {
    f"hypergrid-{dim}x{side}": Hypergrid(dim, side)
    for dim, side in (
        *((1, 2), (1, 3), (1, 7)),
        *((2, 2), (2, 6)),
        *((3, 3), (4, 2), (4, 3)),
    )
}
ENUMERABLE_ENVIRONMENTS |= {
    f"prepend-append-{symbols}^{length}": PrependAppend(symbols, length)
    for symbols, length in ((1, 3), (2, 1), (2, 4), (3, 3))
}
ENUMERABLE_ENVIRONMENTS |= {
    f"autoregressive-{symbols}^{length}": Autoregressive(symbols, length)
    for symbols, length in ((3, 1), (2, 3))
}

_UNEVEN = (0.0, 0.02, 0.1, 0.35, 0.6, 1.0)

CONTINUOUS_ENVIRONMENTS = {
    "brownian-1d-1": Diffusion(1, 1),
    "brownian-3d-2": Diffusion(3, 2, Brownian(2.0), (0.0, 0.8, 1.0)),
    "brownian-1d-5-learned-variance": Diffusion(1, 5, Brownian(1.5), _UNEVEN, 2.0),
    "vp-1d-1": Diffusion(1, 1, VariancePreserving(0.5)),
    "vp-3d-5-uneven": Diffusion(3, 5, VariancePreserving(), _UNEVEN),
}

ENVIRONMENTS = ENUMERABLE_ENVIRONMENTS | CONTINUOUS_ENVIRONMENTS

SMALL_ENVIRONMENTS = {
    name: ENUMERABLE_ENVIRONMENTS[name]
    for name in ("hypergrid-1x7", "hypergrid-3x3", "hypergrid-4x3", "prepend-append-2^4")
}
"""Those with few enough trajectories to list them all, and more than one of them."""

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

CATEGORICALS = {
    f"categorical-{name}": Categorical(jnp.asarray(logits), jnp.asarray(mask, bool))
    for name, (logits, mask) in _LOGITS.items()
}

_MEAN_AND_STD = {
    "line": ([0.7], [0.4]),
    "space": ([-2.0, 0.0, 30.0], [1.0, 0.01, 5.0]),
    "point": ([1.5, -3.0], [0.0, 0.0]),
    "point-and-spread": ([1.5, -3.0], [0.0, 2.0]),
}

GAUSSIANS = {
    f"gaussian-{name}": Gaussian(jnp.asarray(mean), jnp.asarray(std))
    for name, (mean, std) in _MEAN_AND_STD.items()
}

KERNELS = CATEGORICALS | GAUSSIANS

TARGETS = {
    "deceptive-grid": (DeceptiveGrid(2, 16), Hypergrid(2, 16)),
    "deceptive-grid-exact": (DeceptiveGrid(3, 6, "exact"), Hypergrid(3, 6)),
    "from-function": (FromFunction(lambda x: 0.3 * jnp.sum(x)), PrependAppend(20, 12)),
    "host-reward": (
        HostReward(lambda strings: [1.0 + s.count("B") for s in strings], "AB", cache=False),
        PrependAppend(2, 4),
    ),
    "gmm25": (GMM25(), None),
    "gmm40": (GMM40(), None),
    "gmm40-5d": (GMM40(5), None),
    "mixture": (GaussianMixture(((0.0, 1.0), (2.0, 0.0)), (0.5, 1.0), (1.0, 3.0)), None),
    "mixture-1d": (GaussianMixture(((0.0,), (1.0,)), 0.3), None),
    "mixture-4d": (GaussianMixture(((0.0,) * 4, (1.0,) * 4), 1.0), None),
    "eight-gaussians": (EightGaussians(), None),
    "ring": (Ring(), None),
    "checkerboard": (Checkerboard(softness=0.1), None),
    "many-well-2d": (ManyWell(2), None),
    "many-well": (ManyWell(8), None),
    "funnel": (Funnel(), None),
    "logistic-regression": (LogisticRegression(3), Diffusion(3, 4)),
    "log-gaussian-cox": (LogGaussianCox(2), Diffusion(4, 4)),
}
"""Targets, each with the environment whose objects it is checked on, or None for its samples."""

DATA_TARGETS = {
    "tfbind8": (TFBind8, PrependAppend(4, 8)),
    "qm9": (QM9, PrependAppend(11, 5)),
    "seh": (SEH, PrependAppend(18, 6)),
    "rna-1": (L14RNA1, PrependAppend(4, 14)),
    "rna-2": (L14RNA2, PrependAppend(4, 14)),
    "rna-3": (L14RNA3, PrependAppend(4, 14)),
}
"""Those that are made of data that has to be fetched."""

BALANCES = {
    "tb": TB,
    "vargrad": VarGrad,
    "db": DB,
    "subtb-0.9": lambda regression: SubTB(0.9, regression),
    "gafn": GAFN,
}
"""Functions of a regression, whose loss is 0 at the optimum; GAFN's, where nothing is new."""

LIKELIHOODS = {
    "mle": lambda regression: MLE(),
    "reverse-kl": lambda regression: ReverseKL(),
}
"""Those whose loss is a bound of log Z: they have no regression."""

OBJECTIVES = BALANCES | LIKELIHOODS

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

EXPLORER_REWARDS = {
    "sibling": Sibling(extrinsic=0.5),
    "loss-guided": LossGuided(2.0),
    "complementary": Complementary(),
}
"""Those of other methods with an auxiliary sampler, which is not after the Teacher's ends."""

DISCRETE_BEHAVIOURS = {
    "on-policy-explored": OnPolicy(epsilon=0.3, temperature=2.0),
    "on-policy-annealed": OnPolicy(epsilon=0.5, anneal_steps=3),
    "from-teacher": FromTeacher(epsilon=0.1),
    "from-replay": FromReplay(),
    "collect": Collect(FromTeacher()),
    "local-search": LocalSearch(OnPolicy(), depth=2, rounds=3),
    "local-search-greedy": LocalSearch(FromReplay(), depth=4, rounds=1, greedy=True),
    "mutate": Mutate(RankDraw(0.1)),
    "cycle": Cycle((OnPolicy(), FromReplay(), FromTeacher(), FromReplay())),
    "cycle-of-sizes": Cycle((OnPolicy(), FromReplay(3), Collect(FromTeacher()))),
    "uniform": FromUniform(),
    "chains": FromChains(depth=3),
    "thompson": Thompson(),
}
"""Those that serve any environment."""

CONTINUOUS_BEHAVIOURS = {
    "from-samples": FromSamples(),
    "mala": MALA(OnPolicy(), num_steps=4, burn_in=2),
    "mala-cycle": Cycle((OnPolicy(), FromReplay(), Collect(MALA(FromReplay(), 3, 1)))),
}
"""Those that ask of the target more than log R of an object of the grid."""

BEHAVIOURS = DISCRETE_BEHAVIOURS | CONTINUOUS_BEHAVIOURS
