"""The captions of a sample."""

from __future__ import annotations

import json
from typing import Any

from distilvl.data.faults import BadItemError
from distilvl.data.left_out import NO_CAPTION
from distilvl.data.listing import clean_captions
from distilvl.data.shards.tar import Sample
from distilvl.data.text_files import decode_text
from distilvl.errors import DistilvlError


def captions_of(sample: Sample) -> tuple[str, ...]:
    """All captions, cleaned as everywhere (`clean_caption`), without blank ones and null.

    The `txt` file has one caption a line. Without one, the `json` file is an object with `caption`, a text, or
    `captions`, a list of texts.

    Raises:
        DistilvlError: not UTF-8, not JSON, no caption in it; names the file.
    """
    if "txt" in sample.texts:
        where, text = _text(sample, "txt")
        found: list[Any] = text.split("\n")
    else:
        where, text = _text(sample, "json")
        found = _in_json(text, where)
    captions = tuple(caption for caption in clean_captions(found, where) if caption.strip())
    if not captions:
        raise BadItemError(
            f"{where} holds no caption",
            "Write one, or pass --skip-bad to leave the record out.",
            name=where,
            reason=NO_CAPTION,
        )
    return captions


def _text(sample: Sample, kind: str) -> tuple[str, str]:
    member = sample.texts[kind]
    where = f"{sample.where} ({member.name})"
    assert member.data is not None  # the caller read texts
    return where, decode_text(member.data, where)


def _in_json(text: str, where: str) -> list[Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DistilvlError(f"{where} is not valid JSON.", "Write an object with 'caption' or 'captions'.") from error
    if not isinstance(value, dict):
        raise DistilvlError(f"{where} is not an object.", "Write an object with 'caption' or 'captions'.")
    several = value.get("captions") or []
    if not isinstance(several, list):
        raise DistilvlError(f"{where}: 'captions' is not a list.", "Write a list of texts.")
    return [*several, value["caption"]] if "caption" in value else several


def reason_of(error: DistilvlError) -> str:
    """How `LeftOut` counts a record whose captions raise this."""
    return error.reason if isinstance(error, BadItemError) else "captions that cannot be read"
