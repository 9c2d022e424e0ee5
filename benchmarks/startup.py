"""How long it takes until training begins: imports, and the first step, compiled and kept.

    python benchmarks/startup.py          # minutes, on an idle machine

Every time is that of a process of its own, by the wall clock. The first step is the first chunk of
a run: trace, compile, and make one step. The second process finds the programs of the first in the
folder of compiled programs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import machine

RESULTS = Path(__file__).parent / "results" / "startup.json"
MAKERS = {
    "grid (4, 16), tb": "presets.grid('tb', 4, 16)",
    "grid (4, 16), tb-prt": "presets.grid('tb-prt', 4, 16)",
    "grid (4, 16), teacher": "presets.grid('teacher', 4, 16)",
    "grid (4, 16), teacher-per": "presets.grid('teacher-per', 4, 16)",
    "grid (4, 32), teacher-per": "presets.grid('teacher-per', 4, 32)",
    "25GMM, tb": "presets.diffusion(targets.GMM25(), 'tb', sigma=2.2, size='cpu')",
    "25GMM, teacher": "presets.diffusion(targets.GMM25(), 'teacher', sigma=2.2, size='cpu')",
    "25GMM, didact": "presets.diffusion(targets.GMM25(), 'didact', sigma=6.0, size='cpu')",
}
FIRST_STEP = """
import json, time
import jax
from didact import init, presets, targets, train_chunk
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
began = time.perf_counter()
experiment = {maker}
state = init(experiment)
made = time.perf_counter()
_, info = train_chunk(experiment, state, 1, capacity=100)
jax.block_until_ready(info.loss)
print(json.dumps({{"init": made - began, "chunk": time.perf_counter() - made}}))
"""


def imports(repeats: int) -> dict[str, float]:
    """Seconds of starting Python and of importing: medians, in turns."""
    programs = {
        "python": "pass",
        "jax": "import jax, jax.numpy",
        # Its parts are imported when they are first used, JAX among them.
        "didact": "import didact",
        "didact with all parts": "from didact import fit, presets, targets, train",
        "command line": "from didact import cli; import jax",
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(1 + repeats):
        for name, program in programs.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(each[1:]) for name, each in seconds.items()}


def first_step(maker: str, cache: str) -> dict[str, float]:
    """Seconds of making the state and of the first chunk, in a new process."""
    program = FIRST_STEP.format(maker=maker)
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": cache},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(found.stdout)


def main() -> None:
    """Measure, print a table, and write the results beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    started = imports(options.repeats)
    print("seconds to start: " + ", ".join(f"{k} {v:.2f}" for k, v in started.items()))
    print(f"{'first step of':28}{'compiled':>10}{'kept':>8}", flush=True)
    rows: list[dict[str, Any]] = []
    for name, maker in MAKERS.items():
        with tempfile.TemporaryDirectory() as cache:
            row = {"name": name, "cold": first_step(maker, cache), "kept": first_step(maker, cache)}
        rows.append(row)
        cold, kept = (sum(row[which].values()) for which in ("cold", "kept"))
        print(f"{name:28}{cold:>10.1f}{kept:>8.1f}", flush=True)
    result = {"machine": machine(), "imports": started, "first_steps": rows}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
