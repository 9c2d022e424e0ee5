"""`didact train --density module:function`: fit a density of the user's own."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from ._parse import named_function, parse
from ._process import BadInput, note, one_line, show, stop_signals, use_compilation_cache


@dataclasses.dataclass(frozen=True, kw_only=True)
class Density:
    """Fit a log-density of your own: draws, log Z, and a verdict on how far to trust them.

    Writes fit.npz (for didact.load_fit), samples.npz, verdict.json and report.html.
    """

    density: str
    """module:function, a JAX function of one position; its module is imported from here."""
    dim: int
    """Number of coordinates of a position."""
    lower: float | None = None
    """Lower bound of all coordinates. Default: none."""
    upper: float | None = None
    """Upper bound of all coordinates. Default: none."""
    seed: int = 0
    """Seed of everything random."""
    draws: int = 10_000
    """Weighted draws to write."""
    max_calls: int | None = None
    """Most evaluations of the density or its gradient. Default: no limit."""
    max_seconds: float = 600.0
    """Most seconds."""
    out: Path | None = None
    """Folder to write to. Default: runs/ and the name of the function."""


def train_density(arguments: list[str]) -> int:
    """Import the function, fit it, and write what came out."""
    options = parse(Density, "train", arguments)
    out = options.out or Path(f"runs/{options.density.replace(':', '-')}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} exists and is not empty: choose another folder with --out.")
    if not 0 <= options.seed < 2**31:
        raise BadInput(f"--seed must lie in [0, 2^31), got {options.seed}.")
    function = named_function("--density", options.density)
    use_compilation_cache()
    import jax

    from .._fit import fit

    began = time.monotonic()
    note("Looking for the scale of the density ...")
    with stop_signals() as stop, one_line(ValueError, FloatingPointError):
        result = fit(
            function,
            dim=options.dim,
            rng_key=jax.random.key(options.seed),
            bounds=(options.lower, options.upper),
            num_samples=options.draws,
            max_calls=options.max_calls,
            max_seconds=options.max_seconds,
            should_stop=lambda: stop.code != 0,
            on_progress=_tell,
        )
    with one_line(OSError, ValueError):
        out.mkdir(parents=True, exist_ok=True)
        result.save(out / "fit.npz")
        _write_draws(out / "samples.npz", result)
        _write_verdict(out / "verdict.json", options, result)
        result.report(out / "report.html")
    show(str(result))
    note(f"{time.monotonic() - began:.0f} s in all.")
    show(f"Report: {out / 'report.html'}")
    return stop.code


def _tell(row: dict[str, Any]) -> None:
    note(
        f"round {row['round']}, step {row['step']:,}: loss {row['loss']:.3g}, log Z about "
        f"{row['log_z']:.3f}, {row['calls']:,} evaluations, {row['seconds']:.0f} s"
    )


def _write_draws(path: Path, result: Any) -> None:
    import numpy as np

    from .._files import write_whole

    with write_whole(path) as file:
        np.savez(
            file,
            allow_pickle=False,
            x=np.asarray(result.samples),
            log_weight=np.asarray(result.log_weights),
        )


def _write_verdict(path: Path, options: Density, result: Any) -> None:
    from .._files import write_whole
    from ..metrics import finite_or_none

    names = ("reliable", "reason", "log_z", "elbo", "ess", "k_hat", "calls", "seconds")
    verdict = {name: getattr(result, name) for name in names} | {
        "format_version": 1,
        "density": options.density,
        "seed": options.seed,
        "log_z_low": result.log_z_interval[0],
        "log_z_high": result.log_z_interval[1],
        "log_z_by_seed": list(result.log_z_by_seed),
        "modes": [
            {k: v.tolist() if hasattr(v, "tolist") else v for k, v in row.items()}
            for row in result.modes
        ],
    }
    text = json.dumps(finite_or_none(verdict), indent=2, allow_nan=False)
    with write_whole(path) as file:
        file.write(f"{text}\n".encode())
