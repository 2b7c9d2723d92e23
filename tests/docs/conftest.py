"""The workshop that all pages share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from workshop import Workshop


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """Opened once; that takes some fifteen seconds."""
    opened = Workshop(tmp_path_factory.mktemp("docs"))
    try:
        yield opened
    finally:
        opened.close()
