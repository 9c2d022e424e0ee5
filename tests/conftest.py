"""Settings shared by all tests.

Shapes and types of every function that takes arrays are checked while the tests run (jaxtyping with
beartype). Compiled programs are kept below pytest's cache, so that a second run is quicker.
"""

import gc
import importlib.util
import os
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # JAX_PLATFORMS=cuda runs the tests on a GPU
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import jax
import pytest
from jaxtyping import Array, Key, install_import_hook

# No function of these has an array in its signature, and pyright checks other types: the checker
# wraps each function whenever it is made, which takes time where many are made.
WITHOUT_ARRAYS = {"_folder", "_loop", "_record", "bench", "cli", "presets", "run"}
_package = importlib.util.find_spec("didact")
assert _package is not None
_modules = {found.name for found in pkgutil.iter_modules(_package.submodule_search_locations)}
assert _modules > WITHOUT_ARRAYS
install_import_hook(
    [f"didact.{name}" for name in sorted(_modules - WITHOUT_ARRAYS)], "beartype.beartype"
)

MOST_AREAS = 25_000

# Compilation takes longer than Hypothesis allows an example; and a test means the same each time.
hypothesis.settings.register_profile("didact", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("didact")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--keys 1000` finds out how often tests reject what is right: see docs/reliability.md."""
    parser.addoption(
        "--keys", type=int, default=1, help="run each test that takes a key with so many of them"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Another key for each repetition."""
    count = metafunc.config.getoption("keys")
    if count > 1 and "key" in metafunc.fixturenames:
        metafunc.parametrize("key", range(count), indirect=True)


def pytest_configure(config: pytest.Config) -> None:
    """Gives each test process its own folder for compiled programs.

    JAX writes the entries of its cache without a lock, so processes must not share one. The
    environment variable hands the folder on to command lines that tests start.
    """
    cache = getattr(config, "cache", None)
    if cache is None:  # pytest -p no:cacheprovider
        return
    folder = str(cache.mkdir("jax-" + os.environ.get("PYTEST_XDIST_WORKER", "main")))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(autouse=True, scope="session")
def strings_are_listed_quickly() -> None:
    """With the emitters of fusions, which `make test` does without: 4 times in speed.

    (Here and not in the package: a version of XLA without the option would refuse it.)
    """
    from didact.targets import _duplex

    _duplex.OPTIMISED["xla_cpu_use_fusion_emitters"] = True


@pytest.fixture(autouse=True, scope="module")
def few_programs() -> Iterator[None]:
    """Lets go of compiled programs before a process has too many of them.

    Each takes some areas of memory, of which Linux allows a process 65,530: beyond, JAX crashes.
    What is needed again comes from the folder of compiled programs.
    """
    yield
    areas = Path("/proc/self/maps")
    if areas.exists() and areas.read_bytes().count(b"\n") > MOST_AREAS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are put together and not drawn, which takes longest: for tests that look only at
    the text around them.
    """

    def savefig(_: object, file: BinaryIO, **__: object) -> None:
        file.write(b"\x89PNG\r\n\x1a\n")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)


@pytest.fixture
def key(request: pytest.FixtureRequest) -> Key[Array, ""]:
    """A key that is the same in every test."""
    return jax.random.key(getattr(request, "param", 0))
