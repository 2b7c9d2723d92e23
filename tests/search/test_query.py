"""Filters: whatever a folder is called, its photographs and no others are found."""

from __future__ import annotations

import unicodedata
from datetime import UTC, date, datetime, timedelta
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from distilvl.errors import DistilvlError, OptionError
from distilvl.search.query import below, between
from distilvl.search.table import Photo, PhotoTable, has_id, one_of, quoted

# Letters that mean something to SQL, to patterns or to the shell, and some that do not.
_LETTERS = st.sampled_from(list("ab'\"%_\\*?;-()[]{}$`=,. \n\té日🙂"))
_NAMES = st.text(_LETTERS | st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12)


def _photo(path: str, when: datetime = datetime(2020, 1, 1)) -> Photo:
    return Photo(path, "0" * 32, 1, 1, None, when, 1, 1, b"", np.ones(1, np.float32))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> PhotoTable:
    return PhotoTable(tmp_path_factory.mktemp("index"), 1)


def _found(table: PhotoTable, *conditions: str) -> set[str]:
    return {hit.path for hit in table.nearest(np.ones(1, np.float32), conditions, 100)}


@given(st.lists(_NAMES, min_size=2, max_size=4, unique=True))
def test_a_folder_finds_its_own_photographs_and_no_others(table: PhotoTable, names: list[str]) -> None:
    assume(not {".", ".."} & set(names))
    paths = {name: f"/top/{name}/x.jpg" for name in names}
    table.delete(list(table.stamps()))
    table.write([_photo(path) for path in paths.values()], replacing=False)
    for name, path in paths.items():
        assert _found(table, below(name, ["/top"])) == {path}
        assert _found(table, one_of("path", [path])) == {path}


@given(st.text(_LETTERS, max_size=40))
def test_no_text_leaves_its_quotes(table: PhotoTable, text: str) -> None:
    table.delete(list(table.stamps()))
    table.write([_photo("/top/a.jpg"), _photo("/top/b.jpg")], replacing=False)
    assert _found(table, f"path = {quoted(text)}") == set()
    assert len(_found(table, f"path <> {quoted(text)}")) == 2


def test_a_relative_folder_is_looked_for_in_every_indexed_one(table: PhotoTable) -> None:
    table.delete(list(table.stamps()))
    paths = ["/one/x/1.jpg", "/two/x/2.jpg", "/three/x/3.jpg", "/one/xy/4.jpg", "/one/5.jpg", "/x/6.jpg"]
    table.write([_photo(path) for path in paths], replacing=False)
    assert _found(table, below("x", ["/one", "/two"])) == {"/one/x/1.jpg", "/two/x/2.jpg"}
    assert _found(table, below("x/", ["/"])) == {"/x/6.jpg"}
    assert _found(table, below("/", ["/one"])) == set(paths)
    assert _found(table, below("", ["/one"])) == {path for path in paths if path.startswith("/one/")}


def test_an_absolute_folder_is_followed_through_the_links_above_the_indexed_one(
    table: PhotoTable, tmp_path: Path
) -> None:
    # What is indexed is `photos`; it may be called by `pictures`, and has a link to a folder elsewhere.
    (tmp_path / "photos").mkdir()
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "pictures").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "elsewhere")
    paths = [f"{tmp_path}/photos/link/deep/1.jpg", f"{tmp_path}/photos/link/2.jpg", f"{tmp_path}/photos/3.jpg"]
    table.delete(list(table.stamps()))
    table.write([_photo(path) for path in paths], replacing=False)
    for top in ("photos", "pictures", "photos/../pictures"):
        assert _found(table, below(f"{tmp_path}/{top}", [])) == set(paths)
        assert _found(table, below(f"{tmp_path}/{top}/link", [])) == set(paths[:2])
        assert _found(table, below(f"{tmp_path}/{top}/link/deep/", [])) == set(paths[:1])
    assert _found(table, below(f"{tmp_path}/elsewhere", [])) == set()


def test_a_link_that_leads_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    for name in ("one", "two/x"):
        with pytest.raises(DistilvlError, match="leads to itself"):
            below(str(tmp_path / name), [])


def test_without_an_indexed_folder_nothing_is_below_any(table: PhotoTable) -> None:
    table.delete(list(table.stamps()))
    table.write([_photo("/x/1.jpg")], replacing=False)
    assert _found(table, below("x", [])) == set()
    assert _found(table, below("x", []), *between("2000", None)) == set()


@pytest.mark.parametrize("name", ["../x", "x/../..", "a\0", "\ud800", "/a\0b", "/\ud800", "/a" * 3000])
def test_names_that_no_photograph_has_are_refused(name: str) -> None:
    with pytest.raises(DistilvlError):
        below(name, ["/top"])


