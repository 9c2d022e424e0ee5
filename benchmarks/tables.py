"""Put the tables of the kept results into the pages that show them.

    didact reproduce grid --out runs/reproduce-grid        # hours; finished cells are kept
    cp runs/reproduce-grid/results/*.json benchmarks/results/grid/
    python benchmarks/tables.py

A table stands between a line `<!-- BEGIN TABLES: WHAT -->` and the next `<!-- END TABLES -->`. WHAT
is "grid", "diffusion" or "biochem": the tables, which with pages of curves are also those of
`didact reproduce PART --from benchmarks/results`; "overview": of each of a few metrics one, with a
row of each of a few methods and a column of each grid; or "default": the methods less the default,
on all tasks where it has several seeds.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from didact import bench

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/results.md")
DEFAULT = "didact"
METRICS = ("modes_found", "mode_mass_recall", "tv")
_DISCRETE, _VECTORS = ("grid", "biochem"), ("diffusion",)
COMPARED = (("mode_mass_recall", _DISCRETE), ("tv", _DISCRETE), ("eubo", _VECTORS))
METHODS = (
    *("tb", "tb-per", "tb-prt", "tb-prt-late"),
    *("teacher", "teacher-per", "teacher-floor", DEFAULT, "metropolis"),
)
"""What an overview shows."""
_BLOCK = re.compile(
    r"(?P<begin><!-- BEGIN TABLES: (?P<what>\w+) -->\n).*?(?P<end>(?<=\n)<!-- END TABLES -->)",
    re.DOTALL,
)


def filled(page: str) -> str:
    """A page with the tables of what is kept now."""
    cells = bench.read_all(ROOT / "benchmarks" / "results")
    make = {"overview": overview, "default": default}

    def table(block: re.Match[str]) -> str:
        what = block["what"]
        if what in make:
            text = make[what](cells)
        else:
            text = bench.markdown(bench.in_order(cells, [what]), [what])
        return f"{block['begin']}\n{text}\n\n{block['end']}"

    return _BLOCK.sub(table, page)


def overview(cells: Sequence[bench.Kept]) -> str:
    """The metrics of the grids, one table each."""
    groups = bench.groups(bench.in_order(cells, ["grid"]))
    return "\n\n".join(bench.across(groups, key, METHODS).markdown() for key in METRICS)


def default(cells: Sequence[bench.Kept]) -> str:
    """What the others are less than the default, or more, on each task where it has several seeds:
    metrics of what is held where objects are discrete, the EUBO where they are vectors.
    """
    several = {kept.task for kept in cells if kept.method == DEFAULT and len(kept.seeds) > 1}

    def table(key: str, parts: Sequence[str]) -> str:
        groups = [
            group
            for group in bench.groups(bench.in_order(cells, parts))
            if group.task in several and len(group.cells) > 1
        ]
        there = dict.fromkeys(kept.method for group in groups for kept in group.cells)
        methods = [method for method in there if method != DEFAULT]
        return bench.across(groups, key, methods, less=DEFAULT).markdown()

    return "\n\n".join(table(key, parts) for key, parts in COMPARED)


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
