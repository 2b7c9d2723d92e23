"""`kind:place?option=value&option=value`: names of models, data and stored features, and their one parser."""

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from distilvl.errors import DistilvlError

# The first question mark before NAME=: any other one belongs to the place, as in a folder's name.
_OPTIONS = re.compile(r"(.*?)\?([A-Za-z_][\w.-]*=.*)", re.DOTALL)


class Reader(NamedTuple):
    """How the text of an option becomes a value."""

    read: Callable[[str], Any]  # from the text to the value; raises `ValueError` for one that it does not take
    wanted: str  # what it takes, for messages


@dataclass(frozen=True)
class Spec:
    """A parsed name."""

    kind: str  # what stands before the first colon, where that is a known kind; else empty
    place: str  # a path, id or address
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the values of each option, in order
    noun: str = "spec"  # what messages call the thing that is named, such as `data set`

    def __str__(self) -> str:
        return f"{self.kind}:{self.place}" if self.kind else self.place

    def require(self, known: Collection[str]) -> None:
        """`DistilvlError` for an option that is not among `known`; its value, which may be secret, is not shown."""
        for name in self.options:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                takes = f"It takes {', '.join(known)}." if known else "It takes none."
                remedy = f"Did you mean {near[0]!r}?" if near else takes
                raise DistilvlError(f"the {self.noun} {str(self)!r} has no option {name!r}.", remedy)

    def one(self, name: str) -> str | None:
        """The value of an option, None without it; `DistilvlError` if it is given more than once."""
        values = self.options.get(name, ())
        if len(values) > 1:
            raise DistilvlError(f"the {self.noun} {str(self)!r} has {name!r} twice.", "Give it once.")
        return values[0] if values else None

    def read(self, readers: Mapping[str, Reader], remedy: str = "") -> dict[str, Any]:
        """The values of the options that are given, each by its reader; of one that is given twice the last.

        `DistilvlError` for an option without a reader, or a value that it does not take, which ends with `remedy`.
        """
        self.require(readers)
        values = {}
        for name, (*_, text) in self.options.items():
            reader = readers[name]
            try:
                values[name] = reader.read(text)
            except ValueError as error:
                problem = f"the {self.noun} {str(self)!r}: the option {name!r} is {text!r}, not {reader.wanted}."
                raise DistilvlError(problem, remedy or f"Give {reader.wanted}.") from error
        return values


def split_kind(text: str, kinds: Collection[str]) -> tuple[str, str]:
    """Kind and rest of `kind:rest`; no kind where the text begins with none of `kinds`, or is an address (`https://`)."""
    kind, colon, rest = text.partition(":")
    return (kind, rest) if colon and kind in kinds and not rest.startswith("//") else ("", text)


def parse_spec(text: str, kinds: Collection[str] = (), noun: str = "spec") -> Spec:
    """The parts of `kind:place?option=value&...`, all but the place optional, with `%26` and the like decoded."""
    kind, rest = split_kind(text, kinds)
    match = _OPTIONS.fullmatch(rest)
    options: dict[str, tuple[str, ...]] = {}
    for name, value in parse_qsl(match[2], keep_blank_values=True) if match else []:
        options[name] = (*options.get(name, ()), value)
    return Spec(kind, match[1] if match else rest, options, noun)


def choice(*words: str) -> Reader:
    """One of `words`."""
    return _text_that(words.__contains__, f"{', '.join(words[:-1])} or {words[-1]}")


def number(wanted: str, least: float = 0, most: float = float("inf"), *, whole: bool = False) -> Reader:
    """A finite number of at least `least` and at most `most`, in plain digits where it is `whole`."""

    def read(text: str) -> float:
        if whole and not (text.isascii() and text.isdigit()):
            raise ValueError(text)
        value = int(text) if whole else float(text)
        if not (least <= value <= most and value < float("inf")):
            raise ValueError(text)
        return value

    return Reader(read, wanted)


def word(wanted: str) -> Reader:
    """Any text but an empty one."""
    return _text_that(str.strip, wanted)


def _text_that(fits: Callable[[str], object], wanted: str) -> Reader:
    def read(text: str) -> str:
        if not fits(text):
            raise ValueError(text)
        return text

    return Reader(read, wanted)


COUNT = number("a positive whole number", 1, whole=True)
