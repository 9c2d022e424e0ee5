"""Draws from a trained run, streamed to a file in constant memory."""

import contextlib
import csv
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ._found import string_columns
from ._sampler import Sampler
from ._snapshots import is_vector
from ._types import Target
from .metrics import empirical

_BATCH, _VECTOR_BATCH = 2048, 512
_SAMPLES = 0x73616D70
COLUMNS = ("x", "log_reward", "log_pf", "log_pb", "seed")


def write_samples(
    path: str | Path,
    samplers: dict[int, Sampler],
    target: Target,
    n: int,
    *,
    key_seed: int = 0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Path:
    """Draw `n` objects, shared evenly among the samplers of several seeds, into a file.

    **Arguments:** `path`: ends in .npz (arrays `x`, `log_reward`, `log_pf`, `log_pb`, `seed`)
    or .csv (the same columns, x as x0, x1, ...; of strings with an alphabet x is the `string`, with
    the `smiles` of molecules if RDKit is there, the `value` if the target has one, and the
    sampler's `log_prob` of the string); `samplers`: by training seed; `key_seed`:
    the same one gives the same draws.

    The log importance weight of a draw is `log_reward + log_pb - log_pf`.

    **Errors:** `ValueError` for another ending or n < 1.
    """
    path = Path(path)
    if path.suffix not in (".npz", ".csv"):
        raise ValueError(f"samples are written as .npz or .csv, not {path.suffix or path.name!r}.")
    if n < 1:
        raise ValueError(f"the number of samples must be at least 1, got {n}.")
    if not path.parent.is_dir():
        raise ValueError(f"the folder {path.parent} does not exist: make it first.")
    batches = _batches(samplers, target, n, key_seed)
    # Written beside the destination and renamed: no half file under the name asked for.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".didact-") as folder:
        aside = Path(folder) / path.name
        if path.suffix == ".npz":
            _write_npz(aside, batches, n, on_progress)
        else:
            _write_csv(aside, batches, samplers, target, on_progress)
        aside.replace(path)
    return path


def draw_batches(
    sampler: Sampler, target: Target, seed: int, n: int, key_seed: int
) -> Iterator[empirical.Draws]:
    """`n` draws of the sampler that was trained with a seed, as NumPy arrays, batch by batch."""
    # Apart from the keys that training makes of the same seed.
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(key_seed), _SAMPLES), seed)
    # Real states never coincide, so all those of a batch are scored: fewer at a time.
    size = _VECTOR_BATCH if is_vector(sampler.environment) else _BATCH
    for start in range(0, n, size):
        count = min(size, n - start)
        # Programs are of whole batches; rewards are asked for no more draws than are wanted.
        drawn = empirical.draw(sampler, target, jax.random.fold_in(key, start), size, count)
        yield jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:count], drawn)


def _batches(
    samplers: dict[int, Sampler], target: Target, n: int, key_seed: int
) -> Iterator[dict[str, np.ndarray]]:
    shares = {seed: n // len(samplers) + (i < n % len(samplers)) for i, seed in enumerate(samplers)}
    for seed, sampler in samplers.items():
        for drawn in draw_batches(sampler, target, seed, shares[seed], key_seed):
            arrays: dict[str, Any] = {
                "x": drawn.x,
                "log_reward": drawn.log_reward,
                "log_pf": drawn.log_pf,
                "log_pb": drawn.log_pb,
                "seed": np.full(len(drawn.log_pf), seed, np.int32),
            }
            yield arrays


def _write_npz(
    path: Path,
    batches: Iterator[dict[str, np.ndarray]],
    n: int,
    on_progress: Callable[[int], None],
) -> None:
    """Columns grow in files of their own, which then become the members of the archive."""
    done = 0
    with contextlib.ExitStack() as stack:
        files = {
            name: stack.enter_context((path.parent / f"{name}.npy").open("wb")) for name in COLUMNS
        }
        for batch in batches:
            for name, array in batch.items():
                if done == 0:
                    header = {
                        "descr": np.lib.format.dtype_to_descr(array.dtype),
                        "fortran_order": False,
                        "shape": (n, *array.shape[1:]),
                    }
                    np.lib.format.write_array_header_1_0(files[name], header)
                files[name].write(np.ascontiguousarray(array).tobytes())
            done += len(batch["seed"])
            on_progress(done)
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        for name in COLUMNS:
            archive.write(path.parent / f"{name}.npy", f"{name}.npy")


def _write_csv(
    path: Path,
    batches: Iterator[dict[str, np.ndarray]],
    samplers: Mapping[int, Sampler],
    target: Target,
    on_progress: Callable[[int], None],
) -> None:
    done = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for batch in batches:
            sampler = samplers[int(batch["seed"][0])]
            about = string_columns(sampler, target, batch["x"])
            if about is None:
                x = batch["x"].reshape(len(batch["seed"]), -1)
                about = {f"x{i}": column.tolist() for i, column in enumerate(x.T)}
            # tolist() gives Python numbers, whose text round-trips.
            columns = about | {name: batch[name].tolist() for name in COLUMNS[1:]}
            if done == 0:
                writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
            done += len(batch["seed"])
            on_progress(done)


__all__ = ["draw_batches", "write_samples"]
