"""Pictures in strings: as a data URL, base64 or percent-encoded, or as bare base64 of either alphabet, padded or not.

Whether a string holds one in any other way is told by the first bytes of what it decodes to.
"""

import base64
import binascii
import enum
import re
import sys
from collections.abc import Iterator
from urllib.parse import unquote, unquote_to_bytes

from PIL import Image

from distilvl.errors import BadImageError, TooManyPixelsError
from distilvl.pictures import decode_image, read_header
from distilvl.pictures.formats import IMAGE_SUFFIXES, LONGEST, kind_of
from distilvl.serving.errors import RequestError, wrong_field

# Data URLs and bare base64.
_AROUND = " \t\r\n\f\v\"'`<>\0\ufeff\u00a0\u200b\u200c\u200d\u202f\u2060\u3000\u201c\u201d\u2018\u2019\u00ab\u00bb"
_ENCODED_HEAD = re.compile(r"data%(?:25){0,3}3a", re.I)
_HEAD = re.compile(r"data:\s*(?P<type>[\w.+-]+/[\w.+*-]+)?\s*(?P<options>(?:;[^;,]*)*),", re.I)
_IN_BASE64 = re.compile(r";\s*base64\s*(?:;|$)", re.I)
_LONGEST_HEAD = 400
_CLAIM = re.compile(r"data:\s*image/", re.I)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+")
_FEWEST = 12  # characters of base64: nine bytes, enough for most marks
_WORD = 40  # characters: no word is so long

# The addresses and paths of pictures.
_SUFFIXES = IMAGE_SUFFIXES.union(
    [".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".raw", ".rw2"],
    [".dds", ".exr", ".hdr", ".heic", ".heif", ".hif", ".ico", ".jxl", ".psb", ".psd", ".qoi", ".svg", ".svgz", ".tga"],
)
_ENDING = "(?:" + "|".join(re.escape(suffix) for suffix in sorted(_SUFFIXES)) + ")"
_PLACE = re.compile(
    # an address, perhaps with a query
    rf"(?:[a-z][a-z0-9+.-]+://|//)[^\s?#]*[^\s?#/]{_ENDING}(?:[?#]\S*)?|blob:\S+"
    # a path without blanks, or from a root on
    rf"|(?:[^\s]*|(?:/|\.{{1,2}}[/\\]|~[/\\]|[a-z]:[/\\]|\\\\|file:)[^\r\n]*)[^\s/\\.]{_ENDING}"
    # With blanks and no root: below a folder, or as cameras and programs number their files. Other words before the
    # name of a file ("a file called dog.jpg") are a text.
    r"|(?![^\r\n]*://)(?:(?:[^\s/\\]+ ){0,3}[^\s/\\]+[/\\][^\r\n/\\]{1,200}(?:[/\\][^\r\n/\\]{1,200}){0,20}"
    r"|(?:IMG|DSC[FN]?|PXL|MVIMG|VID|Screenshot|Photo|Image|Picture|Scan)[ _-][^\r\n]{0,80}\d[^\r\n/.]{0,20})"
    rf"{_ENDING}",
    re.I,
)
_LONGEST_PLACE = 4096
_AFTER_PLACE = re.compile(rf"(?<=\S)({_ENDING})(?:[!:@][\w.@-]{{1,60}})?[/.,;]{{0,2}}$", re.I)

# Everything else that may hold a picture.
_LOOKED_THROUGH = 20_000  # characters; what begins further on was no mistake of a client
_NESTED = 3  # encodings within each other that are undone
_WITHIN = re.compile(r"image/[^,]{1,180}base64\s{0,3},", re.I)
# Bytes that were made letters in one of the ways in which that goes wrong; drawings are letters anyway.
_AS_LETTERS = re.compile(
    r"(?si).PNG\r\n\x1a\n|.{0,20}(?:JFIF|Exif)\0|ÿØÿ|GIF8[79]a(?=.{0,8}[\0-\x08])|RIFF.{4,12}WEBPVP8"
    r"|\ufeff?\s*<(?:svg[\s>]|[?!].{0,2000}?<svg[\s>])"
)
_ESCAPED = re.compile(
    r"(?i)\\x89PNG|\\xff\\xd8\\xff|\\u0089PNG|\\u00ff\\u00d8|\\377\\330\\377|\\211PNG|b['\"](?:GIF8[79]a|RIFF.{4,40}WEBP)"
)
_HEX_PAIRS = re.compile(r"(?<![0-9a-f])(?:(?:\\x|0x)?[0-9a-f]{2}[\s:,;_-]{0,2}){16,80}", re.I)
_NOT_HEX = re.compile(r"\\x|0x|[^0-9a-f]", re.I)
_NUMBERS = re.compile(r"(?<!\d)(?:(?:[\"']\d{1,3}[\"']:\s?)?-?\d{1,3}\b[\s,;]{0,3}){12,80}")
_NUMBER = re.compile(r"-?\d+(?!\d*[\"'])")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]|\\\\[rnt]|\\\\(?=/)")
_FEWEST_GROUPED, _LEAST_GROUP = 100, 4  # characters of base64 in pieces of one length, and of each piece
_FEWEST_ESCAPED = 100  # characters; a shorter text tells of the first bytes of pictures
_MOST_SKIPPED = 8

