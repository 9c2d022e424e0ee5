"""Training by several processes, one device each: python processes.py PORT COUNT NUMBER.

Each prints the losses of a few steps, which are the same in all of them.
"""

import json
import sys

import jax
import numpy as np
from program import experiment

import didact

port, count, number = sys.argv[1:]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{port}", int(count), int(number))
assert len(jax.devices()) == int(count)
assert len(jax.local_devices()) == 1
setting = experiment("grid")
with jax.set_mesh(didact.batch_mesh()):
    state = didact.init(setting, (0, 1))
    _, info = didact.train_chunk(setting, state, 4, capacity=4)
    # Losses are on every device: each process reads its own copy.
    losses = np.asarray(info.loss.addressable_data(0))
print(json.dumps(losses.tolist()))  # noqa: T201
jax.distributed.shutdown()
