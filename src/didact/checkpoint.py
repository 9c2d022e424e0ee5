"""Files that hold arrays: checkpoints of a run, and trained samplers. Nothing is pickled."""

import json
import zipfile
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ._config import from_json, to_json
from ._sampler import Sampler
from ._train import TrainState
from .networks import MLP

FORMAT_VERSION = 1
_KEEP = 2


def save_state(folder: Path, state: TrainState) -> Path:
    """Write a checkpoint of a run into `folder`/<step>, and drop all but the newest two.

    It is written aside and renamed, so a crash leaves whole checkpoints only.
    """
    import orbax.checkpoint as ocp

    path = (folder / f"{int(state.step):09d}").resolve()
    leaves = {"format_version": np.asarray(FORMAT_VERSION)} | _leaves(state)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, leaves, force=True)
    for old in checkpoints(folder)[:-_KEEP]:
        _remove(old)
    return path


def load_state(folder: Path, like: TrainState) -> TrainState | None:
    """The newest readable checkpoint in a folder; None if there is none.

    **Arguments:** `like`: a state of the same experiment and seeds, for its structure.

    **Errors:** `ValueError` if checkpoints are there and none of them can be read.
    """
    import orbax.checkpoint as ocp

    found = checkpoints(folder)
    template = {"format_version": np.asarray(FORMAT_VERSION)} | _leaves(like)
    reason: Exception | None = None
    for path in reversed(found):
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                leaves = checkpointer.restore(path.resolve(), template)
        # What a damaged file raises depends on where it is damaged.
        except (ValueError, KeyError, TypeError, OSError, IndexError) as error:
            reason = error
            continue
        if int(leaves["format_version"]) != FORMAT_VERSION:
            raise ValueError(f"{path} has another format version: update didact to read it.")
        return _with_leaves(like, leaves)
    if found:
        raise ValueError(
            f"no checkpoint in {folder} can be read; remove that folder to train from the start."
        ) from reason
    return None


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdigit())


def save_sampler(path: str | Path, sampler: Sampler, **facts: str | int) -> None:
    """Write a trained sampler: a NumPy archive that holds its configuration and its arrays.

    **Arguments:** `facts` are kept in the file's header beside the configuration.
    """
    policy = sampler.policy
    if not isinstance(policy, MLP):
        raise ValueError(f"a sampler with a {type(policy).__name__} cannot be saved yet.")
    header = {
        "format_version": FORMAT_VERSION,
        "kind": "sampler",
        "environment": to_json(sampler.environment),
        "network": to_json(policy.config),
        "backward_head": policy.head_sizes[1] > 0,
        "flow_head": policy.head_sizes[2] > 0,
        "backward_scoring": to_json(sampler.backward_scoring),
    } | facts
    arrays = {
        f"array_{i}": np.asarray(leaf)
        for i, leaf in enumerate(jax.tree.leaves(eqx.filter(sampler, eqx.is_array)))
    }
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    path = Path(path)
    aside = path.with_name(path.name + ".partial")
    with aside.open("wb") as file:
        np.savez(file, allow_pickle=False, header=text, **arrays)
    aside.replace(path)


def load_sampler(path: str | Path) -> Sampler:
    """Read a sampler that `save_sampler` wrote. Executes nothing from the file.

    **Errors:** `ValueError` naming the file if it is not one or is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes().decode())
            if header["kind"] != "sampler" or header["format_version"] != FORMAT_VERSION:
                raise ValueError("it is of another kind or version")
            like = eqx.filter_eval_shape(_build, header)
            arrays, rest = eqx.partition(like, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
            leaves, structure = jax.tree.flatten(arrays)
            read = [file[f"array_{i}"] for i in range(len(leaves))]
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as a sampler: {error}") from error
    for have, want in zip(read, leaves, strict=True):
        if have.shape != want.shape or have.dtype != want.dtype:
            raise ValueError(f"{path} is damaged: its arrays do not fit its configuration.")
    return eqx.combine(jax.tree.unflatten(structure, [jnp.asarray(a) for a in read]), rest)


def _build(header: dict[str, Any]) -> Sampler:
    environment = from_json(header["environment"])
    policy = from_json(header["network"]).build(
        environment,
        flow_head=header["flow_head"],
        backward_head=header["backward_head"],
        key=jax.random.key(0),
    )
    scoring = from_json(header["backward_scoring"])
    return Sampler(environment, policy, jnp.zeros(()), scoring)


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


def _remove(path: Path) -> None:
    import shutil

    shutil.rmtree(path)


__all__ = ["checkpoints", "load_sampler", "load_state", "save_sampler", "save_state"]