# What no word can be read of.
_NOISE = 1000  # characters; no hash, key or signed address has so many in one run
_LEAST_LETTERS = 12
_LEAST_DIGITS = _NOISE // 50  # base64 has eight times as many
_TWO_LOWER = re.compile(r"(?=[a-z]{2})")
_PIECE = re.compile(r"[A-Za-z0-9]+")
_PLAIN_PIECE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_LONG_PIECE = 20  # characters between the dashes and slashes of a name, on average


class Likeness(enum.Enum):
    """What a string looks like: a text, a picture, the address or path of one (`PLACE`), or one that is `WRAPPED`.

    Wrapped is a picture within other text or in a spelling that is not read, or data of which no word can be read.
    """

    TEXT, PICTURE, PLACE, WRAPPED = range(4)


def likeness(text: str) -> Likeness:
    """What `text` looks like; quick for ordinary texts, and bounded by the first 20,000 characters of hostile ones."""
    bare = _bare(text)
    if (head := _HEAD.match(bare[:_LONGEST_HEAD])) is not None:  # `data:,` before a text is a text
        is_claimed = _IN_BASE64.search(head["options"]) or (head["type"] or "").lower().startswith("image/")
        start = unquote_to_bytes(bare[head.end() : head.end() + 3 * LONGEST])
        return Likeness.PICTURE if is_claimed or kind_of(start) is not None else Likeness.TEXT
    if _CLAIM.match(bare) or _begins_as_picture(bare):
        return Likeness.PICTURE
    if len(bare) <= _LONGEST_PLACE:
        place = bare.strip("()[]{} ")
        if (end := _AFTER_PLACE.search(place)) is not None:
            place = place[: end.end(1)]  # without the size that some servers take after the name, or a sentence's end
        if _PLACE.fullmatch(place):
            return Likeness.PLACE
    return Likeness.WRAPPED if _holds_picture(text[:_LOOKED_THROUGH], _NESTED) else Likeness.TEXT


def _bare(text: str) -> str:
    """`text` without what may stand around it: blanks, quotes, Python's `b'...'`, an encoding as in addresses."""
    bare = text.strip(_AROUND)
    if bare[:2] in ("b'", 'b"'):
        bare = bare[2:]
    for _ in range(_NESTED + 1):
        if not _ENCODED_HEAD.match(bare):
            break
        bare = unquote(bare)
    bare = bare.replace("\\/", "/")  # as JSON may write a slash
    return bare[7:].lstrip() if bare[:7].lower() in ("base64,", "base64:") else bare


def _begins_as_picture(bare: str) -> bool:
    """Whether this is base64 whose first bytes are those of a picture."""
    start = unquote(bare[: 2 * LONGEST])
    start = "".join(start.split()) if "\n" in start else start
    run = _BASE64.match(start)
    if run is None or len(run[0]) < _FEWEST:
        return False
    if len(run[0]) < _WORD and start[run.end() :].strip("=\r\n\t "):
        return False  # a text about the first bytes of pictures
    return not _has_words(run[0]) and kind_of(_from_base64(run[0])) is not None


def _holds_picture(text: str, nested: int) -> bool:
    """Whether there is a picture in `text` in any way, or data of which no word can be read."""
    if _AS_LETTERS.match(text) or _WITHIN.search(text):
        return True
    if len(text) < _WORD:
        return False
    for _ in range(_NESTED):
        if "%" not in text:
            break
        text = unquote(text)
    if len(text) >= _FEWEST_ESCAPED and _ESCAPED.search(text):
        return True
    if any(kind_of(data) is not None for data in _written_out(text)):
        return True
    return any(_is_data(run, nested) for run in _runs(_INVISIBLE.sub(" ", text)) if not _has_words(run))


