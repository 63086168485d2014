"""Extractive question answering: `from qa import Answerer`."""

from typing import Any

__all__ = ["Answerer"]


def __getattr__(name: str) -> Any:
    if name == "Answerer":  # only when it is asked for: it loads torch, which the metric and the reader can do without
        from qa.answerer import Answerer

        return Answerer
    raise AttributeError(f"module 'qa' has no attribute {name!r}")
