"""Nearest rows of a LanceDB table: exactly, or with a vector index where the table is large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

EXACT_ROWS = 100_000
"""Up to so many rows, of the table or of what a filter leaves of it, every one is compared with the query."""

# Every partition is looked at: a query in words lies far from all pictures, so that no few partitions are sure to hold
# what is nearest to it. The scan of one byte a number is what saves the time; the best are compared again exactly.
_ROWS_A_PARTITION = 8192
_EVERY_PARTITION = 1 << 20
_COMPARED_AGAIN = 5  # times `top`


def train_index(table: Any, rows: int) -> None:
    """Make the vector index of a table of so many rows, in the place of any that it has."""
    from lancedb.index import IvfSq

    partitions = max(1, rows // _ROWS_A_PARTITION)
    table.create_index("vector", config=IvfSq(distance_type="dot", num_partitions=partitions))


def nearest(
    table: Any, vector: npt.NDArray[np.float32], where: str, top: int, columns: Sequence[str]
) -> list[tuple[dict[str, Any], float]]:
    """The rows with the largest inner product with `vector`, and that product.

    Args:
        table: LanceDB's.
        vector: unit row (D,).
        where: condition that all rows must meet, in SQL; empty for none.
        top: how many; fewer where fewer meet the condition.
        columns: of each row.
    """
    query = table.search(vector, vector_column_name="vector").distance_type("dot").limit(top)
    if where:
        query = query.where(where, prefilter=True)
    if table.count_rows(where or None) <= EXACT_ROWS:
        query = query.bypass_vector_index()
    else:
        query = query.nprobes(_EVERY_PARTITION).refine_factor(_COMPARED_AGAIN)
    rows = query.select([*columns, "_distance"]).to_list()
    return [(row, 1.0 - row.pop("_distance")) for row in rows]