def _written_out(text: str) -> Iterator[bytes]:
    """Bytes that are written out in `text`, as hexadecimal pairs or as decimal numbers."""
    for found in _HEX_PAIRS.finditer(text):
        digits = _NOT_HEX.sub("", found[0])
        yield bytes.fromhex(digits[: len(digits) // 2 * 2])
    for found in _NUMBERS.finditer(text):
        numbers = [int(number) for number in _NUMBER.findall(found[0])[:LONGEST]]
        if all(-128 <= number < 256 for number in numbers):
            yield bytes(number % 256 for number in numbers)


def _runs(text: str) -> list[str]:
    """Runs of the letters of base64 longer than any word; pieces of one length with blanks between them are one run."""
    runs: list[tuple[str, int]] = []
    end = 0
    for found in _BASE64.finditer(text):
        run, size = runs[-1] if runs else ("", 1)
        if run and len(run) % size == 0 and len(found[0]) <= size and not text[end : found.start()].strip():
            runs[-1] = run + found[0], size
        else:
            runs.append((found[0], len(found[0])))
        end = found.end()
    return [run for run, size in runs
            if len(run) >= (_WORD if len(run) == size else _FEWEST_GROUPED) and size >= _LEAST_GROUP]  # fmt: skip


def _is_data(run: str, nested: int) -> bool:
    """Whether a run is base64 of a picture, encoded several times perhaps, or so long that it must be of something."""
    # The slashes of `base64://` are letters of base64 as well.
    leading = len(run) - len(run.lstrip("/_+-"))
    for skipped in range(min(leading, _MOST_SKIPPED) + 1):
        head = _from_base64(run[skipped : skipped + 4 * LONGEST])
        if kind_of(head) is not None:
            return True
        if nested and head.isascii():
            inner = head.decode("ascii")
            if inner[:5].lower() == "data:" or _holds_picture(inner, nested - 1):
                return True
    start = run[:_NOISE]
    digits = sum(letter.isdigit() for letter in start)
    return len(start) == _NOISE and len(set(start)) >= _LEAST_LETTERS and digits > _LEAST_DIGITS


def _has_words(run: str) -> bool:
    """Whether letters follow each other as in words; in base64 and in hexadecimal digits they seldom do."""
    start = run[:_NOISE]
    if 2 * len(_TWO_LOWER.findall(start)) > len(start):
        return True
    pieces = _PIECE.findall(start)
    if _LONG_PIECE * len(pieces) < len(start):
        return False
    return 2 * sum(_PLAIN_PIECE.fullmatch(piece) is not None for piece in pieces) > len(pieces)


def _from_base64(run: str) -> bytes:
    """The bytes of as many letters as are whole groups of four."""
    return base64.b64decode(run[: len(run) // 4 * 4].replace("-", "+").replace("_", "/"))


def picture_bytes(value: str, param: str) -> bytes:
    """The encoded picture in a data URL or in bare base64; `RequestError` (422) if `value` is neither."""
    bare = _bare(value)
    head = _HEAD.match(bare[:_LONGEST_HEAD])
    if head is None and not _begins_as_picture(bare):
        wrong = "is not a picture as data:image/TYPE;base64,... or base64 (addresses are not fetched)."
        raise wrong_field(param, wrong, "invalid_image")
    text = bare if head is None else bare[head.end() :]
    if head is not None and not _IN_BASE64.search(head["options"]):
        return unquote_to_bytes(text)
    text = "".join(unquote(text).split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise wrong_field(param, "is not base64.", "invalid_image") from error


def count_pixels(data: bytes, limit: int, param: str) -> int:
    """Width times height, from the picture's header; `RequestError` if above `limit` (413) or no picture (422)."""
    try:
        header = read_header(data, param)
        pixels = header.width * header.height
    except TooManyPixelsError:
        pixels = limit + 1
    except BadImageError as error:
        kind = kind_of(data)
        what = f"a {kind} that is damaged or not read here" if kind else "not a picture that can be read"
        raise wrong_field(param, f"is {what}.", "invalid_image") from error
    if pixels > limit:
        raise wrong_field(param, f"has more than {limit:,} pixels. Send it smaller.", "too_many_pixels", 413)
    return pixels


def decode_picture(data: bytes, param: str) -> Image.Image:
    """The RGB picture, upright, whatever its size (see `count_pixels`); `RequestError` (422) if it is damaged."""
    try:
        return decode_image(data, param, most=sys.maxsize)
    except BadImageError as error:
        raise RequestError(422, error.problem, code="invalid_image", param=param) from error
