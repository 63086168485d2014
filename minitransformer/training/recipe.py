"""Recipes: every number of a run in one TOML file, each of them a flag too, nothing unknown accepted.

A job declares its recipe as a frozen dataclass of str, int, float and bool fields. The field's metadata holds the
help text. `--learning-rate 1e-4` on the command line wins over `learning_rate = 5e-5` in the file, which wins over
the dataclass's default.
"""

import argparse
import dataclasses
import json
import math
import sys
import tomllib
from pathlib import Path
from typing import Any

from minitransformer.system.errors import RecipeError, is_unicode
from minitransformer.system.flags import FlagParser, nearest

FOLDER = Path(__file__).parents[2] / "recipes"


def parse(recipe_type: type, default: str, description: str, argv: list[str] | None = None) -> tuple[str, Any]:
    """A command line's recipe, and its name. `--recipe` takes a name in recipes/ or a file."""
    parser = FlagParser(description=description, usage="%(prog)s [--recipe NAME] [--FIELD VALUE ...]")
    parser.add_argument("--recipe", default=default, help=f"a name in recipes/ or a TOML file (default {default})")
    for field in dataclasses.fields(recipe_type):
        flag = "--" + field.name.replace("_", "-")
        text, kind = field.metadata["help"], _type(field).__name__.upper()
        if field.type is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            parser.add_argument(flag, type=str, metavar="|".join(field.metadata.get("choices", [kind])), help=text)

    given = vars(parser.parse_args(argv))
    path = find(given.pop("recipe"))
    values = _from_file(recipe_type, path)
    for field in dataclasses.fields(recipe_type):
        if given[field.name] is not None:
            values[field.name] = _from_flag(field, given[field.name])
    return path.stem, recipe_type(**values)


def find(name: str) -> Path:
    """A recipe's file, from its name or its path."""
    for path in (FOLDER / f"{name}.toml", Path(name)):
        if path.is_file():
            return path
    known = sorted(path.stem for path in FOLDER.glob("*.toml"))
    raise RecipeError(f"no recipe {name!r}{nearest(name, known)}; recipes/ has {', '.join(known)}")


def write(recipe: Any) -> str:
    """The recipe as TOML: every field but the passing ones, which say where and how to run, not what."""
    kept = [field.name for field in dataclasses.fields(recipe) if not field.metadata.get("passing")]
    return "".join(f"{name} = {_toml(getattr(recipe, name))}\n" for name in kept)


def _from_file(recipe_type: type, path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a number of thousands of digits
        raise RecipeError(f"{path}: not TOML: {error}; mend it there") from error
    fields = {field.name: field for field in dataclasses.fields(recipe_type)}
    for name, value in values.items():
        if name not in fields:
            meant = nearest(name, fields) or "; is it a recipe of another job?"
            raise RecipeError(f"{path}: unknown field {name!r}{meant}")
        values[name] = _typed(fields[name], value, f"{path}: {name}")
    return values


def _from_flag(field: dataclasses.Field, text: Any) -> Any:
    flag = "--" + field.name.replace("_", "-")
    try:
        value = _type(field)(text)
    except ValueError:
        raise RecipeError(f"{flag}: {text!r} is not {_kind(field)}") from None
    return _typed(field, value, flag)


def _typed(field: dataclasses.Field, value: Any, place: str) -> Any:
    if field.type is float and type(value) is int and abs(value) <= sys.float_info.max:  # learning_rate = 1
        value = float(value)
    if type(value) is not field.type or (field.type is float and not math.isfinite(value)):
        raise RecipeError(f"{place}: {value!r} is not {_kind(field)}")
    if field.type is str and not is_unicode(value):  # a file name of another encoding
        raise RecipeError(f"{place}: {value!r} is not UTF-8")
    smallest = field.metadata.get("at_least")
    if smallest is not None and value < smallest:
        raise RecipeError(f"{place}: {value} is below {smallest}")
    largest = field.metadata.get("at_most")
    if largest is not None and value > largest:
        raise RecipeError(f"{place}: {value} is above {largest}")
    choices = field.metadata.get("choices")
    if choices and value not in choices:
        raise RecipeError(f"{place}: {value!r} is no choice{nearest(value, choices)}; choose from {', '.join(choices)}")
    return value


def option(default: Any, text: str, **limits: Any) -> Any:
    """A dataclass field with its help text and its limits: at_least, at_most, choices; passing=True: not recorded."""
    return dataclasses.field(default=default, metadata={"help": text, **limits})


def _type(field: dataclasses.Field) -> Any:
    return field.type  # int, float, str or bool


def _kind(field: dataclasses.Field) -> str:
    return {int: "a whole number", float: "a finite number", str: "a text", bool: "true or false"}[_type(field)]


def _toml(value: Any) -> str:
    # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
    return (
        json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        if isinstance(value, str)
        else str(value).lower()
    )
