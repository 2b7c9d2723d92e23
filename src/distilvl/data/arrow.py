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
    if types.is_binary(kind) or types.is_large_binary(kind):
        return "bytes"
    if types.is_struct(kind):
        names = [kind.field(k).name for k in range(kind.num_fields)]
        return "bytes" if "bytes" in names else "text" if "raw" in names else "other"
    if types.is_string(kind) or types.is_large_string(kind):
        return "text"
    if types.is_dictionary(kind):
        return "text" if _column_type(kind.value_type, types) == "text" else "other"
    if types.is_list(kind) or types.is_large_list(kind):
        return "text" if _column_type(kind.value_type, types) == "text" else "other"
    return "number" if types.is_integer(kind) else "other"
