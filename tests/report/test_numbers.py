"""Numbers as text."""

import math

import numpy as np
import pytest

from didact.report._numbers import count, duration, file_size, mean_and_error, number, percent

NAN = math.nan


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (NAN, "–"),
        (math.inf, "–"),
        (0, "0"),
        (676, "676"),
        (96_000, "96,000"),
        (0.05214, "0.0521"),
        (-0.5, "−0.500"),
        (7.575669, "7.58"),
        (652.7, "653"),
        (9.83e-6, "9.83\u00a0×\u00a010⁻⁶"),
        (-9.999e-4, "−1.00\u00a0×\u00a010⁻³"),
        (1.2e8, "1.20\u00a0×\u00a010⁸"),
    ],
)
def test_number(value: float | int | None, text: str) -> None:
    assert number(value) == text


def test_counts_are_not_rounded_up_to_all() -> None:
    assert [count(c) for c in (676.0, 675.67, 1234.0)] == ["676", "675.7", "1,234"]


def test_signs() -> None:
    assert number(0.25, signed=True) == "+0.250"
    assert number(-0.25, signed=True) == "−0.250"
    assert number(0.0, signed=True) == "0"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.05, 0.06, 0.07], "0.0600 ± 0.0058"),
        ([650, 653, 656], "653.0 ± 1.7"),
        ([90_000, 110_000], "100,000 ± 10,000"),
        ([676, 676, 676], "676"),
        ([0.031], "0.0310"),
        ([7.575669], "7.576"),
        ([0.05, NAN, 0.07], "0.060 ± 0.010 (2 of 3 seeds)"),
        ([NAN, 0.07], "0.0700 (1 of 2 seeds)"),
        ([NAN, NAN], "not available"),
        ([9.8e-6, 9.9e-6, 1e-5], "(9.900 ± 0.058)\u00a0×\u00a010⁻⁶"),
        ([0.2, 0.2 + 1e-9], "0.20000 ± 5\u00a0×\u00a010⁻¹⁰"),
        ([0.3, 0.1 + 0.2], "0.300"),
    ],
)
def test_mean_and_error(values: list[float], text: str) -> None:
    assert mean_and_error(np.array(values, dtype=np.float64)) == text


def test_units() -> None:
    assert [duration(s) for s in (3.4, 214.0, 9000.0)] == ["3 s", "4 min", "2.5 h"]
    assert [file_size(s) for s in (12, 2048, 3_500_000)] == ["12 B", "2 KiB", "3.3 MiB"]
    assert [percent(s) for s in (0.035, 0.6933, 1.0)] == ["3.5 %", "69 %", "100 %"]
