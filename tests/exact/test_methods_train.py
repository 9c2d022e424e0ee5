"""Every method of exploration trains its Student: judged exactly, against the untrained one."""

import numpy as np
import pytest

from didact._train import init, train_chunk
from didact.metrics import evaluate_exactly
from didact.presets import EXPLORATION_PRESETS, grid

# A uniform policy seldom comes to where most of the mass is: its Student needs longer.
STEPS = {"uniform": 4_500}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one-sided", "didact", *EXPLORATION_PRESETS])
def test_a_short_run_comes_close_to_the_target(name):
    """Total variation falls from 0.78 to below a fifth, and all four modes are found."""
    steps = STEPS.get(name, 1_500)
    experiment = grid(name, 2, 8, steps=steps)
    state = init(experiment, [100])
    before, _ = evaluate_exactly(state.student(), experiment.target, experiment.objective)
    state, info = train_chunk(experiment, state, steps, capacity=steps)
    assert not np.any(state.seeds.trouble)
    after, _ = evaluate_exactly(state.student(), experiment.target, experiment.objective)
    assert before["tv"] > 0.7
    assert after["tv"] < before["tv"] / 5
    assert int(info.modes_found[0, -1]) == 4
