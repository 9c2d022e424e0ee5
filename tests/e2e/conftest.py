"""The run that the tests of the command line read, and copies of it to change."""

import shutil
from pathlib import Path

import pytest

from .._runs import shared_diffusion_run, shared_run, without_report

__all__ = ["copy", "diffusion", "trained", "without_report"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, for reading only."""
    return shared_run(tmp_path_factory)


@pytest.fixture(scope="session")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a diffusion sampler, for reading only."""
    return shared_diffusion_run(tmp_path_factory)


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(trained, tmp_path / "run"))
