"""What a store says was left out: of each source, after a repair, of merged stores, and of views of several."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from distilvl.data import PairDataset
from distilvl.data.left_out import LEFT_OUT_NAME, MISSING, NO_CAPTION, NOT_DECODED, LeftOut, read_left_out
from distilvl.extraction import extract_features
from distilvl.extraction import work as image_calls
from distilvl.features import FeatureStore, merge_stores, store_info


def _spoil(pictures: PairDataset) -> PairDataset:
    """One damaged, one gone, and one that the reader left out."""
    Path(pictures[2].image.name).write_bytes(b"no image")
    Path(pictures[3].image.name).unlink()
    passed = LeftOut()
    passed.add(NO_CAPTION, "bare.png")
    return PairDataset(pictures.name, pictures.records, passed)


def test_a_store_says_what_was_left_out_until_it_is_repaired(teacher, pictures, tmp_path) -> None:
    data, store = _spoil(pictures), tmp_path / "store"
    for _ in range(2):
        report = extract_features(teacher, data, store, skip_bad=True, shard_size=4)
        assert report.left_out.counts == {NO_CAPTION: 1, NOT_DECODED: 1, MISSING: 1}
        assert read_left_out(store) == {pictures.name: report.left_out}
    assert report.skipped == [pictures[2].image.name, pictures[3].image.name]
    for k in (2, 3):
        Image.new("RGB", (6, 4), (k, 9, 9)).save(pictures[k].image.name)
    report = extract_features(teacher, PairDataset(pictures.name, pictures.records), store, shard_size=4)
    assert not report.left_out
    assert not (store / LEFT_OUT_NAME).exists()


def test_of_two_parts_of_the_data_a_store_remembers_both(teacher, pictures, tmp_path) -> None:
    data, store = _spoil(pictures), tmp_path / "store"
    parts = [PairDataset(data.name, data.records[part], data.left_out) for part in (slice(3), slice(3, None))]
    for part, source in zip(parts, ("photos (train)", "photos (val)"), strict=True):
        extract_features(teacher, part, store, skip_bad=True, source=source)
    left_out = FeatureStore.open(store).left_out
    assert left_out.counts == {NO_CAPTION: 1, NOT_DECODED: 1, MISSING: 1}, "both know of the one without a caption"


def test_a_merged_store_and_a_view_of_several_say_what_any_of_them_left_out(teacher, pictures, tmp_path) -> None:
    data = _spoil(pictures)
    paths = [tmp_path / "one", tmp_path / "two"]
    for path, part in zip(paths, (slice(3), slice(3, None)), strict=True):
        extract_features(teacher, PairDataset("photos", data.records[part]), path, skip_bad=True)
    for _ in range(2):
        merged = merge_stores(paths, tmp_path / "merged").left_out
        assert merged.counts == {NOT_DECODED: 1, MISSING: 1}
    assert FeatureStore.open(f"concat:{paths[0]},{paths[1]}").left_out.counts == merged.counts
    info = store_info(tmp_path / "merged")
    assert info.as_dict()["left_out"] == merged.as_dict()
    assert f"left out: 1 ({MISSING}): {pictures[3].image.name}" in str(info)


def test_a_store_of_whole_data_has_no_such_file_and_an_old_one_opens(teacher, pictures, tmp_path) -> None:
    extract_features(teacher, pictures, tmp_path / "store")
    assert not (tmp_path / "store" / LEFT_OUT_NAME).exists()
    assert not FeatureStore.open(tmp_path / "store").left_out


def test_a_finished_store_is_not_written_to(teacher, pictures, tmp_path) -> None:
    extract_features(teacher, pictures, tmp_path / "store")
    data = _spoil(pictures)
    report = extract_features(str(tmp_path / "store"), data, tmp_path / "out", skip_bad=True)
    assert len(report.left_out) == 3
    assert not (tmp_path / "store" / LEFT_OUT_NAME).exists()
    assert not (tmp_path / "out").exists()


def test_images_that_vanish_between_the_two_readings_are_counted(teacher, pictures, tmp_path, monkeypatch) -> None:
    real, gone = image_calls._decoded, pictures[5].image.name

    def vanishing(source, key):
        if source.name == gone:
            Path(gone).unlink(missing_ok=True)
        return real(source, key)

    monkeypatch.setattr(image_calls, "_decoded", vanishing)
    report = extract_features(teacher, pictures, tmp_path / "store", skip_bad=True)
    assert report.left_out.names == {MISSING: [gone]}