@pytest.mark.parametrize("key", ["", "0" * 31, "0" * 33, "A" * 32, "' OR ''='", "0" * 32 + "\n"])
def test_ids_are_hex(key: str) -> None:
    with pytest.raises(DistilvlError, match="not the id"):
        has_id(key)


_SECONDS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(lambda time: time.replace(microsecond=0))


@given(_SECONDS, _SECONDS, st.sampled_from([4, 7, 10, 16, 19]), st.sampled_from([4, 7, 10, 16, 19]))
def test_periods_begin_and_end_as_their_digits_say(
    table: PhotoTable, first: datetime, second: datetime, digits: int, more: int
) -> None:
    since, until = min(first, second).isoformat()[:digits], max(first, second).isoformat()[:more]
    # What sorts like text is a date cut off at some digit: `2020-05` begins with all the times of that month.
    times = [min(first, second), max(first, second), datetime(2020, 1, 1)]
    table.delete(list(table.stamps()))
    table.write([_photo(f"/{k}", time) for k, time in enumerate(times)], replacing=False)
    expected = {
        f"/{k}" for k, time in enumerate(times) if since <= time.isoformat() and time.isoformat()[:more] <= until
    }
    assert _found(table, *between(since, until)) == expected


def test_pythons_dates_are_taken_too() -> None:
    assert between(date(2020, 2, 28), date(2020, 2, 29)) == between("2020-02-28", "2020-02-29")
    assert between(datetime(2020, 1, 1, 10), None) == between("2020-01-01T10:00:00", None)
    assert between(None, None) == []
    assert between("2020-02", "2020-02") == between("2020-02-01", "2020-02-29")


@pytest.mark.parametrize(
    "text",
    ["", "x", "2020-13", "2020-02-30", "20", "0000", "2020-01-01T25:00", "2020'", "202001", "2020-1/1", "01.02.2020",
     "2020-01-01T10", "2020-01 10:00", "20200101T1", "yesterday", "2020-", "-2020", "２０２０", "2020-01-01T10:00:60"],
)  # fmt: skip
def test_other_texts_are_no_dates(text: str) -> None:
    for since, until, name in ((text, None, "since"), (None, text, "until")):
        with pytest.raises(OptionError, match=f"{name} is .* not a date") as caught:
            between(since, until)
        assert caught.value.option == name


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("2020/01/02", "2020-01-02"),
        ("2020.1.2", "2020-01-02"),
        ("2020:01:02", "2020-01-02"),
        ("2020-1-2", "2020-01-02"),
        ("20200102", "2020-01-02"),
        ("2020/7", "2020-07"),
        (" 2020 ", "2020"),
        ("2020:01:02 03:04:05", "2020-01-02T03:04:05"),
        ("2020-01-02t3:04", "2020-01-02T03:04"),
        ("2020-01-02T03:04:05.678", "2020-01-02T03:04:05"),
        ("20200102T03:04", "2020-01-02 03:04"),
    ],
)
def test_the_usual_spellings_of_a_date(written: str, means: str) -> None:
    assert between(written, written) == between(means, means)


@pytest.mark.parametrize(
    "value", ["2020-01-02T03:04:05Z", "2020-01-02 03:04+02:00", "2020-01-02T03:04:05.000-0700",
              datetime(2020, 1, 2, tzinfo=UTC)],
)  # fmt: skip
def test_a_time_zone_is_refused_as_photographs_have_none(value: str | datetime) -> None:
    with pytest.raises(OptionError, match="time zone"):
        between(value, None)


def test_a_folder_is_found_however_its_accents_are_composed(table: PhotoTable) -> None:
    name = "Été/Zoë à Ålesund"
    forms = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    mixed = f"{forms[0].split('/')[0]}/{forms[1].split('/')[1]}"
    paths = [f"/top/{form}/{k}.jpg" for k, form in enumerate([*forms, mixed])]
    table.delete(list(table.stamps()))
    table.write([_photo(path) for path in [*paths, "/top/Ete/Zoe a Alesund/x.jpg"]], replacing=False)
    for form in [*forms, mixed]:
        assert _found(table, below(form, ["/top"])) == set(paths)
        assert _found(table, below(f"/top/{form}", [])) == set(paths)
    root = unicodedata.normalize("NFD", "/top/Été")
    assert _found(table, below(forms[0].split("/")[1], [root])) == set(paths)


def test_an_end_before_the_beginning_is_refused() -> None:
    with pytest.raises(DistilvlError, match="no time"):
        between(date.today(), date.today() - timedelta(days=1))


def test_prefixes_do_not_double_the_slash() -> None:
    assert below("a/b/", ["/top/"]) == below("a/b", ["/top"])
    assert str(PurePosixPath("/top/a/b")) in below("a/b", ["/top"])
