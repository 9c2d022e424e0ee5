"""Every exported class has an instance to which the contract tests apply."""

import inspect
from types import ModuleType
from typing import Any

import equinox as eqx
import pytest

from didact import _kernels, behaviours, environments, objectives, targets, teacher
from didact._types import Environment, Kernel, Objective, Regression, Target, TeacherReward
from didact.behaviours import Behaviour
from didact.objectives import Squared

from . import _instances

TABLES = [
    (environments, Environment, _instances.ENVIRONMENTS.values()),
    (_kernels, Kernel, _instances.KERNELS.values()),
    (objectives, Objective, [make(Squared()) for make in _instances.OBJECTIVES.values()]),
    (objectives, Regression, _instances.REGRESSIONS.values()),
    (
        teacher,
        TeacherReward,
        [*_instances.TEACHER_REWARDS.values(), *_instances.EXPLORER_REWARDS.values()],
    ),
    (behaviours, Behaviour, _instances.BEHAVIOURS.values()),
]
DATA_TARGETS = {make.__name__ for make, _ in _instances.DATA_TARGETS.values()}


def missing(module: ModuleType, noun: type[eqx.Module], instances: Any) -> set[str]:
    """Concrete classes of a kind that a module exports and that no instance has."""
    names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    exported = [getattr(module, name) for name in names]
    classes = {
        c
        for c in exported
        if inspect.isclass(c) and issubclass(c, noun) and not inspect.isabstract(c)
    }
    assert classes, f"{module.__name__} exports no {noun.__name__}"
    return {c.__name__ for c in classes - {type(instance) for instance in instances}}


@pytest.mark.parametrize(
    ("module", "noun", "instances"), TABLES, ids=lambda v: getattr(v, "__name__", "")
)
def test_every_export_has_an_instance(module, noun, instances):
    assert not missing(module, noun, instances)


def test_every_target_has_an_instance():
    instances = [target for target, _ in _instances.TARGETS.values()]
    assert missing(targets, Target, instances) == DATA_TARGETS


def test_an_export_without_an_instance_is_found():
    given = [r for r in _instances.REGRESSIONS.values() if not isinstance(r, Squared)]
    assert missing(objectives, Regression, given) == {"Squared"}
