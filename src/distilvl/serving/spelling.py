"""The ways in which clients write a picture, and how a string that holds one is told from a text.

A picture comes as a data URL, in any letter case, with any parameters, in base64 or percent-encoded, or as bare base64;
of the usual alphabet or the one for addresses, padded or not, in one line or several.
"""

from __future__ import annotations

import base64
import binascii
import enum
import re
from itertools import islice
from urllib.parse import unquote, unquote_to_bytes

from distilvl.pictures.formats import IMAGE_SUFFIXES, LONGEST, kind_of
from distilvl.serving.encoded import has_words, holds_data
from distilvl.serving.errors import Fault

_AROUND = " \t\r\n\f\v\"'`<>\0\ufeff\u00a0\u200b\u200c\u200d\u202f\u2060\u3000\u201c\u201d\u2018\u2019\u00ab\u00bb"
_LONGEST_HEAD = 400
_ENCODED_HEAD = re.compile(r"data%(?:25){0,3}3a", re.I)
_ENCODED_TIMES = 4
_HEAD = re.compile(r"data:\s*(?P<type>[\w.+-]+/[\w.+*-]+)?\s*(?P<options>(?:;[^;,]*)*),", re.I)
_CLAIM = re.compile(r"data:\s*image/", re.I)
_WITHIN = re.compile(r";\s{0,9}base64\s{0,9},", re.I)
_TYPE = re.compile(r"image/[\w.+*-]{1,60}[^,]{0,120}", re.I)
_BEFORE = 200
_LOOKED_AT = 20
_RUN = re.compile(r"[A-Za-z0-9+/_-]+")
_HEX = re.compile(r"(?:0x)?([0-9a-f]{16,})", re.I)
_BASE64 = re.compile(r"[A-Za-z0-9+/]*")
_FEWEST = 12  # characters of base64: nine bytes, enough for most marks
_PROSE = 40  # no word is so long

_SUFFIXES = IMAGE_SUFFIXES | {
    *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".raw", ".rw2"),
    *(
        ".dds",
        ".exr",
        ".hdr",
        ".heic",
        ".heif",
        ".hif",
        ".ico",
        ".jxl",
        ".psb",
        ".psd",
        ".qoi",
        ".svg",
        ".svgz",
        ".tga",
    ),
}
_ENDING = "|".join(re.escape(suffix) for suffix in sorted(_SUFFIXES))
_URL = re.compile(rf"(?:[a-z][a-z0-9+.-]+://|//)[^\s?#]*[^\s?#/]({_ENDING})(?:[?#]\S*)?|blob:\S+", re.I)
_PATH = re.compile(
    rf"(?:[^\s]*|(?:/|\.{{1,2}}[/\\]|~[/\\]|[a-z]:[/\\]|\\\\|file:)[^\r\n]*)[^\s/\\.](?:{_ENDING})", re.I
)
# With blanks and no root: below a folder, or as cameras and programs number their files. Other words before the name of
# a file ("a file called dog.jpg") are a text.
_LOOSE = re.compile(
    r"(?![^\r\n]*://)(?:(?:[^\s/\\]+ ){0,3}[^\s/\\]+[/\\][^\r\n/\\]{1,200}(?:[/\\][^\r\n/\\]{1,200}){0,20}"
    r"|(?:IMG|DSC[FN]?|PXL|MVIMG|VID|Screenshot|Photo|Image|Picture|Scan)[ _-][^\r\n]{0,80}\d[^\r\n/.]{0,20})"
    rf"(?:{_ENDING})",
    re.I,
)
_LONGEST_PLACE = 4096
_AFTER_PLACE = re.compile(rf"(?<=\S)({_ENDING})(?:[!:@][\w.@-]{{1,60}})?[/.,;]{{0,2}}$", re.I)

# Bytes that were made a string in one of the ways in which that goes wrong.
_BROKEN = re.compile(
    r".PNG\r\n\x1a\n|.{0,20}(?:JFIF|Exif)\0|ÿØÿ|GIF8[79]a(?=.{0,8}[\0-\x08])|RIFF.{4,12}WEBPVP8"
    r"|b(['\"])(?:\\x89PNG|\\xff\\xd8|GIF8[79]a|RIFF.{4,40}WEBP)|\s*(?:<\?xml[^>]*>\s*)?<svg[\s>]",
    re.S | re.I,
)
_DRAWING = re.compile(r"\ufeff?\s*<[?!](?:.{0,2000}?)<svg[\s>]", re.S | re.I)


class Likeness(enum.Enum):
    """What a string looks like that may be a text or a picture."""

    TEXT = enum.auto()
    PICTURE = enum.auto()
    PLACE = enum.auto()
    """The address or the path of one."""
    WRAPPED = enum.auto()
    """One within other text, in hexadecimal digits, or bytes that were taken for letters."""


