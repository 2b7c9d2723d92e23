"""What is done to a file that was right: to its bytes, or to the tree of values that it holds."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import yaml

LONG = 5000
DEEP = "[" * 100_000
BAD_VALUES: list[Any] = [
    None, True, 0, -1, 1e400, float("nan"), 10**400, 2**63, "", " ", "\ud800", "\x00", "a" * LONG, "../../etc/passwd",
    "\u202egnp.a", [], {}, [[]], [None], {"a": None}, "1", "nan",
]  # fmt: skip


def changed_bytes(data: bytes, drawn: random.Random) -> bytes:
    """`data` with one to four places changed."""
    value = bytearray(data)
    for _ in range(drawn.randint(1, 4)):
        place, size = drawn.randrange(len(value) + 1), drawn.choice([1, 2, 8, 64])
        kind = drawn.choice(["flip", "cut", "double", "write", "drop", "zeros"])
        if kind == "flip" and place < len(value):
            value[place] ^= 1 << drawn.randrange(8)
        elif kind == "cut":
            del value[place:]
        elif kind == "double":
            value[place:place] = value[place : place + size]
        elif kind == "drop":
            del value[place : place + size]
        else:
            value[place : place + size] = bytes(size) if kind == "zeros" else drawn.randbytes(size)
    return bytes(value)


def changed_tree(tree: Any, drawn: random.Random) -> Any:
    """`tree` of lists and dicts with one or two values, keys or items changed."""
    tree = copy.deepcopy(tree)
    for _ in range(drawn.randint(1, 2)):
        places = list(_places(tree))
        if not places:
            return drawn.choice(BAD_VALUES)
        holder, key = drawn.choice(places)
        kind = drawn.choice(["value", "value", "value", "drop", "key", "nest", "double"])
        if kind == "drop":
            del holder[key]
        elif kind == "key" and isinstance(holder, dict):
            holder[drawn.choice(["", "a" * LONG, "\ud800", "id", str(key).upper()])] = holder.pop(key)
        elif kind == "nest":
            for _ in range(drawn.choice([1, 50, 200])):
                holder[key] = [holder[key]]
        elif kind == "double" and isinstance(holder, list):
            holder.insert(key, holder[key])
        else:
            holder[key] = drawn.choice(BAD_VALUES)
    return tree


def _places(tree: Any) -> Any:
    for key, value in list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def changed_text(data: bytes, suffix: str, drawn: random.Random) -> bytes:
    """A file of JSON, JSON lines or YAML with a part of its tree changed; now and then its bytes, or all of it."""
    kind = drawn.random()
    if kind < 0.15:
        return changed_bytes(data, drawn)
    if kind < 0.2:
        return (DEEP if drawn.random() < 0.5 else '{"a":' * 50_000).encode()
    if suffix == ".jsonl":
        lines = data.decode().splitlines()
        row = drawn.randrange(len(lines))
        lines[row] = json.dumps(changed_tree(json.loads(lines[row]), drawn))
        return "\n".join(lines).encode()
    if suffix == ".yaml":
        return json.dumps(changed_tree(yaml.safe_load(data), drawn)).encode()  # which is YAML, too
    return json.dumps(changed_tree(json.loads(data), drawn)).encode()
