"""Files that hold arrays: checkpoints of a run, and trained samplers. Nothing is pickled."""

import contextlib
import json
import logging
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ._config import from_json, to_json
from ._files import write_whole
from ._sampler import Sampler
from ._train import TrainState
from .networks import Network

FORMAT_VERSION = 1
_KEEP = 2
# What reading a damaged file raises depends on where it is damaged.
_UNREADABLE = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError),
    *(IndexError, AttributeError, OverflowError, NotImplementedError, RecursionError, MemoryError),
)

_log = logging.getLogger("didact")


def save_state(folder: Path, state: TrainState) -> Path:
    """Write a checkpoint of a run, `folder`/<step>.npz, and drop all but the newest two."""
    path = folder / f"{int(state.step):09d}.npz"
    folder.mkdir(parents=True, exist_ok=True)
    for left_by_a_crash in folder.glob("*.partial"):
        left_by_a_crash.unlink()
    _write(path, {"format_version": np.asarray(FORMAT_VERSION)} | _leaves(state))
    for old in checkpoints(folder)[:-_KEEP]:
        old.unlink()
    return path


def load_state(folder: Path, like: TrainState) -> TrainState | None:
    """The newest readable checkpoint in a folder; None if there is none.

    **Arguments:** `like`: a state of the same experiment and seeds, for its structure.

    **Errors:** `ValueError` if checkpoints are there and all of them are damaged, or if one is
    whole but of another experiment; `PermissionError`, `MemoryError`.
    """
    found = checkpoints(folder)
    reason: Exception | None = None
    for path in reversed(found):
        try:
            state = _read_state(path, like)
        except _UNREADABLE as error:
            # A whole file that cannot be used is no reason to go back to an older one.
            if _is_whole(path):
                if isinstance(error, PermissionError | MemoryError):
                    raise
                raise ValueError(
                    f"{path} does not fit this run ({error}): use the configuration and the "
                    "version of didact that wrote it."
                ) from error
            reason = error
            continue
        if reason is not None:
            _log.warning("%s cannot be read: going on from %s.", found[-1], path.name)
        return state
    if found:
        raise ValueError(
            f"no checkpoint in {folder} can be read ({reason}): restore one from a copy, or train "
            "into another folder."
        ) from reason
    return None


def _is_whole(path: Path) -> bool:
    """Whether a file is as it was written, by its own checksums; true where that is secret."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except PermissionError:
        return True
    except _UNREADABLE:
        return False


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("*.npz") if path.stem.isdigit())


def save_sampler(path: str | Path, sampler: Sampler, **facts: str | int) -> None:
    """Write a trained sampler: a NumPy archive that holds its configuration and its arrays.

    **Arguments:** `facts` are kept in the file's header beside the configuration.
    """
    write_archive(Path(path), "sampler", describe_sampler(sampler) | facts, sampler_arrays(sampler))


def load_sampler(path: str | Path, *, given: Mapping[str, Any] | None = None) -> Sampler:
    """Read a sampler that `save_sampler` wrote. Executes nothing from the file.

    **Arguments:** `given`: what the file can only name, such as a class of environments of
    your own ({"module:name": class}).

    **Errors:** `ValueError` naming the file if it is not one or is damaged.
    """
    with read_archive(Path(path), "sampler") as (header, arrays):
        return build_sampler(header, arrays, given)


def describe_sampler(sampler: Sampler) -> dict[str, Any]:
    """The configuration of a sampler as JSON values: all of it but its arrays."""
    policy = sampler.policy
    if not isinstance(policy, Network):
        raise ValueError(f"a sampler with a {type(policy).__name__} cannot be saved yet.")
    return {
        "environment": to_json(sampler.environment),
        "network": to_json(policy.config),
        "backward_head": policy.heads.backward > 0,
        "flow_head": policy.heads.flow > 0,
        "backward_scoring": to_json(sampler.backward_scoring),
        "guide": to_json(sampler.guide),
    }


def sampler_arrays(sampler: Sampler, prefix: str = "") -> dict[str, np.ndarray]:
    """The arrays of a sampler by the names that they have in an archive."""
    leaves = jax.tree.leaves(eqx.filter(sampler, eqx.is_array))
    return {f"{prefix}array_{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}


def build_sampler(
    header: Mapping[str, Any],
    archive: Mapping[str, np.ndarray],
    given: Mapping[str, Any] | None = None,
    prefix: str = "",
) -> Sampler:
    """The inverse of `describe_sampler` and `sampler_arrays`.

    **Errors:** `ValueError` for arrays that do not fit the configuration.
    """
    like = eqx.filter_eval_shape(lambda: _build(header, given))
    arrays, rest = eqx.partition(like, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    leaves, structure = jax.tree.flatten(arrays)
    read = [archive[f"{prefix}array_{i}"] for i in range(len(leaves))]
    for have, want in zip(read, leaves, strict=True):
        if have.shape != want.shape or have.dtype != want.dtype:
            raise ValueError("its arrays do not fit its configuration")
    return eqx.combine(jax.tree.unflatten(structure, [jnp.asarray(a) for a in read]), rest)


def write_archive(
    path: Path, kind: str, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write a header and arrays as a file of a kind."""
    header = {"format_version": FORMAT_VERSION, "kind": kind} | dict(header)
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    _write(path, {"header": text} | dict(arrays))


