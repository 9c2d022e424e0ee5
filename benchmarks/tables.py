"""Put the tables of the kept results into the pages that show them.

    didact reproduce grid --out runs/reproduce-grid        # hours; finished cells are kept
    cp runs/reproduce-grid/results/*.json benchmarks/results/grid/
    python benchmarks/tables.py

A table stands between a line `<!-- BEGIN TABLES: PART [overview] -->` and the next `<!-- END TABLES
-->`, where PART is grid, diffusion or biochem. An overview has a table of each of a few metrics,
with a row of each of a few methods and a column of each task; the others, and pages with curves,
are those of `didact reproduce PART --from benchmarks/results`.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from didact import bench

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/results.md")
METRICS = ("modes_found", "mode_mass_recall", "tv")
METHODS = (
    *("tb", "tb-per", "tb-prt", "tb-prt-late"),
    *("teacher", "teacher-per", "teacher-floor", "didact", "metropolis"),
)
"""What an overview shows."""
_BLOCK = re.compile(
    r"(?P<begin><!-- BEGIN TABLES: (?P<part>\w+)(?P<overview> overview)? -->\n)"
    r".*?(?P<end>\n<!-- END TABLES -->)",
    re.DOTALL,
)


def filled(page: str) -> str:
    """A page with the tables of what is kept now."""
    cells = bench.read_all(ROOT / "benchmarks" / "results")

    def table(block: re.Match[str]) -> str:
        part = block["part"]
        here = bench.in_order(cells, [part])
        text = bench.markdown(here, [part]) if block["overview"] is None else overview(here)
        return f"{block['begin']}\n{text}\n{block['end']}"

    return _BLOCK.sub(table, page)


def overview(cells: Sequence[bench.Kept]) -> str:
    """The metrics of an overview, one table each."""
    groups = bench.groups(cells)
    return "\n\n".join(bench.across(groups, key, METHODS).markdown() for key in METRICS)


def main() -> None:
    """Fill the pages."""
    for name in PAGES:
        path = ROOT / name
        before = path.read_text("utf-8")
        after = filled(before)
        if after != before:
            path.write_text(after, "utf-8")
        print(f"{name}: {len(_BLOCK.findall(after))} tables{'' if after == before else ', new'}")


if __name__ == "__main__":
    main()
