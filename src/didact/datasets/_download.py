"""Files from the places where others publish them."""

import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from ._store import DataError

_TIMEOUT = (10.0, 60.0)  # seconds until connected, and between two pieces
_PIECE = 2**12  # of a piece that is cut off nothing is kept


@dataclasses.dataclass(frozen=True)
class Source:
    """A published file. Its hash says what it holds, so any of its addresses will do."""

    name: str
    size: int
    """In bytes."""
    sha256: str
    addresses: tuple[str, ...]
    needed: bool = True
    """False if there is another way to what it says."""


def take(source: Source, folder: Path) -> bytes:
    """The file from a folder that the user has.

    **Errors:** `DataError` if it is not there, or is another file.
    """
    path = folder / source.name
    try:
        with path.open("rb") as file:
            data = file.read(source.size + 1)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); it is published at {source.addresses[0]}"
        ) from error
    if hashlib.sha256(data).hexdigest() != source.sha256:
        raise DataError(
            f"{path} is not the file that is meant, whose SHA-256 is {source.sha256}: take it from "
            f"{source.addresses[0]}"
        )
    return data


def download(source: Source, folder: Path) -> bytes:
    """The file from the first of its addresses that gives it, kept in a folder for the next time.

    What a cut connection has brought stays there as well, in NAME.partial: the next attempt asks
    for the rest only.

    **Errors:** `DataError` naming what every address answered.
    """
    import pooch

    failures = []
    addresses = source.addresses
    if (folder / f"{source.name}.partial").exists():
        addresses += addresses[:1]  # if what was there is spoilt, once more from the start
    for address in addresses:
        try:
            path = pooch.retrieve(
                address,
                known_hash=f"sha256:{source.sha256}",
                fname=source.name,
                path=folder,
                downloader=_resuming(source),
            )
            return Path(path).read_bytes()
        except (OSError, ValueError) as error:  # those of requests are OSErrors
            failures.append(f"{urlsplit(address).netloc}: {_reason(error)}")
    raise DataError(
        f"{source.name} could not be downloaded ({'; '.join(failures)}): try again later, or give "
        "the folder where it is with --from FOLDER."
    )


def _reason(error: Exception) -> str:
    if isinstance(error, ValueError) and "SHA256" in str(error):
        return "another file than expected"
    return " ".join(str(error).split())[:200] or type(error).__name__


def _resuming(source: Source) -> Callable[..., None]:
    """A downloader for Pooch that goes on where the last one was cut off."""

    def downloader(address: str, output: str, _: object) -> None:
        # Beside the output, which Pooch gives a new name every time and deletes.
        partial = Path(output).parent / f"{source.name}.partial"
        before = -1
        # As long as every connection brings something, another one is worth it.
        while before < _size(partial) < source.size:
            before = _size(partial)
            _get_rest(address, partial, source.size)
        if _size(partial) < source.size:
            raise ConnectionError(f"cut off after {before:,} of {source.size:,} bytes")
        shutil.move(partial, output)

    return downloader


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _get_rest(address: str, partial: Path, size: int) -> None:
    """Append what is missing of a file, or as much of it as comes."""
    import requests

    have = _size(partial)
    headers = {"Accept-Encoding": "identity"}  # offsets count the bytes of the file itself
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with requests.get(address, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            response.raise_for_status()
            resumed = response.status_code == 206 and response.headers.get(
                "Content-Range", ""
            ).startswith(f"bytes {have}-")
            with partial.open("ab" if resumed else "wb") as file:
                for piece in response.iter_content(_PIECE):
                    # Not more than a byte too much: the hash will tell.
                    file.write(piece[: size + 1 - file.tell()])
                    if file.tell() > size:
                        return
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError):
        if _size(partial) == have:
            raise
