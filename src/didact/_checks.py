"""Checks of arguments, with messages that name what is allowed."""

from typing import Any

import numpy as np


def require(
    name: str,
    value: Any,
    *,
    above: float | int | None = None,
    at_least: float | int | None = None,
    at_most: float | int | None = None,
) -> None:
    """`ValueError` unless a number lies within its bounds; NaN never does.

    None, and arrays and traced values, which were checked when they were plain numbers, pass.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, int | float):
        return
    if at_least is not None and at_most is not None:
        if not at_least <= value <= at_most:
            raise ValueError(f"{name} must lie in [{at_least}, {at_most}], got {value}.")
        return
    if above is not None and not value > above:
        raise ValueError(f"{name} must be > {above}, got {value}.")
    if at_least is not None and not value >= at_least:
        raise ValueError(f"{name} must be >= {at_least}, got {value}.")
    if at_most is not None and not value <= at_most:
        raise ValueError(f"{name} must be <= {at_most}, got {value}.")
