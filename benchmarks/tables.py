"""Put the tables of the kept results into the pages that show them.

    didact reproduce grid --out runs/reproduce-grid        # hours; finished cells are kept
    cp runs/reproduce-grid/results/*.json benchmarks/results/grid/
    python benchmarks/tables.py

A table stands between a line `<!-- BEGIN TABLES: PART [short] -->` and the next `<!-- END TABLES
-->`, where PART is grid, diffusion or biochem. The same tables, and pages with curves, are those of
`didact reproduce PART --from benchmarks/results`.
"""

import re
from pathlib import Path

from didact import bench

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/results.md")
_BLOCK = re.compile(
    r"(?P<begin><!-- BEGIN TABLES: (?P<part>\w+)(?P<short> short)? -->\n)"
    r".*?(?P<end>\n<!-- END TABLES -->)",
    re.DOTALL,
)


def filled(page: str) -> str:
    """A page with the tables of what is kept now."""
    cells = bench.read_all(ROOT / "benchmarks" / "results")

    def table(block: re.Match[str]) -> str:
        part = block["part"]
        here = bench.in_order(cells, [part])
        short = block["short"] is not None
        text = bench.markdown(here, [part], short=short, alone=short)
        return f"{block['begin']}\n{text}\n{block['end']}"

    return _BLOCK.sub(table, page)


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
