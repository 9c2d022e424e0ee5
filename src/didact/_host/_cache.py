"""Scores on disk, so that no object is scored twice."""

import contextlib
import logging
import os
import sqlite3
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from ._pool import HostError

FORMAT_VERSION = 1
_SECONDS_FOR_OTHERS = 60.0
# What a file says that is not as it was written; other errors speak of the disk or of access.
_DAMAGE = (
    *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR),
    *(sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE),
)

Key = str | bytes
_T = TypeVar("_T")
_log = logging.getLogger("didact")


class Cache:
    """Scores by the keys of objects, in an SQLite file that several processes may use at once.

    Each row has a checksum: SQLite itself does not notice a changed bit. A file that is damaged
    is reported, renamed and begun anew.

    **Arguments:** `file`: None keeps the scores in memory; `about`: what the file says of itself.

    **Errors:** `HostError` from every method where the file cannot be read or written.
    """

    def __init__(self, file: Path | None, about: str = ""):
        self.file, self.about = file, about
        self._connection: sqlite3.Connection | None = None

    def get(self, keys: Iterable[Key]) -> dict[Key, float]:
        """The scores that are known."""
        return self._do(lambda connection: _select(connection, keys))

    def put(self, scores: Mapping[Key, float]) -> dict[Key, float]:
        """Keep scores; one that another process has written meanwhile stands.

        **Returns:** the scores that are kept, one for each key.
        """
        # SQLite knows no -0.0.
        rows = [(key, score + 0.0, _checksum(key, score + 0.0)) for key, score in scores.items()]

        def insert(connection: sqlite3.Connection) -> dict[Key, float]:
            with connection:
                connection.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?, ?)", rows)
            kept = _select(connection, scores)
            if len(kept) < len(scores):
                raise _Damaged("a score that was written is not there")
            return kept

        return self._do(insert)

    def close(self) -> None:
        """Close the file; it is opened again when it is needed. Scores in memory are kept."""
        if self.file is not None:
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _do(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            try:
                return work(self._open())
            except (sqlite3.Error, UnicodeDecodeError) as error:
                if self.file is None or not _is_damage(error, self.file):
                    raise
                self._set_aside(self.file, error)
                return work(self._open())
        except (OSError, sqlite3.Error) as error:
            raise HostError(
                f"the cache of scores {self.file} cannot be used ({error}): give another folder, "
                "or none."
            ) from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            if self.file is not None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            # One thread at a time uses it, though not always the same: a compiled program calls
            # the host from a thread of its own.
            connection = sqlite3.connect(
                self.file or ":memory:", timeout=_SECONDS_FOR_OTHERS, check_same_thread=False
            )
            connection.text_factory = bytes  # what is damaged may be no text
            try:
                _prepare(connection, self.about)
            except BaseException:
                connection.close()
                raise
            self._connection = connection  # only now: the next call would not prepare it
        return self._connection

    def _set_aside(self, file: Path, error: Exception) -> None:
        self.close()
        number = 1
        while (aside := file.with_name(f"{file.name}.damaged-{number}")).exists():
            number += 1
        for ending in ("", "-wal", "-shm"):  # SQLite's own names of the files that belong to it
            with contextlib.suppress(FileNotFoundError):  # another process was quicker
                file.with_name(file.name + ending).rename(aside.with_name(aside.name + ending))
        _log.warning(
            "The cache of scores %s was damaged (%s) and is now called %s: its objects are scored "
            "anew.",
            *(file, error, aside.name),
        )


_TABLES = {
    "scores": ("CREATE TABLE scores (key PRIMARY KEY, score REAL, checksum INTEGER) WITHOUT ROWID"),
    "about": "CREATE TABLE about (text TEXT)",
}


def _prepare(connection: sqlite3.Connection, about: str) -> None:
    """Make the tables of a new file; check those of an old one."""
    # A file may hold programs too, views and triggers: none may use what can do harm.
    connection.execute("PRAGMA trusted_schema = OFF")
    # Changes are appended beside the file, so that readers and a writer do not wait for each
    # other; where the file system does not allow it, they do.
    _patiently(lambda: connection.execute("PRAGMA journal_mode = WAL").fetchone())
    connection.execute("PRAGMA synchronous = NORMAL")
    with connection:
        _patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for table in _TABLES.values():
                connection.execute(table)
            connection.execute("INSERT INTO about VALUES (?)", (about,))
            connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        elif version != FORMAT_VERSION:
            raise _Damaged(f"its format version is {version}")
        else:
            _check_tables(connection)


def _check_tables(connection: sqlite3.Connection) -> None:
    """Only the tables may be there: a view in place of one, or a trigger, would be a program."""
    found = connection.execute("SELECT name, sql FROM sqlite_master LIMIT 3").fetchall()
    if {*found} != {(name.encode(), table.encode()) for name, table in _TABLES.items()}:
        raise _Damaged("it has other tables than those of scores")


class _Damaged(sqlite3.DatabaseError):
    """A file holds what was never written to it."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def _patiently(work: Callable[[], object]) -> None:
    """Wait for other processes also where SQLite does not: while they change the journal."""
    until = time.monotonic() + _SECONDS_FOR_OTHERS
    while True:
        try:
            work()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


def _is_damage(error: Exception, file: Path) -> bool:
    if isinstance(error, UnicodeDecodeError):  # of a message of SQLite's about what it has found
        return True
    # The lower byte is the kind; errors of Python's own have no code.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    if code == sqlite3.SQLITE_READONLY:  # the file's own word for it, unless it is true
        return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)
    return code in _DAMAGE


def _select(connection: sqlite3.Connection, keys: Iterable[Key]) -> dict[Key, float]:
    found: dict[Key, float] = {}
    for key in keys:
        row = connection.execute(
            "SELECT score, checksum FROM scores WHERE key = ?", (key,)
        ).fetchone()
        if row is not None:
            score, checksum = row
            if not isinstance(score, float) or checksum != _checksum(key, score):
                raise _Damaged("a score does not agree with its checksum")
            found[key] = score
    return found


def _checksum(key: Key, score: float) -> int:
    name = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    return zlib.crc32(name + struct.pack("<d", score))
