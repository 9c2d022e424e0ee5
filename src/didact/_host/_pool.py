"""Calls of the user's function: in this process or in workers, with a limit of time and retries.

Objects of a call that fails are given to the function once more, one by one, so that a bad object
costs no other one its score.
"""

import concurrent.futures
import contextlib
import dataclasses
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Protocol

from . import _worker

_SECONDS_TO_START = 300.0

Objects = Any
"""A list of strings, or an array [n, ...]."""

Result = float | str
"""The score of an object, or the reason why it has none."""


class HostError(ValueError):
    """A reward function cannot be used as it is; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Calls:
    """How a function is called.

    **Arguments:** `function`; `address`: where workers find it, "module:name"; `folder`: what
    they import its module from; `workers`: how many, 0 calls the function here; `timeout`: most
    seconds that a call of a worker may take; `call_size`: most objects of a call; `fault`: what is
    wrong with a score, None for nothing; `unchanged`: whether the program of the function is still
    the one that this process began with.
    """

    function: Callable[[Any], Any]
    address: str
    folder: str | None
    workers: int
    timeout: float | None
    call_size: int
    fault: Callable[[float], str | None]
    unchanged: Callable[[], bool] = lambda: True


class Pool:
    """Calls a function on many objects, some of them at a time."""

    def __init__(self, calls: Calls):
        self.calls = calls
        self._workers = [Worker(calls) for _ in range(calls.workers)]
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._waiters: concurrent.futures.ThreadPoolExecutor | None = None

    def results(self, objects: Objects) -> Generator[tuple[int, list[Result]]]:
        """The results of parts of the objects as they come: the number of the first object of the
        part, and a result for each.

        **Errors:** `HostError` where what the function returns cannot be scores at all, or where
        a worker cannot import it.
        """
        parts = self._parts(len(objects))
        if not self._workers:
            for part in parts:
                yield part.start, self._attend(_Here(self.calls.function), objects[part])
            return
        if self._waiters is None:  # a thread for each worker: the processes do the work
            self._waiters = concurrent.futures.ThreadPoolExecutor(len(self._workers))
        cancelled = threading.Event()
        waiting = {
            self._waiters.submit(self._delegate, objects[part], cancelled): part for part in parts
        }
        try:
            for future in concurrent.futures.as_completed(waiting):
                yield waiting[future].start, future.result()
        except BaseException:
            cancelled.set()
            for future in waiting:
                future.cancel()
            # A thread may be about to start its worker anew.
            while concurrent.futures.wait(waiting, timeout=0.05).not_done:
                self._stop()
            raise

    def close(self) -> None:
        """End the workers; they start again when they are needed."""
        self._stop()
        waiters, self._waiters = self._waiters, None
        if waiters is not None:
            waiters.shutdown()

    def _stop(self) -> None:
        for worker in self._workers:
            worker.stop()

    def _parts(self, count: int) -> list[slice]:
        """Equal shares for the workers, in as many rounds as it takes."""
        share = -(-count // max(1, len(self._workers)))
        size = max(1, min(share, self.calls.call_size))
        return [slice(start, start + size) for start in range(0, count, size)]

    def _delegate(self, objects: Objects, cancelled: threading.Event) -> list[Result]:
        worker = self._idle.get()
        try:
            return self._attend(worker, objects, cancelled)
        finally:
            self._idle.put(worker)

    def _attend(
        self, caller: "_Caller", objects: Objects, cancelled: threading.Event | None = None
    ) -> list[Result]:
        results = self._once(caller, objects)
        for i, result in enumerate(results):
            if cancelled is not None and cancelled.is_set():
                break
            if isinstance(result, str):
                (results[i],) = self._once(caller, objects[i : i + 1])
        return results

    def _once(self, caller: "_Caller", objects: Objects) -> list[Result]:
        kind, answer = caller.call(objects)
        if kind == "scores":
            return [self.calls.fault(score) or score for score in answer]
        if kind == "wrong":
            raise HostError(
                f"the reward function {self.calls.address} {answer}: let it return a list of one "
                "number for each object, nan for an object that it cannot score."
            )
        return [answer] * len(objects)


class _Caller(Protocol):
    def call(self, objects: Objects) -> tuple[str, Any]:
        """What `_worker.call` says, or ("lost", why) where the function never came back."""
        ...


@dataclasses.dataclass(frozen=True)
class _Here:
    """Calls the function in this process."""

    function: Callable[[Any], Any]

    def call(self, objects: Objects) -> tuple[str, Any]:
        return _worker.call(self.function, objects)


class Worker:
    """A process that calls the function.

    It is started when it is needed, and again after it has died or a call has taken too long.
    """

    def __init__(self, calls: Calls):
        self.calls = calls
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, objects: Objects) -> tuple[str, Any]:
        """What `_worker.call` says, or ("lost", why) where the function never came back."""
        process = self._process or self._start()
        answer = self._exchange(process, _worker.pack(objects), self.calls.timeout)
        return ("lost", answer) if isinstance(answer, str) else next(iter(answer.items()))

    def stop(self) -> None:
        """End the process, with the programs that it has started."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def _start(self) -> subprocess.Popen[bytes]:
        if not self.calls.unchanged():
            raise HostError(
                f"the program of the reward function {self.calls.address} was changed while this "
                "process was using it: begin again."
            )
        process = subprocess.Popen(
            [sys.executable, "-P", str(Path(_worker.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # In a session of its own: Ctrl-C in the terminal is no affair of the worker's, and
            # what it starts can be ended with it.
            start_new_session=True,
        )
        self._process = process
        folders = [folder or str(Path.cwd()) for folder in sys.path]
        if self.calls.folder is not None and self.calls.folder not in folders:
            folders.insert(0, self.calls.folder)
        setup = {"function": self.calls.address, "path": folders}
        answer = self._exchange(process, (setup, b""), _SECONDS_TO_START)
        if isinstance(answer, str) or "failed" in answer:
            self.stop()
            raise HostError(
                f"a worker cannot import the reward function {self.calls.address} "
                f"({answer if isinstance(answer, str) else answer['failed']}): mend its module, or "
                "call it in this process with workers = 0."
            )
        return process

    def _exchange(
        self, process: subprocess.Popen[bytes], message: _worker.Message, timeout: float | None
    ) -> dict[str, Any] | str:
        """The answer to a message; or why there is none, and the worker is stopped."""
        assert process.stdin is not None
        assert process.stdout is not None
        with _Alarm(timeout, process) as alarm:
            try:
                _worker.write(process.stdin, *message)
                answer = _worker.read(process.stdout)
            except (OSError, ValueError):  # it has died, or another thread has stopped it
                answer = None
        if answer is not None and not alarm.rang:
            return answer[0]
        self.stop()
        if alarm.rang:
            return f"timed out after {timeout:g} s"
        return f"its process died ({_ending(process.wait())})"


class _Alarm:
    """Kills a process after some time, unless it is left before."""

    def __init__(self, seconds: float | None, process: subprocess.Popen[bytes]):
        self.rang = False
        self._process = process
        self._timer = None if seconds is None else threading.Timer(seconds, self._ring)

    def _ring(self) -> None:
        self.rang = True
        _kill(self._process)

    def __enter__(self) -> "_Alarm":
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()  # so that it rings now or never


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is not None:  # its number may be another's by now
        return
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:  # Windows
        process.kill()


def _end(process: subprocess.Popen[bytes]) -> None:
    _kill(process)
    process.wait()
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # what it has not read is lost
            stream.close()  # pyright: ignore[reportOptionalMemberAccess]


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
