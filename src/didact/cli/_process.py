"""What surrounds a command: errors in one line, signals, warnings, memory, compiled programs."""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_MAX_CACHE_BYTES = 2**30


class BadInput(Exception):
    """Something the user asked for cannot be done; the message is the whole answer."""


class Stop:
    """Which exit code a signal has asked for; 0 while none has come."""

    code = 0


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop; a second one acts at once."""
    stop = Stop()

    def wish(number: int, frame: object) -> None:
        stop.code = 128 + number
        signal.signal(number, signal.SIG_DFL)
        note("Stopping after this chunk (again to stop at once) ...")

    with _handlers({signal.SIGINT: wish, signal.SIGTERM: wish}):
        yield stop


@contextlib.contextmanager
def termination() -> Iterator[None]:
    """SIGTERM ends a command in good order: what is half written is removed."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    with _handlers({signal.SIGTERM: end}):
        yield


@contextlib.contextmanager
def _handlers(handlers: dict[signal.Signals, Any]) -> Iterator[None]:
    """Handle signals for a while; outside the main thread, where Python cannot, leave them."""
    if threading.current_thread() is not threading.main_thread():
        handlers = {}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def warnings() -> Iterator[None]:
    """Warnings of the package, each as a line on stderr."""
    log = logging.getLogger("didact")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("didact: %(message)s"))
    log.addHandler(handler)
    propagate, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagate


@contextlib.contextmanager
def one_line(*kinds: type[Exception]) -> Iterator[None]:
    """Errors that speak of the user's input become one line."""
    try:
        yield
    except kinds as error:
        raise BadInput(" ".join(str(error).split())) from error


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Want of memory becomes one line that says what to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # JAX's own is a RuntimeError
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            raise BadInput(
                "out of memory: lower --batch-size, --seeds or the size of the task."
            ) from error
        raise


@contextlib.contextmanager
def extras() -> Iterator[None]:
    """A package that is missing becomes the line that says how to get it."""
    try:
        yield
    except ImportError as error:
        if "pip install 'didact[" not in str(error):
            raise
        raise BadInput(" ".join(str(error).split())) from error


def run_error() -> type[Exception]:
    """`didact.RunError`, without the wait for JAX where nothing needs it."""
    from ..run import RunError

    return RunError


def use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder, so that the next start is quick.

    JAX_COMPILATION_CACHE_DIR, which JAX reads itself, names another folder.
    """
    import jax
    import pooch

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = Path(pooch.os_cache("didact")) / "jax"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        _shrink(folder, _MAX_CACHE_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _shrink(folder: Path, most: int) -> None:
    """Delete the oldest files of a folder that holds more than `most` bytes, down to half."""
    # Another process may do the same: what is gone already is no error.
    with contextlib.suppress(OSError):
        files = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
        total = sum(file.stat().st_size for file in files)
        if total <= most:
            return
        while files and total > most // 2:
            oldest = files.pop()
            total -= oldest.stat().st_size
            oldest.unlink()


def show(text: str) -> None:
    """Write a line to stdout: what was asked for."""
    print(text)  # noqa: T201


def note(text: str) -> None:
    """Write a line to stderr: everything else."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201
