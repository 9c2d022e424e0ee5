"""The command line: `didact train TASK`, `sample`, `evaluate`, `report`, `list`, `bench`, ...

JSON and tables go to stdout, everything else to stderr. Exit codes: 0 done; 1 done but for
cells of a suite that failed; 2 bad input or a run that cannot go on, with one line that says what
to do; 130 and 143 stopped by Ctrl-C or SIGTERM, with everything written.

- `_main`: the entry point, and which command is meant.
- `_tasks`: what can be trained, the options of each task, and the experiment that they make.
- `_train`: the command that trains; `_commands`: the others.
- `_bench`, `_compare`, `_reproduce`: the commands that set runs beside one another.
- `_parse`: words to options and back.
- `_table`: the verdict as a table.
- `_process`: errors, signals, warnings, memory, the cache of compiled programs.
"""

from ._main import main as main

__all__ = ["main"]
