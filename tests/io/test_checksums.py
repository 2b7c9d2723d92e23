from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.errors import DistilvlError
from distilvl.io.checksums import SUMS_NAME, check_sums, sealed, unsealed, write_sums

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "weights").write_bytes(bytes(range(256)))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("a card")
    write_sums(tmp_path)
    return tmp_path


def test_a_folder_as_it_was_written_is_taken(folder: Path) -> None:
    check_sums(folder)
    (folder / "README.md").write_text("people write into cards")
    (folder / "more").write_text("and put files beside")
    check_sums(folder)
    subprocess.run(["sha256sum", "-c", "--quiet", SUMS_NAME], cwd=folder, check=True)


@pytest.mark.parametrize("name", ["deep/weights", "config.json", SUMS_NAME])
def test_a_changed_byte_is_told_with_the_file_and_the_remedy(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[1] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(DistilvlError, match=rf"{name.split('/')[-1]}.*delete .*{SUMS_NAME}"):
        check_sums(folder)


def test_a_missing_file_is_told_and_a_folder_without_sums_is_taken(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(DistilvlError, match=r"cannot read .*config\.json"):
        check_sums(folder)
    (folder / SUMS_NAME).unlink()
    check_sums(folder)


@given(st.dictionaries(st.text().filter(lambda name: name != "checksum"), VALUES, max_size=4))
def test_values_come_back_from_their_seal(values: dict[str, object]) -> None:
    assert unsealed(sealed(values)) == values
    assert unsealed(values) == values
    with pytest.raises(ValueError, match="checksum"):
        unsealed({**sealed(values), "one more": 1})
