from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.data.tables import decode_text, read_lines, read_text
from distilvl.errors import DistilvlError

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16")


@given(
    text=st.text(st.sampled_from("ab \t\r\n\v\f\x85\u2028é漢🐕"), max_size=30),
    encoding=st.sampled_from(ENCODINGS),
)
def test_lines_are_those_of_the_whole_text(text: str, encoding: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    path.write_bytes(text.encode(encoding))
    whole = read_text(path)
    assert whole == text.replace("\r\n", "\n").replace("\r", "\n")
    lines = list(read_lines(path))
    assert "".join(lines) == whole
    assert [line.removesuffix("\n") for line in lines] == [*whole.split("\n")][: len(lines)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_bytes_that_are_no_text_are_named_by_line_and_byte_wherever_they_are(tmp_path: Path, encoding: str) -> None:
    path, good = tmp_path / "list.txt", "fine\n" * 5000
    bad = b"\xe9\n" if encoding == "utf-8" else b"\x00\xd8\x0a\x00"
    mark = b"" if encoding == "utf-8" else b"\xff\xfe"
    path.write_bytes(mark + good.encode(encoding) + bad)
    read = []
    with pytest.raises(DistilvlError, match=r"list\.txt, line 5001 is not UTF-(8|16) text \(byte \d+ is 0x") as caught:
        read += list(read_lines(path))
    with pytest.raises(DistilvlError) as whole:
        decode_text(path.read_bytes(), str(path))
    assert str(caught.value) == str(whole.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DistilvlError, match=r"cannot read .*nothing\.txt"):
        next(read_lines(tmp_path / "nothing.txt"))