def likeness(text: str) -> Likeness:
    """What `text` looks like; quick for ordinary texts, which do not look like anything else."""
    bare = _bare(text)
    if (head := _data_head(bare)) is not None:
        return Likeness.PICTURE if _may_be_picture(bare, head) else Likeness.TEXT
    if _CLAIM.match(bare) or _begins_as_picture(bare):
        return Likeness.PICTURE
    if _BROKEN.match(text[:200]) or _DRAWING.match(text) or _is_hex(bare) or _has_within(text):
        return Likeness.WRAPPED
    if _is_place(bare):
        return Likeness.PLACE
    if holds_data(text):
        return Likeness.WRAPPED
    return Likeness.TEXT


def _is_place(bare: str) -> bool:
    """Whether the whole of a string is the address or the path of a picture, but for what may stand around it."""
    if len(bare) > _LONGEST_PLACE:
        return False
    place = bare.strip("()[]{} ")
    if (end := _AFTER_PLACE.search(place)) is not None:
        place = place[: end.end(1)]  # without the size that some servers take after the name, or the end of a sentence
    return any(kind.fullmatch(place) for kind in (_URL, _PATH, _LOOSE))


def picture_bytes(value: str, param: str) -> bytes:
    """The encoded picture in a data URL or in bare base64.

    Args:
        value: see above.
        param: the field that holds it, for messages.

    Raises:
        Fault: 422, an address, or not base64.
    """
    bare = _bare(value)
    head = _data_head(bare)
    if head is None:
        if not _begins_as_picture(bare):
            message = f"{param} is not a picture as data:image/TYPE;base64,... or base64 (addresses are not fetched)."
            raise Fault(422, message, code="invalid_image", param=param)
        return _decoded(bare, param)
    rest = bare[head.end() :]
    return _decoded(rest, param) if _is_base64(head) else unquote_to_bytes(rest)


def _bare(text: str) -> str:
    """`text` without what may stand around it: blanks, quotes, Python's `b'...'`, an encoding as in addresses."""
    bare = text.strip(_AROUND)
    if bare[:2] in ("b'", 'b"'):
        bare = bare[2:]
    for _ in range(_ENCODED_TIMES):
        if not _ENCODED_HEAD.match(bare):
            break
        bare = unquote(bare)
    if "\\/" in bare:  # as JSON may write a slash
        bare = bare.replace("\\/", "/")
    if bare[:7].lower() in ("base64,", "base64:"):
        bare = bare[7:].lstrip()
    return bare


def _data_head(bare: str) -> re.Match[str] | None:
    return _HEAD.match(bare[:_LONGEST_HEAD]) if bare[:5].lower() == "data:" else None


def _is_base64(head: re.Match[str]) -> bool:
    return any(option.strip().lower() == "base64" for option in head["options"].split(";"))


def _may_be_picture(bare: str, head: re.Match[str]) -> bool:
    """Whether a data URL is meant as a picture; `data:,` before a text is a text."""
    if _is_base64(head) or (head["type"] or "").lower().startswith("image/"):
        return True
    return kind_of(unquote_to_bytes(bare[head.end() : head.end() + 3 * LONGEST])) is not None


def _begins_as_picture(bare: str) -> bool:
    """Whether this is base64 whose first bytes are those of a picture."""
    start = bare[: 2 * LONGEST]
    if "%" in start:
        start = unquote(start)
    start = "".join(start.split()) if "\n" in start else start
    run = _RUN.match(start)
    if run is None or len(run[0]) < _FEWEST:
        return False
    if len(run[0]) < _PROSE and start[run.end() :].strip("=\r\n\t "):
        return False  # a text about the first bytes of pictures
    if has_words(run[0]):
        return False  # a path, say
    whole = run[0][: len(run[0]) // 4 * 4]
    return kind_of(base64.b64decode(whole, altchars=b"-_" if "-" in whole or "_" in whole else None)) is not None


def _is_hex(bare: str) -> bool:
    found = _HEX.match(bare[: 2 + 2 * LONGEST])
    return found is not None and kind_of(bytes.fromhex(found[1][: len(found[1]) // 2 * 2])) is not None


def _has_within(text: str) -> bool:
    """Whether there is a data URL of a picture somewhere in `text`; in a time that a hostile one cannot stretch."""
    if "base64" not in text.lower():
        return False
    ends = (found.start() for found in islice(_WITHIN.finditer(text), _LOOKED_AT))
    return any(_TYPE.search(text[max(0, end - _BEFORE) : end]) for end in ends)


def _decoded(text: str, param: str) -> bytes:
    """The bytes of base64 in either alphabet, with or without padding, blanks or percent-encoding."""
    if "%" in text:
        text = unquote(text)
    if not _BASE64.fullmatch(text):
        text = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Fault(422, f"{param} is not base64.", code="invalid_image", param=param) from error
