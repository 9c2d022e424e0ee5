"""The laws of a target, over every instance."""

import os

import pytest

from didact.testing import check_target

from ._instances import DATA_TARGETS, TARGETS

needs_data = pytest.mark.skipif(
    not os.environ.get("DIDACT_DATA_DIR"),
    reason="needs `didact data fetch all` and DIDACT_DATA_DIR",
)


FAST = (
    *("deceptive-grid", "deceptive-grid-exact", "from-function", "host-reward"),
    *("mixture", "mixture-1d", "many-well", "logistic-regression"),
)
"""The samples and log Z of the others are compared with their densities in tests/statistical and
tests/exact.
"""


@pytest.mark.parametrize(
    ("target", "env"),
    [
        pytest.param(*both, id=name, marks=[pytest.mark.slow] * (name not in FAST))
        for name, both in TARGETS.items()
    ],
)
def test_every_law_holds(target, env, key):
    check_target(target, env, key=key, num_draws=1024)


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize(("make", "env"), DATA_TARGETS.values(), ids=DATA_TARGETS)
def test_every_law_holds_where_there_is_data(make, env, key):
    if make.__name__.startswith("L14"):
        pytest.importorskip("RNA", reason="needs ViennaRNA: pip install 'didact[rna]'")
    check_target(make(), env, key=key)
