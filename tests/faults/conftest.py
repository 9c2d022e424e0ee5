"""Fixtures of the tests of faults."""

from .._runs import without_report

__all__ = ["without_report"]
