"""The report of a run: one self-contained page made from the files of a run folder.

`write` reads a run folder (never a checkpoint; without JAX, but where molecules are drawn) and
writes `report.html` and the figures beside it. The page works without JavaScript and loads nothing
from anywhere.

- `_read`: files to arrays, tolerant of whatever is missing.
- `_numbers`: numbers to text.
- `_verdict`: what each metric means, what a perfect sampler would score, and the verdict.
- `_figures`: arrays to figures, pure functions.
- `_gallery`: which figures a run gets, each with its alternative text and caption.
- `_page`, `_metrics`, `_parts`, `_appendix`, `_html`, `style.css`: the page.
- `_vectors_*`, `_strings_*`: the same for real vectors and for strings, which have other pictures.
- `_fit_page`: the page of a fit, from what the fit hands over.
- `_bench_page`, `_bench_figures`: the page of a comparison, from what that hands over.
- `_write`: puts the page and the figures on disk.
"""

from ._bench_figures import Chart
from ._bench_page import Chapter, Comparison, Table, write_comparison
from ._fit_page import FitData, write_fit
from ._read import RunData
from ._write import save, write

__all__ = [
    "Chapter",
    "Chart",
    "Comparison",
    "FitData",
    "RunData",
    "Table",
    "save",
    "write",
    "write_comparison",
    "write_fit",
]
