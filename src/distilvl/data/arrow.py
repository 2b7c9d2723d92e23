"""Types of Arrow columns, as Parquet files and Hugging Face datasets have them, in the terms of `find_columns`."""

from __future__ import annotations

from typing import Any

from distilvl.data.columns import ColumnType
from distilvl.data.optional import require


def column_types(schema: Any, extra: str) -> dict[str, ColumnType]:
    """What each column of a `pyarrow.Schema` holds, in order; `extra` is the extra that would install pyarrow."""
    types = require("pyarrow", extra).types
    return {field.name: _column_type(field.type, types) for field in schema}


def _column_type(kind: Any, types: Any) -> ColumnType:
    if _is_one_of(kind, types, "binary", "large_binary", "binary_view", "fixed_size_binary"):
        return "bytes"
    if types.is_struct(kind):
        names = [kind.field(k).name for k in range(kind.num_fields)]
        return "bytes" if "bytes" in names else "text" if "raw" in names or "path" in names else "other"
    if _is_one_of(kind, types, "string", "large_string", "string_view"):
        return "text"
    if types.is_dictionary(kind):
        return "text" if _column_type(kind.value_type, types) == "text" else "other"
    if _is_one_of(kind, types, "list", "large_list", "list_view", "large_list_view", "fixed_size_list"):
        return "text" if _column_type(kind.value_type, types) == "text" else "other"
    return "number" if types.is_integer(kind) else "other"


def _is_one_of(kind: Any, types: Any, *names: str) -> bool:
    """Whether it is a type of one of these names; older pyarrow does not know all of them."""
    return any(test(kind) for name in names if (test := getattr(types, f"is_{name}", None)))
