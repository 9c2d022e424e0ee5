"""A batch that is split over devices teaches what a whole one does."""

import json
import socket
from pathlib import Path

import jax
import numpy as np
import pytest

import didact
from didact import presets

from .conftest import start
from .program import experiment

PROGRAM = Path(__file__).with_name("program.py")
CASES = (
    ("grid", 4, "float32"),
    ("grid", 2, "float64"),
    ("diffusion", 4, "float32"),
    ("diffusion", 2, "float64"),
    ("vargrad", 4, "float64"),
    ("pathwise", 2, "float64"),
)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "devices", "precision"), CASES)
def test_an_update_agrees_with_that_of_one_device(kind: str, devices: int, precision: str) -> None:
    process = start(PROGRAM, kind, precision, devices=devices)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    found = json.loads(said.splitlines()[-1])
    tolerance = 1e-5 if precision == "float32" else 1e-11
    assert found["update"] <= tolerance
    assert found["states"] <= tolerance
    # Later steps differ by what rounding in the first becomes.
    assert found["steps"] <= 30 * tolerance
    assert found["devices"] == devices
    assert found["splits"] >= 1


def test_without_a_mesh_programs_split_nothing() -> None:
    setting = presets.grid("tb", 2, 8)
    state = didact.init(setting)
    program = jax.make_jaxpr(lambda state: didact.step(setting, state)[1].loss)(state)
    assert "shard_map" not in str(program)


def test_a_batch_that_cannot_be_split_is_refused() -> None:
    process = start(Path(__file__).with_name("uneven.py"), devices=3)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said


@pytest.mark.slow
def test_two_processes_train_as_one() -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    program = PROGRAM.with_name("processes.py")
    processes = [start(program, port, 2, number, devices=1) for number in range(2)]
    said = [process.communicate(timeout=600)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), said
    first, second = (json.loads(text.splitlines()[-1]) for text in said)
    assert first == second
    state = didact.init(experiment("grid"), (0, 1))
    _, info = didact.train_chunk(experiment("grid"), state, 4, capacity=4)
    np.testing.assert_allclose(first, info.loss, rtol=3e-4)
