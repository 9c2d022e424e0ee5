"""Put a report on disk: `report.html` and the files of its figures."""

from pathlib import Path

from .._files import write_whole
from . import _gallery, _strings_gallery, _vectors_gallery
from ._page import page
from ._pictures import Frame, Gallery
from ._read import RunData, read

MAX_BYTES = 10_000_000


def write(run_dir: Path) -> Path:
    """Write `run_dir/report.html`, and the figures into `run_dir/figures/`.

    The page is at most 10 MB, loads nothing and runs no script. It is written last and at once,
    so that a report which exists is complete; an older one is replaced.

    Args:
        run_dir: a run folder; `config.json` must be there, everything else may be missing.

    Returns:
        The path of the page.

    Raises:
        ValueError: `config.json` is missing or unreadable; the message says what to do.
    """
    run = read(Path(run_dir))
    of_kind = _strings_gallery if run.over_strings else _gallery
    pictures = (_vectors_gallery if run.over_vectors else of_kind).gallery(run)
    for picture in pictures:
        save(run.path / "figures" / f"{picture.name}.{picture.kind}", picture.image)
    path = run.path / "report.html"
    save(path, _fitting(run, pictures))
    return path


def _fitting(run: RunData, pictures: Gallery) -> bytes:
    """The page, with fewer frames of the training if it would be too large."""
    content = b""
    for every in (1, 2, 4, 12, 0):
        frames = _thin(pictures.frames, every)
        content = page(run, pictures, frames).encode("utf-8", errors="replace")
        if len(content) <= MAX_BYTES:
            break
    return content


def _thin(frames: tuple[Frame, ...], every: int) -> tuple[Frame, ...]:
    """Each `every`-th frame, counted from the last; none for 0."""
    return frames[::-1][::every][::-1] if every else ()


def save(path: Path, content: bytes) -> None:
    """Put a file in place, whole, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as file:
        _ = file.write(content)
