"""Every class is abstract or final, checked over all `equinox.Module` classes of the package.

Only abstract classes are subclassed, nothing that is implemented is overridden, and one class of
a chain at most writes `__init__`. What an object does then stands in one place, found by reading
one class. To change an implemented method, wrap the object.
"""

import abc
import ast
import functools
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterable, Iterator
from typing import Literal

import equinox as eqx
import pytest

import didact

ModuleClass = type[eqx.Module]
Binding = Literal["abstract", "method", "value"]

# Equinox calls the `__check_init__` of every class of a chain; `__init__` has its own rule.
_NOT_OVERRIDDEN = ("__init__", "__check_init__")


def is_abstract(cls: ModuleClass) -> bool:
    """Whether a class has abstract members, or says that it is abstract by its base `ABC`."""
    members = (cls.__abstractmethods__, cls.__abstractvars__, cls.__abstractclassvars__)
    return any(members) or abc.ABC in cls.__bases__


@functools.cache
def body(cls: ModuleClass) -> dict[str, Binding]:
    """Names that the source of a class binds; what dataclasses add to it is left out."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(node, ast.ClassDef)
    bound: dict[str, Binding] = {}
    for part in node.body:
        if isinstance(part, ast.FunctionDef):
            marks = [ast.unparse(mark).rpartition(".")[2] for mark in part.decorator_list]
            bound[part.name] = "abstract" if "abstractmethod" in marks else "method"
        elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            abstract = "Abstract" in ast.unparse(part.annotation).partition("[")[0]
            bound[part.target.id] = "abstract" if abstract else "value"
        elif isinstance(part, ast.Assign):
            names = [target.id for target in part.targets if isinstance(target, ast.Name)]
            bound |= dict.fromkeys(names, "value")
    return bound


def _chain(cls: ModuleClass) -> list[ModuleClass]:
    """The class and its bases that are modules, nearest first, without `equinox.Module`."""
    return [c for c in cls.__mro__ if issubclass(c, eqx.Module) and c is not eqx.Module]


def _breaches(cls: ModuleClass) -> Iterator[str]:
    chain = _chain(cls)
    for base in chain[1:]:
        if not is_abstract(base):
            yield f"{cls.__qualname__} subclasses {base.__qualname__}, which is concrete"
    for place, base in enumerate(chain):
        for name, kind in body(base).items():
            if kind != "method" or name in _NOT_OVERRIDDEN:
                continue
            for nearer in chain[:place]:
                if body(nearer).get(name) in ("method", "value"):
                    what = f"{base.__qualname__}.{name}"
                    yield f"{nearer.__qualname__} overrides {what}, which is implemented"
    with_init = [c.__qualname__ for c in chain if "__init__" in body(c)]
    if len(with_init) > 1:
        yield f"__init__ stands more than once in a chain: {', '.join(with_init)}"


def violations(classes: Iterable[ModuleClass]) -> list[str]:
    """All breaches of the rule among these classes and their bases, as messages."""
    return sorted({breach for cls in classes for breach in _breaches(cls)})


def _package_classes() -> set[ModuleClass]:
    for module in pkgutil.walk_packages(didact.__path__, "didact."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: set[ModuleClass] = set()
    waiting: list[ModuleClass] = [eqx.Module]
    while waiting:
        new = set(waiting.pop().__subclasses__()) - found
        found |= new
        waiting += new
    return {cls for cls in found if cls.__module__.partition(".")[0] == "didact"}


def test_every_class_of_the_package_is_abstract_or_final() -> None:
    classes = _package_classes()
    assert classes
    assert not violations(classes), "\n" + "\n".join(violations(classes))


class _Shape(eqx.Module):
    name: eqx.AbstractVar[str]

    @abc.abstractmethod
    def area(self) -> float: ...

    def doubled(self) -> float:
        return 2 * self.area()


class _Square(_Shape):
    name: str
    side: float

    def __check_init__(self) -> None:
        assert self.side > 0

    def area(self) -> float:
        return self.side**2


class _Marker(eqx.Module, abc.ABC):
    label: str


class _Marked(_Marker):
    size: int


def test_abstract_bases_with_final_leaves_pass() -> None:
    assert violations([_Shape, _Square, _Marker, _Marked]) == []


def test_a_subclass_of_a_concrete_class_is_found() -> None:
    class Tile(_Square):
        colour: str

    class Network(eqx.nn.MLP):
        pass

    (tile,) = violations([Tile])
    assert "Tile subclasses _Square, which is concrete" in tile
    (network,) = violations([Network])
    assert "Network subclasses MLP, which is concrete" in network


@pytest.mark.parametrize("by", ["method", "property", "field", "assignment", "mixin"])
def test_an_overridden_method_is_found(by: str) -> None:
    class ByMethod(_Shape):
        def doubled(self) -> float:
            return 0.0

    class ByProperty(_Shape):
        @property
        def doubled(self) -> float:
            return 0.0

    class ByField(_Shape):
        doubled: float

    class ByAssignment(_Shape):
        doubled = abs

    class Other(eqx.Module):
        @abc.abstractmethod
        def other(self) -> float: ...

        def doubled(self) -> float:
            return 0.0

    class Mixed(Other, _Shape):
        pass

    classes = {
        "method": ByMethod,
        "property": ByProperty,
        "field": ByField,
        "assignment": ByAssignment,
        "mixin": Mixed,
    }
    (found,) = violations([classes[by]])
    assert "overrides _Shape.doubled, which is implemented" in found


def test_two_constructors_in_a_chain_are_found() -> None:
    class Base(eqx.Module):
        size: int

        def __init__(self) -> None:
            self.size = 1

        @abc.abstractmethod
        def area(self) -> float: ...

    class Leaf(Base):
        def __init__(self) -> None:
            self.size = 2

        def area(self) -> float:
            return 1.0

    (found,) = violations([Base, Leaf])
    assert found.startswith("__init__ stands more than once in a chain")
    assert "Leaf" in found
    assert "Base" in found
