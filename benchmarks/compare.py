"""A training iteration of didact beside gfnx's and torchgfn's: same environment, network, batch,
objective and precision, in turns within one run.

    python benchmarks/compare.py setup           # an environment for each peer, under runs/peers
    python benchmarks/compare.py run             # minutes, on an idle machine
    python benchmarks/compare.py table           # Markdown, from the kept results
    python benchmarks/compare.py figure          # docs/assets/compare.png

Each library trains in a process of its own, all of them from the start of a run; after compiling
and a warm-up they are asked in turns for the same number of steps, and the medians of the turns are
compared. Lengths of trajectories depend on what has been learned, so the numbers of transitions
stand beside the times.
"""

import argparse
import contextlib
import json
import math
import select
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import machine, matmul_peak

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent / "runs" / "peers"
RESULTS = HERE / "results" / "compare.json"
FIGURE = HERE.parent / "docs" / "assets" / "compare.png"
# gfnx's release asks for a NumPy that current JAX does not support; it runs with the JAX and NumPy
# that didact uses, so that only the libraries differ.
PEERS = {
    "gfnx": [["gfnx==0.0.1"], ["equinox==0.13.8", "jax==0.10.2", "jaxlib==0.10.2"]],
    "torchgfn": [["torchgfn==2.4.1", "torch==2.13.0", "matplotlib", "scipy"]],
}
GRID = {"rate": 1e-3, "log_z_rate": 0.1, "max_norm": 1.0, "width": 256}
STRINGS = {"rate": 1e-4, "log_z_rate": 1e-2, "max_norm": 10.0}
DIFFUSION = {"rate": 1e-3, "log_z_rate": 0.1, "max_norm": 1.0, "num_steps": 100, "width": 256}


class Contender(NamedTuple):
    """A library, and how it is started: `python`, the worker's words."""

    name: str
    python: Path
    words: tuple[str, ...]
    teacher: bool = False


class Task(NamedTuple):
    """What is trained, by whom, and how many steps a turn has."""

    settings: dict[str, Any]
    peers: tuple[str, ...]
    chunk: int


def _grid(dim: int, side: int, batch_size: int, chunk: int) -> Task:
    settings = {"kind": "grid", "dim": dim, "side": side, "batch_size": batch_size} | GRID
    return Task(settings, ("gfnx", "torchgfn", "torchgfn compiled"), chunk)


def _strings(symbols: int, length: int, width: int, batch_size: int, *, both: bool) -> Task:
    settings = {"kind": "strings", "symbols": symbols, "length": length, "both_ends": both}
    settings |= {"width": width, "batch_size": batch_size} | STRINGS
    return Task(settings, ("gfnx",), 50)


TASKS = {
    "grid (4, 16), batch 16": _grid(4, 16, 16, 100),
    "grid (4, 16), batch 256": _grid(4, 16, 256, 20),
    "grid (4, 32), batch 16": _grid(4, 32, 16, 50),
    "grid (4, 32), batch 256": _grid(4, 32, 256, 10),
    "grid (2, 128), batch 16": _grid(2, 128, 16, 50),
    "grid (2, 128), batch 256": _grid(2, 128, 256, 10),
    "TFBind8, batch 16": _strings(4, 8, 256, 16, both=False),
    "TFBind8, batch 256": _strings(4, 8, 256, 256, both=False),
    "QM9, batch 16": _strings(11, 5, 256, 16, both=True),
    "QM9, batch 256": _strings(11, 5, 256, 256, both=True),
    "25GMM, batch 100": Task(
        {"kind": "diffusion", "batch_size": 100} | DIFFUSION, ("torchgfn", "torchgfn compiled"), 5
    ),
    "25GMM, batch 500": Task(
        {"kind": "diffusion", "batch_size": 500} | DIFFUSION, ("torchgfn", "torchgfn compiled"), 2
    ),
}


def setup() -> None:
    """An environment for each peer."""
    for name, steps in PEERS.items():
        folder = ENVIRONMENTS / name
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        for packages in steps:
            command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *packages]
            subprocess.run(command, check=True)


def contenders(task: Task) -> list[Contender]:
    """Everyone who trains a task: first of all didact by trajectory balance."""
    here = Path(sys.executable)
    found = [
        Contender("didact", here, ("ours.py",)),
        Contender("didact, Teacher", here, ("ours.py",), teacher=True),
    ]
    for peer in task.peers:
        library, _, option = peer.partition(" ")
        python = ENVIRONMENTS / library / "bin" / "python"
        if not python.exists():
            raise SystemExit(f"{library} is not installed: compare.py setup does it.")
        words = (f"{library}_steps.py", option) if option else (f"{library}_steps.py",)
        found.append(Contender(peer, python, words))
    return found


