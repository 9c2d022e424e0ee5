"""The set of objects that were asked for, against a Python set."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact import _seen
from didact._experiment import Experiment
from didact.environments import Diffusion, Hypergrid, PrependAppend
from didact.targets import DeceptiveGrid, FromFunction, Funnel


def test_it_counts_as_a_set_does():
    rng = np.random.default_rng(0)
    seen, known = _seen.empty(70), set()
    add = jax.jit(_seen.add)
    for _ in range(12):
        number, keep = rng.integers(0, 70, 16), rng.random(16) < 0.7
        number[1], keep[0] = number[0], False  # a twin that is left out hides nothing
        seen = add(seen, jnp.asarray(number, jnp.int32), jnp.asarray(keep))
        known |= set(number[keep].tolist())
        bits = np.unpackbits(np.asarray(seen.words).view(np.uint8), bitorder="little")
        assert int(seen.count) == int(bits.sum()) == len(known)
    assert set(np.flatnonzero(bits).tolist()) == known
    assert 50 < len(known) < 70


@pytest.mark.slow
def test_a_run_counts_what_it_asks_for_once():
    import didact

    experiment = didact.presets.discovery(
        FromFunction(lambda x: jnp.sum(x) / 3.0),
        "teacher-per",
        num_symbols=2,
        length=3,
        width=4,
        batch_size=8,
        steps=6,
    )
    assert experiment.count_distinct
    state, known, counts = didact.init(experiment, (0, 1)), [set(), set()], []
    for _ in range(6):
        proposal = didact.ask(experiment, state)
        x = np.asarray(didact.objects(experiment, proposal))
        if np.all(proposal.fresh):
            for seed in range(2):
                known[seed] |= {tuple(row) for row in x[seed].tolist()}
        log_reward = jnp.sum(x, axis=-1) / 3.0
        state, info = didact.tell(experiment, state, proposal, log_reward)
        counts.append(np.asarray(info.distinct).tolist())
        assert counts[-1] == [len(known[0]), len(known[1])]
    assert counts[0] != counts[-1]


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match="which Diffusion does not"):
        Experiment(Diffusion(10, 3), Funnel(), count_distinct=True)
    with pytest.raises(ValueError, match="too many to count"):
        Experiment(PrependAppend(20, 12), FromFunction(lambda x: 0.0), count_distinct=True)
    plain = Experiment(Hypergrid(2, 8), DeceptiveGrid(2, 8))
    assert not plain.count_distinct
    assert eqx.tree_equal(plain, Experiment(Hypergrid(2, 8), DeceptiveGrid(2, 8)))
