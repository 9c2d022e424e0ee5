"""The worker's side of `compare.py`. Needs only Python: it runs in the environment of each library.

A worker reads one JSON object a line. The first, {"task": {...}}, says what to train; each later
one, {"steps": n}, asks for n more training steps of it. The answers, on stdout, are
{"versions": {...}} and {"seconds": s, "transitions": mean number in a step}.
"""

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

Train = Callable[[int], float]
"""Makes so many steps; returns the mean number of transitions in one of them."""


def serve(build: Callable[[dict[str, Any]], Train], packages: Iterable[str]) -> None:
    """Answer requests until stdin ends."""
    # What libraries print goes to stderr: stdout is for answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    train = None
    for line in sys.stdin:
        request = json.loads(line)
        if train is None:
            train = build(request["task"])
            answer = {"versions": {name: importlib.metadata.version(name) for name in packages}}
        else:
            began = time.perf_counter()
            transitions = train(request["steps"])
            answer = {"seconds": time.perf_counter() - began, "transitions": transitions}
        print(json.dumps(answer), file=answers, flush=True)
