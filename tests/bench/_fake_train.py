"""Stands in for `didact train`: writes a finished run folder at once, or does what its preset says.

    python _fake_train.py train grid --preset NAME --seeds N ... --out=FOLDER

Preset "tb-per" fails; "teacher" goes on until it is told to stop, unless the folder's grandparent
holds a file `go`. Each call adds its preset to the file `calls` there, and its cores to `cores`.
"""

import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path

words = sys.argv[1:]
out = Path(words[-1].removeprefix("--out="))
options = dict(zip(words[2:-1:2], words[3:-1:2], strict=True))
preset, seeds = options["--preset"], [*range(int(options["--seeds"]))]
steps = int(options["--steps"])
base = out.parents[1]

with (base / "calls").open("a") as file:
    file.write(f"{preset}\n")
if hasattr(os, "sched_getaffinity"):
    with (base / "cores").open("a") as file:
        file.write(f"{sorted(os.sched_getaffinity(0))}\n")
_ = sys.stderr.write("working ...\n")
if preset == "tb-per":
    _ = sys.stderr.write("didact: the disk is full: make room.\n")
    sys.exit(2)
if preset == "teacher" and not (base / "go").exists():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    (base / "ready").write_text("")
    time.sleep(60)

out.mkdir(parents=True, exist_ok=True)
summary = {
    "task": "grid",
    "preset": preset,
    "dim": 2,
    "side": 8,
    "options": {"preset": preset, "out": str(out)},
}
config = {
    "format_version": 1,
    "created": "2026-01-01T00:00:00+00:00",
    "command": shlex.join(["didact", *words[:-1], "--out", str(out)]),
    "seeds": seeds,
    "summary": summary,
    "experiment": {"batch_size": 16, "steps": steps, "replay": preset if "-" in preset else None},
}
found = [len(preset) + seed for seed in seeds]
shift = 0.1 * len(preset)
rows = [{"kind": "header", "format_version": 1}]
for step in (0, steps // 2, steps):
    if step:
        rows.append(
            {
                "kind": "train",
                "step": step,
                "reward_calls": 16 * step,
                "modes_found": found,
                "time": {"seconds": 1.5},
            }
        )
    tv = [1 / (1 + step + seed) for seed in seeds]
    rows.append({"kind": "evaluation", "step": step, "reward_calls": 16 * step, "tv": tv})
verdict = {
    "format_version": 1,
    "exact": True,
    "reason": None,
    "seeds": seeds,
    "step": steps,
    "steps": steps,
    "finished": True,
    "num_modes": 40,
    "log_z_true": 2.0,
    "tv": [0.5 - shift * (1 + 0.1 * seed) / 10 for seed in seeds],
    "modes_found": found,
    "modes_held": [None for _ in seeds],
    "reward_calls": [16 * steps for _ in seeds],
    "training_seconds": 3.0,
}
(out / "config.json").write_text(json.dumps(config))
(out / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
(out / "evaluation.json").write_text(json.dumps(verdict))
(out / "report.html").write_text("")
