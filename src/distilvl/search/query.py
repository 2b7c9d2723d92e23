"""A query: its embedding, the folders and dates that narrow it, and the different pictures nearest to it.

Copies are files of the same bytes, which share their id: nothing else that is stored tells equal from nearly equal.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from distilvl.data.listing import on_disk, spellings
from distilvl.data.records import FileImage
from distilvl.errors import BadImageError, DistilvlError, OptionError
from distilvl.models.encoder import Encoder
from distilvl.pictures import decode_image, upright_rgb
from distilvl.search.about import prefix
from distilvl.search.quick import QuickTable
from distilvl.search.table import Embeddings, Hit, PhotoTable, one_of, quoted

ImageQuery = Image.Image | bytes | str | Path
"""Pixels, encoded bytes, or a file."""

MOST_HITS = 1_000_000  # more are refused: they would be copied, not looked at

_DATE_REMEDY = "Write YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDTHH:MM[:SS]."
_DATE = re.compile(r"(\d{4})(?:([-/.:])(\d{1,2})(?:\2(\d{1,2}))?|(\d\d)(\d\d))?", re.A)
_TIME = re.compile(r"[T\s]\s*(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,]\d+)?)?", re.A | re.I)
_ZONE = re.compile(r"[T\s]\s*[\d:.,]+\s*(?:Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)", re.A | re.I)
_LONGEST_PATH = 4096  # of Linux; what is longer would only cost time

_MORE = 16  # rows beyond those wanted, so that a few copies cost no second search
_GROWTH = 4
# Rows; a model with one embedding for everything makes all pictures look like copies, and is not followed further.
_ENOUGH = 10_000
# A picture that was encoded once more differs by the rounding of the batches.
_SAME_SCORE = 1e-5
# Of what photographs should not show; docs/searching.md has what other shares and ways found.
_MINUS = 0.5


def check_query(
    text: object, image: object, like: object, minus: object, weight: object, top: object, folder: object,
    since: object, until: object,
) -> None:  # fmt: skip
    """`OptionError` for a value that `Index.search` does not take, or a weight without both a text and a picture."""
    for option, value in (("text", text), ("minus", minus)):
        if not isinstance(value, str | None):
            raise OptionError(option, f"{option} is {value!r:.100}, not a string.", "Put it in quotes.")
        if value is not None and not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise OptionError(option, f"{option} is {value!r:.100}, which is not Unicode.", "Give it in UTF-8.")
    if isinstance(top, bool) or not isinstance(top, int | np.integer):
        raise OptionError("top", f"top is {top!r:.100}, not a whole number.", "Say how many photographs.")
    if not 1 <= top <= MOST_HITS:
        raise OptionError("top", f"top is {top}.", f"Give 1 to {MOST_HITS:,}.")
    if not isinstance(folder, str | Path | None):
        raise OptionError("folder", f"folder is {folder!r:.100}, not a string or a Path.", "Name a folder.")
    for option, value in (("since", since), ("until", until)):
        if not isinstance(value, str | date | None):
            message = f"{option} is {value!r:.100}, not a string or a date."
            raise OptionError(option, message, "Put it in quotes, as in '2021-07'.")
    if weight is None:
        return
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1:
        raise OptionError("weight", f"the text's weight is {weight!r:.100}.", "It must be between 0 and 1.")
    if text is None or (image is None and like is None):
        message = "weight is the text's share of a query with both a text and a picture, and there are not both."
        raise OptionError("weight", message, "Leave weight out, or give both.")


def query_embedding(
    encoder: Callable[[], Encoder], embedding_of: Callable[[str], Embeddings],
    text: str | None, image: ImageQuery | None, like: str | None, vector: Embeddings | None, weight: float | None,
    minus: str | None = None,
) -> Embeddings:  # fmt: skip
    """The L2-normalised embedding (D,) of a query, whose parts are those of `Index.search` and passed `check_query`.

    Of what is wanted the weighted sum q, of what is not the embedding m: (q - m / 2), normalised.

    `encoder` gives the model, and is called only if something must be encoded; `embedding_of` gives that of an id.
    `DistilvlError`: nothing to search for, an unknown id, a bad picture.
    """
    if minus is not None:
        wanted = query_embedding(encoder, embedding_of, text, image, like, vector, weight)
        if not minus.strip():
            raise OptionError("minus", "what the photographs should not show is empty.", "Leave it out.")
        return _normalised(wanted - _MINUS * encoder().encode_texts([minus])[0])
    if vector is not None:
        return _normalised(vector)
    if image is not None and like is not None:
        raise OptionError("like", "two pictures are given.", "Give either a picture or the id of one.")
    if text is not None and not text.strip():
        raise OptionError("text", "the text to search for is empty.", "Say what the photograph should show.")
    pixels = [] if image is None else [_pixels(image)]  # before the model, which takes longer to load
    parts = [] if text is None else [encoder().encode_texts([text])[0]]
    if like is not None:
        parts.append(embedding_of(like))
    elif pixels:
        parts.append(encoder().encode_images(pixels)[0])
    if not parts:
        raise DistilvlError("there is nothing to search for.", "Give a text, a picture, or both.")
    share = 0.5 if weight is None else weight
    return parts[0] if len(parts) == 1 else _normalised(share * parts[0] + (1 - share) * parts[1])


def _normalised(vector: Embeddings) -> Embeddings:
    """`vector` L2-normalised, float32; `DistilvlError` if it is zero or not finite."""
    values = np.asarray(vector, dtype=np.float32)
    norm = float(np.linalg.norm(values))
    if not (np.isfinite(norm) and norm > 0):
        raise DistilvlError("the query is zero or not finite.", "Choose another weight or another query.")
    return np.asarray(values / norm, dtype=np.float32)


def _pixels(image: ImageQuery) -> Image.Image:
    if isinstance(image, Image.Image):
        return upright_rgb(image, "the picture")
    try:
        data = image if isinstance(image, bytes) else FileImage(str(on_disk(Path(image)))).read()
        return decode_image(data, "the picture" if isinstance(image, bytes) else str(image))
    except BadImageError as error:  # its advice is about an option of other commands
        raise OptionError("image", error.problem, "Give another one.") from error


def below(folder: str, roots: Iterable[str]) -> str:
    """The condition, in SQL, that a file is below a folder, however accents in its name are composed.

    `folder` is absolute, or relative to any of `roots`, the indexed folders (absolute, with `/`). `OptionError`: a name
    that no folder can have, a relative one with `..`, or a link that leads to itself.
    """
    quoted(folder)  # before the disk is read: it takes neither a NUL nor half of a surrogate pair
    if len(folder) > _LONGEST_PATH:
        raise OptionError("folder", f"the folder's name has {len(folder)} characters.", "Check the name.")
    path = PurePath(folder)
    if path.is_absolute():
        tops = _names(folder)
    else:
        parts = [part for part in path.parts if part != "."]
        if ".." in parts:
            remedy = "Name it from the indexed folder down."
            raise OptionError("folder", f"the folder {folder!r} has '..' in it.", remedy)
        tops = ["/".join([root.rstrip("/"), *parts]) for root in roots]
    # `starts_with` has no wild cards, unlike LIKE.
    starts = dict.fromkeys(spelling for top in tops for spelling in spellings(prefix(top)))
    return "(" + (" OR ".join(f"starts_with(path, {quoted(start)})" for start in starts) or "FALSE") + ")"


def _names(folder: str) -> list[str]:
    """An absolute folder as an index may know it: the links above the indexed folder followed, those in it not."""
    path = PurePath(os.path.abspath(on_disk(Path(folder))))  # noqa: PTH100 - Path.resolve follows links
    names, real = [path.as_posix()], PurePath(path.anchor)
    for number, part in enumerate(path.parts[1:], start=2):
        real = real / part
        if _is_link(real):
            real = PurePath(os.path.realpath(real))
            if _is_link(real):
                wrong = f"the folder {folder} is behind a link that leads to itself."
                raise OptionError("folder", wrong, "Check the path.")
            names.append(real.joinpath(*path.parts[number:]).as_posix())
    return names


def _is_link(path: PurePath) -> bool:
    return os.path.islink(path)  # noqa: PTH114 - Path.is_symlink raises where a name is too long


def between(since: str | date | None, until: str | date | None) -> list[str]:
    """The conditions, in SQL, that `date` is not before the beginning of `since` and not after the end of `until`.

    Both are dates or times, or as much of one as matters (`2021`, `2021-07`); text or Python's. Between the numbers of
    a date may be `-`, `/`, `.` or `:`, or, in one of eight digits, nothing. `OptionError`: not a date, a time of some
    zone (photographs' times have none), or an end before the beginning.
    """
    first = None if since is None else _period("since", since)[0]
    last = None if until is None else _period("until", until)[1]
    if first and last and first > last:
        raise OptionError("until", f"there is no time since {since} and until {until}.", "Exchange the two.")
    bounds = [(">=", first), ("<=", last)]
    return [f"date {sign} timestamp '{time.isoformat(sep=' ')}'" for sign, time in bounds if time is not None]


def _period(option: str, value: str | date) -> tuple[datetime, datetime]:
    """First and last second that `value` stands for."""
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(microsecond=0), value.replace(microsecond=0)
    text = value.isoformat() if isinstance(value, date) else value.strip()
    no_date = OptionError(option, f"{option} is {text[:100]!r}, not a date.", _DATE_REMEDY)
    found = _DATE.match(text)
    if found is None:
        raise no_date
    rest = text[found.end() :]
    if _ZONE.fullmatch(rest):
        message = f"{option} is {text[:100]!r}, in a time zone; photographs tell the time of their camera, without one."
        raise OptionError(option, message, "Leave the zone out.")
    time = _TIME.fullmatch(rest) if rest else None
    month, day = found[3] or found[5], found[4] or found[6]
    if rest and (time is None or day is None):
        raise no_date
    try:
        first = datetime(int(found[1]), int(month or 1), int(day or 1))
        if time is not None:
            first = first.replace(hour=int(time[1]), minute=int(time[2]), second=int(time[3] or 0))
            return first, first if time[3] else first + timedelta(seconds=59)
        if day is not None:
            return first, first.replace(hour=23, minute=59, second=59)
        if month is not None:
            following = (first.replace(day=28) + timedelta(days=4)).replace(day=1)
            return first, following - timedelta(seconds=1)
        return first, datetime(first.year, 12, 31, 23, 59, 59)
    except (ValueError, OverflowError) as error:
        raise no_date from error


def nearest_pictures(
    table: PhotoTable | QuickTable, vector: Embeddings, conditions: Sequence[str], top: int, without: str | None = None
) -> list[Hit]:
    """The `top` different pictures that meet all `conditions` and are most similar to a query (D,), best first.

    Each search leaves out what the ones before have found, and goes through more rows: a thousand copies of one picture
    cost one further search, and pictures without copies none. The picture of the id `without` is left out.
    """
    files: dict[str, list[Hit]] = {}
    amount, searches = top + _MORE, 0
    while True:
        others = [f"NOT ({one_of('id', files)})"] if files else []
        found = table.nearest(vector, [*conditions, *others], amount)
        searches += 1
        for hit in found:
            files.setdefault(hit.id, []).append(hit)
        # The first of one picture's files, by path, with the best of their scores.
        pictures = [replace(min(hits, key=lambda hit: hit.path), score=max(hit.score for hit in hits))
                    for key, hits in files.items() if key != without]  # fmt: skip
        best = sorted(pictures, key=lambda hit: (-hit.score, hit.path))[:top]
        # Copies have equal scores: of the last one, none can be among the rows that were not found.
        is_whole = len(best) == top and (amount > _ENOUGH or best[-1].score - found[-1].score > _SAME_SCORE)
        if len(found) < amount or is_whole:
            break
        amount *= _GROWTH
    # In one search all copies are found; later ones left out those of pictures that were known.
    paths = {key: sorted(hit.path for hit in hits) for key, hits in files.items()}
    if searches > 1:
        paths |= table.paths([hit.id for hit in best], conditions)
    return [replace(hit, path=paths[hit.id][0], paths=tuple(paths[hit.id])) for hit in best]
