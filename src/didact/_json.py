"""JSON from anywhere, read without trust.

Python's reader takes as many values as a text holds, each many times as large as its letters,
nested as deeply as its stack allows, and numbers that JSON does not have. `parse` refuses what no
file of didact's holds: texts of more than `MAX_BYTES` or `MAX_VALUES`, before it takes memory for
them, nesting beyond `MAX_DEPTH`, and numbers that are not finite. Whole numbers may be as long as
Python allows, 4,300 digits.
"""

import json
import math
from typing import Any, NoReturn

MAX_BYTES = 2**23
"""Of a text, or of a line of a record."""
MAX_VALUES = 2**20
MAX_DEPTH = 64
MAX_RECORD_BYTES = 2**26
"""Of all lines of a record."""
MAX_RECORD_VALUES = 2**22


def parse(text: bytes) -> Any:
    """The value of a text in UTF-8.

    **Errors:** `ValueError` for what is no JSON, or beyond the bounds above.
    """
    if len(text) > MAX_BYTES or most_values(text) > MAX_VALUES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes or {MAX_VALUES:,} values")
    try:
        value = json.loads(text.decode(), parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        if "int_max_str_digits" in str(error):  # Python's advice is not for a stranger's file
            raise ValueError("it holds a number of too many digits") from error
        raise
    _check(value)
    return value


def most_values(text: bytes) -> int:
    """A bound of the number of a text's values: each follows one of these, or begins the text."""
    return 1 + text.count(b",") + text.count(b"[") + text.count(b"{")


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no number")


def _check(value: Any) -> None:
    """`ValueError` for numbers that overflow, and for what is nested too deeply."""
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, float) and not math.isfinite(item):
                raise ValueError("it holds a number that is too large")
        if not below:
            return
        level = below
    raise ValueError("it is nested too deeply")
