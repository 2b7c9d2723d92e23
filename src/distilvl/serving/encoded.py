"""Pictures hidden in strings by whatever stands around or between their letters, and their pixels within the limit."""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Iterator
from urllib.parse import unquote

from PIL import Image

from distilvl.errors import BadImageError, TooManyPixelsError
from distilvl.pictures import BAD_IMAGE_REMEDY, decode_image, read_header
from distilvl.pictures.formats import LONGEST, kind_of
from distilvl.serving.errors import Fault

_LOOKED_THROUGH = 100_000  # characters; a longer text is refused for its length
_RUN = re.compile(r"[A-Za-z0-9+/_-]+")
_LEADING = re.compile(r"[/_+-]*")
_WORD = 40  # no word is so long
_FEWEST = 100  # characters of base64 in groups
_LEAST_GROUP = 4
_DATA = 1000  # characters; no hash, key or signed address has so many in one run
_LEAST_LETTERS = 12
_FEW_DIGITS = 50  # one of so many letters: base64 has eight times as many
_MOST_SKIPPED = 8
_NESTED = 3
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]|\\\\[rnt]|\\\\(?=/)")
_LOWER = re.compile(r"(?=[a-z]{2})")
_PIECE = re.compile(r"[A-Za-z0-9]+")
_PLAIN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_LONG_PIECE = 20  # characters between the dashes and slashes of a name, on average
_DIGIT = re.compile(r"[0-9]")
_PAIRS = re.compile(r"(?<![0-9a-f])(?:(?:\\x|0x)?[0-9a-f]{2}[\s:,;_-]{0,2}){16,80}", re.I)
_NOT_HEX = re.compile(r"\\x|0x|[^0-9a-f]", re.I)
_NUMBERS = re.compile(r"(?<!\d)(?:(?:[\"']\d{1,3}[\"']:\s?)?-?\d{1,3}\b[\s,;]{0,3}){12,80}")
_NUMBER = re.compile(r"-?\d+(?!\d*[\"'])")
_ESCAPED = re.compile(
    r"\\x89PNG|\\xff\\xd8\\xff|\\u0089PNG|\\u00ff\\u00d8|\\377\\330\\377|\\211PNG|b['\"](?:GIF8[79]a|RIFF.{4,40}WEBP)",
    re.I,
)


def holds_data(text: str, nested: int = _NESTED) -> bool:
    """Whether there is a picture in `text`, encoded in any of these ways, or other data of which no word can be read.

    Args:
        text: of any length; the time grows with the first 100,000 characters at most.
        nested: so many encodings within each other are undone.
    """
    if len(text) < _WORD:
        return False
    text = text[:_LOOKED_THROUGH]
    for _ in range(_NESTED):
        if "%" not in text:
            break
        text = unquote(text)
    if len(text) >= _FEWEST and _ESCAPED.search(text):
        return True
    return _has_bytes(text) or any(_is_data(run, nested) for run in _runs(_INVISIBLE.sub(" ", text)))


def has_words(run: str) -> bool:
    """Whether letters follow each other as in words; in base64 and in hexadecimal digits they seldom do."""
    start = run[:_DATA]
    if 2 * len(_LOWER.findall(start)) > len(start):
        return True
    pieces = _PIECE.findall(start)
    if _LONG_PIECE * len(pieces) < len(start):
        return False
    return 2 * sum(_PLAIN.fullmatch(piece) is not None for piece in pieces) > len(pieces)


def _runs(text: str) -> Iterator[str]:
    """Long runs of the letters of base64: in one piece, or in pieces of the same length with blanks between them."""
    group: list[str] = []
    end = 0
    for found in _RUN.finditer(text):
        piece = found[0]
        if len(piece) >= _WORD:
            yield piece
        goes_on = group and len(group[-1]) == len(group[0]) >= len(piece) and not text[end : found.start()].strip()
        if goes_on:
            group.append(piece)
        else:
            yield from _joined(group)
            group = [piece]
        end = found.end()
    yield from _joined(group)


def _joined(group: list[str]) -> Iterator[str]:
    if len(group) > 1 and len(group[0]) >= _LEAST_GROUP:
        run = "".join(group)
        if len(run) >= _FEWEST:
            yield run


def _is_data(run: str, nested: int) -> bool:
    if has_words(run):
        return False
    # The slashes of `base64://` are letters of base64 as well.
    before = _LEADING.match(run)
    for skipped in range(min(before.end() if before else 0, _MOST_SKIPPED) + 1):
        head = _decoded(run[skipped : skipped + 4 * LONGEST])
        if kind_of(head) is not None or (nested and _is_encoded_again(head, nested - 1)):
            return True
    start = run[:_DATA]
    return len(run) >= _DATA and len(set(start)) >= _LEAST_LETTERS and _FEW_DIGITS * len(_DIGIT.findall(start)) > _DATA


def _is_encoded_again(head: bytes, nested: int) -> bool:
    inner = head.decode("ascii", "replace")
    return inner.isascii() and (inner[:5].lower() == "data:" or holds_data(inner, nested))


def _decoded(run: str) -> bytes:
    whole = run[: len(run) // 4 * 4].replace("-", "+").replace("_", "/")
    return base64.b64decode(whole)


def _has_bytes(text: str) -> bool:
    """Whether the bytes of a picture are written out, in hexadecimal or decimal numbers."""
    for found in _PAIRS.finditer(text):
        digits = _NOT_HEX.sub("", found[0])
        if kind_of(bytes.fromhex(digits[: len(digits) // 2 * 2])) is not None:
            return True
    for found in _NUMBERS.finditer(text):
        numbers = [int(number) for number in _NUMBER.findall(found[0])[:LONGEST]]
        if all(-128 <= number < 256 for number in numbers) and kind_of(bytes(n % 256 for n in numbers)) is not None:
            return True
    return False


def count_pixels(data: bytes, most: int, param: str) -> int:
    """Width times height, from the picture's header: nothing is decoded.

    Raises:
        Fault: 413, more than `most`; 422, not a picture.
    """
    try:
        header = read_header(data, param)
        pixels = header.width * header.height
    except TooManyPixelsError:
        pixels = most + 1
    except BadImageError as error:
        kind = kind_of(data)
        what = f"a {kind} that is damaged or not read here" if kind else "not a picture that can be read"
        raise Fault(422, f"{param} is {what}.", code="invalid_image", param=param) from error
    if pixels > most:
        message = f"{param} has more than {most:,} pixels. Send it smaller."
        raise Fault(413, message, code="too_many_pixels", param=param)
    return pixels


def decode_picture(data: bytes, param: str) -> Image.Image:
    """The RGB picture, upright; see `distilvl.pictures.decode_image`. `count_pixels` has found it small enough.

    Raises:
        Fault: 422, damaged or of a kind that is not read.
    """
    try:
        return decode_image(data, param, most=sys.maxsize)
    except BadImageError as error:
        message = str(error).removesuffix(BAD_IMAGE_REMEDY).strip()
        raise Fault(422, message, code="invalid_image", param=param) from error
