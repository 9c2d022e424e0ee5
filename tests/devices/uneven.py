"""A batch of 16 on 3 devices: an error that says what to do."""

import jax
import pytest

import didact
from didact import presets

MESSAGE = "a batch of 16 cannot be split over 3 devices"
experiment = presets.grid("tb", 2, 8, batch_size=16)
with jax.set_mesh(didact.batch_mesh()), pytest.raises(ValueError, match=MESSAGE):
    didact.step(experiment, didact.init(experiment))
