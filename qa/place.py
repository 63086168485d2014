"""Values looked up in a file's objects, each of the kind that is due, and errors that say where the file is wrong."""

from collections.abc import Iterator
from typing import NamedTuple

from minitransformer.system.errors import DataError

JSON_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "an integer",
    float: "a number with a fraction",
    bool: "true or false",
    type(None): "null",
}
SWITCHES = {"true": True, "false": False, "1": True, "0": False}


class Place(NamedTuple):
    """Where in the file the reader stands, for its error messages."""

    file: str
    steps: tuple[str, ...] = ()  # "data[3]", "paragraphs[1]", "qas[0]"; "line 7"
    names: tuple[str, ...] = ()  # "article 'Tehran'", "question 'q17'"

    def into(self, step: str) -> "Place":
        return self._replace(steps=(*self.steps, step))

    def named(self, kind: str, name: str) -> "Place":
        return self._replace(names=(*self.names, f"{kind} {short(name)}"))

    @property
    def path(self) -> str:
        return ".".join(self.steps)

    @property
    def whole(self) -> str:
        names = f"({', '.join(self.names)})" if self.names else ""
        return " ".join(part for part in (self.path, names) if part)

    def error(self, problem: str, remedy: str) -> DataError:
        return DataError(": ".join(part for part in (self.file, self.whole, f"{problem}; {remedy}") if part))


def take_objects(holder: dict, key: str, place: Place) -> Iterator[tuple[dict, Place]]:
    """The objects in the list `holder[key]`, each with its place."""
    for index, item in enumerate(take(holder, key, list, place)):
        here = place.into(f"{key}[{index}]")
        if not isinstance(item, dict):
            raise here.error(f"expected an object, found {kind_of(item)}", "give a file like SQuAD's")
        yield item, here


def take_text(holder: dict, key: str, place: Place) -> str:
    """A string that is more than blanks."""
    text = take_string(holder, key, place)
    if not text.strip():
        raise place.error(f"{key!r} is empty", "fill it in, or remove what it belongs to")
    return text


def take_string(holder: dict, key: str, place: Place) -> str:
    text = take(holder, key, str, place)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half of a UTF-16 pair; no tokeniser or file can take it
        problem = f"{key!r} has the lone surrogate {short(text[error.start])} at {error.start}"
        raise place.error(problem, "write the whole character") from error
    return text


def take_id(holder: dict, key: str, place: Place) -> str:
    """A string, or a whole number, which becomes one."""
    if type(holder.get(key)) in (int, float):
        return str(take_number(holder, key, place))
    return take_text(holder, key, place)


def take_number(holder: dict, key: str, place: Place) -> int:
    """A whole number; pandas writes 5.0 where a column has gaps."""
    value = holder.get(key)
    if type(value) is float and value.is_integer():
        return int(value)
    return take(holder, key, int, place)


def take_switch(holder: dict, key: str, place: Place) -> bool:
    """true or false, also as 1 or 0, or as a word."""
    value = holder.get(key)
    word = str(int(value) if type(value) is float and value.is_integer() else value).strip().lower()
    return SWITCHES[word] if word in SWITCHES else take(holder, key, bool, place)


def take(holder: dict, key: str, kind: type, place: Place):
    if key not in holder:
        raise place.error(f"the key {key!r} is missing", "add it")
    value = holder[key]
    if type(value) is not kind:  # isinstance would let true pass for the number 1
        raise place.error(f"{key!r} must be {JSON_KINDS[kind]}, found {kind_of(value)}", "correct it")
    return value


def kind_of(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else JSON_KINDS.get(type(value), type(value).__name__)


def short(text: str, longest: int = 40) -> str:
    """The text quoted for a message: on one line, with odd characters escaped, and not too long."""
    quoted = repr(text) if len(text) <= longest else repr(text[:longest]) + "..."
    return quoted.replace(r"\u200c", "\u200c")  # ZWNJ is a letter of Persian
