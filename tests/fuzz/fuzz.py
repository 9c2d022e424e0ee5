"""Give every reader of didact files that chance or malice has changed, and see that all it does is
read them or refuse them.

    python tests/fuzz/fuzz.py [--number 10000] [--seed 0] [--only WORD]

Each file is made from a frozen one (`tests/fixtures`) by changes that follow from the seed and its
number alone (`_mutations.py`). A reader passes if it returns, or raises a `ValueError` of one short
message that names the file, within ten seconds; warnings count as errors. The memory of the process
may grow by at most 1 GiB: its address space is limited to that, and the peak that it really used is
shown at the end. A failure is shown with its seed and number, and the changed file is kept.
"""

# ruff: noqa: T201
import argparse
import collections
import dataclasses
import faulthandler
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

import jax

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fuzz._readers import READERS, Reader, copy, original, read, read_changed

SECONDS = 10
MEMORY = 2**30


class Hang(BaseException):
    """A reader has taken too long."""


@dataclasses.dataclass
class Tally:
    """What came of the files of one reader."""

    read: int = 0
    refused: int = 0
    failed: int = 0
    seconds: float = 0.0
    slowest: float = 0.0


def numbered(number: int, only: str) -> Iterator[tuple[Reader, int]]:
    """The readers in turn, each with a number of its own."""
    readers = [reader for reader in READERS if only in reader.name]
    for i in range(number):
        yield readers[i % len(readers)], i // len(readers)


def run(number: int, seed: int, only: str) -> dict[str, Tally]:
    """Let all readers in turn read so many files."""
    tallies: dict[str, Tally] = collections.defaultdict(Tally)
    with tempfile.TemporaryDirectory() as scratch:
        for i, (reader, which) in enumerate(numbered(number, only)):
            tally, folder = tallies[reader.name], Path(scratch) / f"{i}"
            began = time.monotonic()
            _ = signal.setitimer(signal.ITIMER_REAL, SECONDS)
            try:
                outcome, _ = read_changed(reader, seed, which, folder)
                setattr(tally, outcome, getattr(tally, outcome) + 1)
            except (Exception, Hang) as error:  # noqa: BLE001
                _ = signal.setitimer(signal.ITIMER_REAL, 0)
                tally.failed += 1
                _keep(reader, seed, which, folder, error)
            _ = signal.setitimer(signal.ITIMER_REAL, 0)
            spent = time.monotonic() - began
            tally.seconds, tally.slowest = tally.seconds + spent, max(tally.slowest, spent)
            shutil.rmtree(folder)
            if i % 200 == 199:
                jax.clear_caches()  # of programs for files that are gone
                print(f"{i + 1:,} files, {_memory():.0f} MiB", file=sys.stderr, flush=True)
    return dict(tallies)


def _keep(reader: Reader, seed: int, number: int, folder: Path, error: BaseException) -> None:
    kept = Path(tempfile.mkdtemp(prefix="didact-fuzz-")) / Path(reader.file).name
    shutil.copy(folder / reader.file, kept)
    print(f"FAILED {reader.name}, seed {seed}, number {number}: {kept}")
    print("".join(traceback.format_exception(error)[-12:]), flush=True)


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _hang(number: int, frame: FrameType | None) -> None:
    raise Hang(f"more than {SECONDS} seconds")


def main() -> int:
    """Run, show a table, and say by the exit code whether all passed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--number", type=int, default=10_000, help="of files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="readers whose name holds this word")
    options = parser.parse_args()
    logging.getLogger("didact").setLevel(logging.ERROR)
    warnings.simplefilter("error")
    faulthandler.dump_traceback_later(24 * 3600, exit=True)
    _ = signal.signal(signal.SIGALRM, _hang)
    # What the untouched files need is no part of what may be used for the others.
    with tempfile.TemporaryDirectory() as scratch:
        for i, reader in enumerate(READERS):
            place = copy(reader, Path(scratch) / f"{i}")
            _ = place.write_bytes(original(reader))
            assert read(reader, Path(scratch) / f"{i}")[0] == "read", reader.name
    before = _memory()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    tallies = run(options.number, options.seed, options.only)
    print(f"{'reader':40} {'read':>6} {'refused':>8} {'failed':>7} {'mean s':>8} {'slowest':>8}")
    for name, tally in tallies.items():
        count = tally.read + tally.refused + tally.failed
        print(
            f"{name:40} {tally.read:6} {tally.refused:8} {tally.failed:7} "
            f"{tally.seconds / count:8.3f} {tally.slowest:8.2f}"
        )
    failed = sum(tally.failed for tally in tallies.values())
    print(
        f"{options.number:,} files, {failed} failures; memory {before:.0f} -> {_memory():.0f} MiB"
    )
    return int(failed > 0 or _memory() - before > MEMORY / 2**20)


if __name__ == "__main__":
    sys.exit(main())
