"""Methods beside one another: suites of runs, what is kept of them, tables, pages.

A suite is tasks × methods × seeds at one budget. Each of its cells is one `didact train` in a
process of its own; what is kept of a finished cell is a small JSON file, from which tables and
pages are made.

- `_suite`: what is compared, from options or from a file.
- `_work`: trains the cells, several at a time; what has finished is left as it is.
- `_kept`: the file of a finished cell, and its reader. `_pooled`: runs of more seeds as one.
- `_metrics`, `_statistics`: which numbers, and means and paired differences of them.
- `_tables`, `_results`: tables, curves, the JSON and the page of a suite.
- `_compare`: runs side by side. `_reproduce`: the paper's tables, beside what others measured.
"""

from ._compare import compare as compare
from ._kept import Kept as Kept
from ._pooled import read_all as read_all
from ._reproduce import PARTS as PARTS
from ._reproduce import QUICK_SEEDS as QUICK_SEEDS
from ._reproduce import SEEDS as SEEDS
from ._reproduce import full as full
from ._reproduce import in_order as in_order
from ._reproduce import left_out as left_out
from ._reproduce import markdown as markdown
from ._reproduce import page as page
from ._reproduce import plan as plan
from ._reproduce import quick as quick
from ._reproduce import remarks as remarks
from ._reproduce import write_agreements as write_agreements
from ._results import comparison as comparison
from ._results import problems as problems
from ._results import write_json as write_json
from ._suite import Suite as Suite
from ._suite import read_suite as read_suite
from ._suite import train_words as train_words
from ._tables import across as across
from ._tables import differences as differences
from ._tables import groups as groups
from ._tables import table as table
from ._work import Cell as Cell
from ._work import Outcome as Outcome
from ._work import opened as opened
from ._work import work as work