@contextlib.contextmanager
def worker(contender: Contender, patience: float) -> Iterator[Any]:
    """A process that answers a dictionary by a dictionary, each within `patience` seconds.

    **Errors:** `TimeoutError` where it does not; it is killed then, so as not to disturb others.
    """
    process = subprocess.Popen(
        [contender.python, *contender.words],
        cwd=HERE / "peers",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    source, sink = process.stdout, process.stdin

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        sink.write(json.dumps(request) + "\n")
        sink.flush()
        if not select.select([source], [], [], patience)[0]:
            process.kill()
            raise TimeoutError(f"no answer within {patience:g} s")
        answer = source.readline()
        if not answer:
            raise RuntimeError(f"{contender.name} died: run its worker by hand to see why")
        return json.loads(answer)

    try:
        yield ask
    finally:
        process.kill()
        process.wait()


def complete(task: Task, folder: Path) -> dict[str, Any]:
    """What a worker is told of a task, with rewards in a folder where there is a table of them."""
    settings = task.settings | {"chunk": task.chunk}
    if task.settings["kind"] == "strings":
        # No wheel holds the data: a table of log-rewards in their place costs the same.
        number = task.settings["symbols"] ** task.settings["length"]
        table = 3 * np.random.default_rng(0).standard_normal(number)
        np.save(folder / "table.npy", table.astype(np.float32))
        settings["log_rewards"] = str(folder / "table.npy")
    return settings


def measure(name: str, turns: int, warm_up: int, patience: float) -> dict[str, Any]:
    """Milliseconds a step of everyone who trains a task; of whoever does not answer, the reason."""
    task = TASKS[name]
    peak = matmul_peak()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = complete(task, folder)
        rows: list[dict[str, Any]] = []
        asks: dict[str, Any] = {}
        missing: dict[str, str] = {}
        for contender in contenders(task):
            ask = stack.enter_context(worker(contender, patience))
            try:
                versions = ask({"task": settings | {"teacher": contender.teacher}})["versions"]
                for _ in range(warm_up):
                    ask({"steps": task.chunk})
            except TimeoutError as error:
                missing[contender.name] = str(error)
                continue
            asks[contender.name] = ask
            rows.append({"name": contender.name, "versions": versions, "turns": []})
        for _ in range(turns):
            for row in rows:
                if row["name"] in missing:
                    continue
                try:
                    row["turns"].append(asks[row["name"]]({"steps": task.chunk}))
                except TimeoutError as error:
                    missing[row["name"]] = str(error)
    rows = [row for row in rows if row["name"] not in missing]
    for row in rows:
        each = [1e3 * turn["seconds"] / task.chunk for turn in row["turns"]]
        row["milliseconds"] = statistics.median(each)
        row["transitions"] = statistics.mean(turn["transitions"] for turn in row.pop("turns"))
        row["times_ours"] = row["milliseconds"] / rows[0]["milliseconds"]
    floor = operations(task, rows[0]["transitions"]) / peak
    return {
        "task": name,
        "settings": task.settings,
        "steps": task.chunk,
        "turns": turns,
        "peak_gflops": peak / 1e9,
        "floor_milliseconds": 1e3 * floor,
        "rows": rows,
        "missing": missing,
    }


def operations(task: Task, transitions: float) -> float:
    """Nominal operations of a step by trajectory balance: one network call a transition in the
    rollout and three in training. First layers that look integer features up are not counted.
    """
    settings = task.settings
    width = settings["width"]
    outputs = {
        "grid": lambda: settings["dim"] + 1,
        "strings": lambda: settings["symbols"] * (2 if settings["both_ends"] else 1),
        "diffusion": lambda: 4,  # the position, and the drift
    }[settings["kind"]]()
    squares = 3 if settings["kind"] == "diffusion" else 1
    return 4 * transitions * 2 * width * (squares * width + outputs)


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: milliseconds a step, and how many times ours."""
    lines = [
        "| task | didact ms | of peak | gfnx | torchgfn | Teacher (didact) |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        by_name = {row["name"]: row for row in result["rows"]}
        ours = by_name["didact"]
        torch = [row for name, row in by_name.items() if name.startswith("torchgfn")]
        cells = [
            _times(by_name.get("gfnx")),
            _times(min(torch, key=lambda row: row["milliseconds"]) if torch else None),
            _times(by_name["didact, Teacher"]),
        ]
        share = result["floor_milliseconds"] / ours["milliseconds"]
        lines.append(
            f"| {result['task']} | {ours['milliseconds']:.2f} | {share:.0%} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def _times(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    compiled = ", compiled" if row["name"].endswith("compiled") else ""
    return f"{row['milliseconds']:.1f} ms, × {row['times_ours']:.1f}{compiled}"


def figure(results: list[dict[str, Any]]) -> None:
    """Bars of milliseconds a step, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = ["didact", "didact, Teacher", "gfnx", "torchgfn"]
    colours = ["#0b6e99", "#7fb8d1", "#b5651d", "#888888"]
    shown, axes = plt.subplots(figsize=(8, 5))
    for i, (name, colour) in enumerate(zip(names, colours, strict=True)):
        values = [
            min(
                (r["milliseconds"] for r in result["rows"] if _library(r["name"]) == name),
                default=math.nan,
            )
            for result in results
        ]
        places = np.arange(len(results)) + (i - 1.5) * 0.2
        axes.barh(places, values, 0.19, color=colour, label=name)
    axes.set_yticks(np.arange(len(results)), [result["task"] for result in results])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds a training step")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    shown.tight_layout()
    shown.savefig(FIGURE, dpi=120)


def _library(name: str) -> str:
    return name.removesuffix(" compiled")


def main() -> None:
    """Set up, run, tabulate or draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["setup", "run", "table", "figure"])
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--patience", type=float, default=60.0, help="seconds for one answer")
    options = parser.parse_args()
    if options.action == "setup":
        setup()
        return
    kept = json.loads(RESULTS.read_text())["results"] if RESULTS.exists() else []
    if options.action == "run":
        for name in options.tasks:
            found = measure(name, options.turns, options.warm_up, options.patience)
            kept = [result for result in kept if result["task"] != name] + [found]
            kept.sort(key=lambda result: list(TASKS).index(result["task"]))
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps({"machine": machine(), "results": kept}, indent=2) + "\n")
            print(table([found]).splitlines()[-1], flush=True)
    if options.action == "figure":
        figure(kept)
    print(table(kept))


if __name__ == "__main__":
    main()
