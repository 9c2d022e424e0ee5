"""Numbers as a reader wants them: few digits, thousands separated, errors beside means."""

import math

import numpy as np

from ._read import Floats

MISSING = "–"
_MINUS, _SPACE = "−", "\u00a0"  # the space does not break
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def number(value: float | int | None, *, digits: int = 3, signed: bool = False) -> str:
    """Write `value` with `digits` significant digits; whole numbers in full.

    Numbers below 10⁻³ or above 10⁷ are written as powers of ten, missing ones as a dash.
    """
    if value is None or not math.isfinite(value):
        return MISSING
    value, sign = float(value), "+" if signed and value > 0 else ""
    if value == int(value) and abs(value) < 1e7:
        return sign + _plain(value, 0)
    if not 1e-3 <= abs(value) < 1e7:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return sign + mantissa.replace("-", _MINUS) + _power(int(exponent))
    return sign + _plain(value, max(0, digits - 1 - math.floor(math.log10(abs(value)))))


def count(value: float) -> str:
    """Write a mean of counts: whole if it is, else with one decimal, so that 675.7 is not 676."""
    return _plain(value, 0 if value == int(value) else 1)


def mean_and_error(values: Floats, *, signed: bool = False) -> str:
    """Write mean ± standard error over the seeds of `values` [seeds], NaN left out.

    The error has two significant digits and sets the decimals of the mean; beside a far larger
    mean it is written on its own. One seed gives the value alone.
    """
    known = values[np.isfinite(values)]
    if known.size == 0:
        return "not available"
    mean, error = float(known.mean()), standard_error(values)
    left_out = "" if known.size == values.size else f" ({known.size} of {values.size} seeds)"
    # Equal seeds, but for the order in which each was summed, have no error to tell.
    if error <= 1e-14 * abs(mean) or not math.isfinite(error):
        return one(mean, signed=signed) + left_out
    if error < 1e-5 * abs(mean):
        return f"{number(mean, digits=5, signed=signed)} ± {number(error, digits=1)}{left_out}"
    sign = "+" if signed and mean > 0 else ""
    largest = max(abs(mean), error)
    exponent = 0 if 1e-3 <= largest < 1e7 else math.floor(math.log10(largest))
    mean, error = mean / 10**exponent, error / 10**exponent
    decimals = max(0, 1 - math.floor(math.log10(error)))
    pair = f"{sign}{_plain(mean, decimals)} ± {_plain(error, decimals)}"
    return (f"({pair}){_power(exponent)}" if exponent else pair) + left_out


def one(value: float, *, signed: bool = False) -> str:
    """Write the value of one seed: a digit more from 1 on, where log Z and bounds lie."""
    return number(value, digits=4 if abs(value) >= 1 else 3, signed=signed)


def value_and_error(value: float, error: float, *, signed: bool = False) -> str:
    """Write the value of one seed and, where it is finite, its standard error."""
    known = math.isfinite(value) and math.isfinite(error)
    return one(value, signed=signed) + (f" ± {number(error, digits=2)}" if known else "")


def standard_error(values: Floats) -> float:
    """Standard error of the mean of the finite `values`; NaN for fewer than two."""
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1) / math.sqrt(known.size)) if known.size > 1 else math.nan


def mean(values: Floats) -> float | None:
    """Mean of the finite `values`, None if there are none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None


def percent(share: float) -> str:
    """Write a share in percent, one decimal below 10 %."""
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Write a duration in the largest unit that keeps it readable."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def file_size(size: int) -> str:
    """Write a size in bytes with a binary unit."""
    if size < 1024:
        return f"{size} B"
    return f"{size / 1024:.0f} KiB" if size < 1024**2 else f"{size / 1024**2:.1f} MiB"


def _plain(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}".replace("-", _MINUS)


def _power(exponent: int) -> str:
    return f"{_SPACE}×{_SPACE}10{str(exponent).translate(_SUPERSCRIPTS)}"
