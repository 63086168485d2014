"""Command line flags: argparse, whose complaints take one line like all others, and name the flag that was meant."""

import argparse
import difflib
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from minitransformer.system.errors import UserError


class FlagParser(argparse.ArgumentParser):
    """An ArgumentParser that raises UserError where argparse prints a page of usage. Flags cannot be abbreviated."""

    def __init__(self, **settings: Any) -> None:
        layout = argparse.RawDescriptionHelpFormatter  # a description's lines stay as they are
        super().__init__(allow_abbrev=False, formatter_class=layout, **settings)
        self._negative_number_matcher = re.compile(r"-\.?\d")  # argparse itself takes -1e-3 for a flag

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        flags, unknown = self.parse_known_args(args, namespace)
        if unknown:
            name = unknown[0].split("=")[0]
            self.error(f"unknown flag {name!r}{nearest(name, self._option_string_actions)}")
        return flags

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists the flags")


def whole_number(at_least: int) -> Callable[[str], int]:
    """A flag's type: an int of `at_least` or more."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if number < at_least:
            raise argparse.ArgumentTypeError(f"{number} is below {at_least}")
        return number

    return parse


def finite_number(text: str) -> float:
    """A flag's type: a float, not NaN and not infinite."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return number


def nearest(name: str, known: Iterable[str]) -> str:
    """A question that names the nearest of `known`, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