@contextlib.contextmanager
def read_archive(
    path: Path, kind: str
) -> Iterator[tuple[dict[str, Any], Mapping[str, np.ndarray]]]:
    """The header and the arrays of a file of a kind. What goes wrong while they are read becomes a
    `ValueError` that names the file.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes().decode())
            if header["kind"] != kind or header["format_version"] != FORMAT_VERSION:
                raise ValueError("it is of another kind, or another version of didact wrote it")
            yield header, file
    except _UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as a {kind}: {error}") from error


def _build(header: Mapping[str, Any], given: Mapping[str, Any] | None) -> Sampler:
    environment = from_json(header["environment"], given)
    policy = from_json(header["network"], given).build(
        environment,
        flow_head=header["flow_head"],
        backward_head=header["backward_head"],
        key=jax.random.key(0),
    )
    scoring = from_json(header["backward_scoring"], given)
    guide = from_json(header.get("guide"), given)
    return Sampler(environment, policy, jnp.zeros(()), scoring, guide)


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with write_whole(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def _read_state(path: Path, like: TrainState) -> TrainState:
    """Read a checkpoint; the archive's checksums tell damaged arrays."""
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        if file["format_version"] != FORMAT_VERSION:
            raise ValueError("another version of didact wrote it")
        leaves = {}
        for name, leaf in _leaves(like).items():
            leaves[name] = file[name]
            if (leaves[name].shape, leaves[name].dtype) != (leaf.shape, leaf.dtype):
                raise ValueError(f"{name} does not fit the experiment")
    return _with_leaves(like, leaves)


def _leaves(state: TrainState) -> dict[str, np.ndarray]:
    """Arrays of a state by name; keys as the words they consist of."""
    named, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(state, eqx.is_array))
    return {jax.tree_util.keystr(path): np.asarray(_words(leaf)) for path, leaf in named}


def _with_leaves(like: TrainState, leaves: dict[str, np.ndarray]) -> TrainState:
    arrays, rest = eqx.partition(like, eqx.is_array)
    named, structure = jax.tree_util.tree_flatten_with_path(arrays)
    restored = []
    for path, leaf in named:
        value = jnp.asarray(leaves[jax.tree_util.keystr(path)])
        restored.append(jax.random.wrap_key_data(value) if _is_key(leaf) else value)
    return eqx.combine(jax.tree.unflatten(structure, restored), rest)


def _is_key(leaf: PyTree) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _words(leaf: PyTree) -> PyTree:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


__all__ = ["checkpoints", "load_sampler", "load_state", "save_sampler", "save_state"]
