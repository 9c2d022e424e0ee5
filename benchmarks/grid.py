"""The deceptive grid at the paper's constants and budgets: runs the cells, collects, tabulates.

    python benchmarks/grid.py run --out runs/grid          # hours; finished cells are kept
    python benchmarks/grid.py table                        # from benchmarks/results/grid
    python benchmarks/grid.py table --short                # the columns of the README

A cell is one preset on one grid with all its seeds in one program. What its run folder says at
the end (`evaluation.json`, and the command that made it) is kept under benchmarks/results/grid.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "grid"
PRESETS = ("tb", "tb-prt", "tb-per", "teacher", "teacher-per")
CELLS = [
    *((preset, dim, side, 3) for dim, side in ((4, 16), (2, 256), (2, 128)) for preset in PRESETS),
    ("teacher-per", 4, 32, 1),
]
SHORT = ("modes_found", "modes_held", "mode_mass_recall", "tv")
COLUMNS = {
    "modes_found": "modes found",
    "modes_found_student": "by the Student",
    "modes_held": "modes held",
    "mode_mass_recall": "mode-mass recall",
    "tv": "total variation",
    "log_z_error": "log Z error",
    "empirical_l1": "empirical L1",
}


def run(out: Path) -> None:
    """Train every cell that has not finished yet, one after the other, and collect."""
    for preset, dim, side, seeds in CELLS:
        folder = out / f"grid-{dim}x{side}-{preset}"
        command = [sys.executable, "-m", "didact.cli", "train", "grid", "--preset", preset]
        command += ["--dim", str(dim), "--side", str(side), "--seeds", str(seeds), "--seed", "0"]
        subprocess.run([*command, "--out", str(folder)], check=True)
        collect(out)


def finished(out: Path) -> Iterator[tuple[Path, dict[str, Any], dict[str, Any]]]:
    """Folder, configuration and verdict of each run that has ended, its command without a path of
    this machine.
    """
    for folder in sorted(out.iterdir()):
        if not (folder / "evaluation.json").exists():
            continue
        verdict = json.loads((folder / "evaluation.json").read_text())
        config = json.loads((folder / "config.json").read_text())
        if verdict["finished"]:
            place = f"runs/{out.name}/{folder.name}"
            for name in (str(folder.resolve()), str(folder)):
                config["command"] = config["command"].replace(name, place)
            yield folder, config, verdict


def keep(results: Path, name: str, cell: dict[str, Any]) -> None:
    """Write what is kept of a finished run."""
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps(cell, indent=1) + "\n")


def collect(out: Path) -> None:
    """Keep the verdicts of finished runs beside this file."""
    for folder, config, verdict in finished(out):
        summary = config["summary"]
        cell = {
            "command": config["command"],
            "preset": summary["preset"],
            "dim": summary["dim"],
            "side": summary["side"],
            "created": config["created"],
            "verdict": verdict,
            "curves": curves(folder),
        }
        keep(RESULTS, f"{summary['dim']}x{summary['side']}-{summary['preset']}", cell)


def curves(folder: Path) -> list[dict[str, Any]]:
    """The evaluations on the way: what the Student held, and what had been found by then."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = {row["step"]: row["modes_found"] for row in rows if row["kind"] == "train"}
    return [
        {
            "step": row["step"],
            "reward_calls": row["reward_calls"],
            "modes_found": found.get(row["step"]),
            "modes_held": row["modes_held"],
            "mode_mass_recall": row["mode_mass_recall"],
            "tv": row["tv"],
        }
        for row in rows
        if row["kind"] == "evaluation"
    ]


def table(*, short: bool = False) -> str:
    """Markdown tables, one a grid: mean ± standard error over seeds."""
    columns = {name: title for name, title in COLUMNS.items() if name in SHORT or not short}
    cells = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    parts = []
    for dim, side in sorted({(cell["dim"], cell["side"]) for cell in cells}):
        here = {c["preset"]: c["verdict"] for c in cells if (c["dim"], c["side"]) == (dim, side)}
        first = next(iter(here.values()))
        parts.append(
            f"**({dim}, {side})**: {first['num_modes']:,} modes with "
            f"{100 * first['mode_mass_target']:.1f} % of the mass; "
            f"{first['reward_calls'][0]:,} reward calls.\n"
        )
        parts.append("| preset | n | " + " | ".join(columns.values()) + " |")
        parts.append("|---|---|" + "---|" * len(columns))
        for preset in PRESETS:
            if preset in here:
                verdict = here[preset]
                values = " | ".join(spread(verdict.get(name)) for name in columns)
                parts.append(f"| {preset} | {len(verdict['seeds'])} | {values} |")
        floor = first["empirical_l1_floor"]
        parts.append("" if short else f"\nA perfect sampler's empirical L1: {number(floor)}.\n")
    return "\n".join(parts)


def spread(values: list[float | None] | None) -> str:
    """Mean ± standard error, or the value alone where there is one seed."""
    present = [value for value in values or [] if value is not None]
    if not present:
        return "–"
    mean = sum(present) / len(present)
    if len(present) == 1:
        return number(mean)
    variance = sum((value - mean) ** 2 for value in present) / (len(present) - 1)
    return f"{number(mean)} ± {number(math.sqrt(variance / len(present)))}"


def number(value: float) -> str:
    """Short, and never in a form that hides a small number."""
    if value == int(value):
        return f"{int(value):,}"
    if abs(value) < 1e-3:
        return f"{value:.2e}"
    return f"{value:,.1f}" if abs(value) >= 3 else f"{value:.3f}"


def main() -> None:
    """Run, collect or tabulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["run", "collect", "table"])
    parser.add_argument("--out", type=Path, default=Path("runs/grid"))
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    if options.action == "run":
        run(options.out)
    elif options.action == "collect":
        collect(options.out)
    print(table(short=options.short))


if __name__ == "__main__":
    main()
