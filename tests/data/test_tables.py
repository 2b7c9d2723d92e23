from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.data import load_dataset
from distilvl.data.left_out import MALFORMED, MISSING, NO_CAPTION
from distilvl.data.listing import BLANK, DUPLICATE, NO_TEXT, OUTSIDE, split_of
from distilvl.data.tables import decode_text, read_folder, read_lines, read_text
from distilvl.errors import BadImageError, DistilvlError


def jsonl(folder: Path, *lines: object) -> Path:
    path = folder / "captions.jsonl"
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def csv(folder: Path, text: str) -> Path:
    path = folder / "captions.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_jsonl(folder: Path):
    path = jsonl(
        folder,
        {"image": "b.png", "captions": ["one", "two"]},
        "\n",
        {"image": "sub/d.png", "caption": "three", "image_id": "dee"},
        {"image": "b.png", "caption": "four"},
    )
    dataset = read_folder(path)
    assert dataset.name == "album"
    assert [(record.image_id, record.captions) for record in dataset] == [
        ("b.png", ("one", "two", "four")),
        ("dee", ("three",)),
    ]
    assert dataset[0].caption_ids == ("b.png#0", "b.png#1", "b.png#2")
    assert [record.split for record in dataset] == [split_of("b.png"), split_of("dee")]
    assert dataset[1].image.read() == (folder / "sub" / "d.png").read_bytes()


def test_csv(folder: Path):
    text = '\ufeffimage,caption,split\na.png,"one, two\nlines",train\nb.png,three,val\na.png,four,\n'
    dataset = read_folder(csv(folder, text))
    assert [(record.image_id, record.captions, record.split) for record in dataset] == [
        ("a.png", ("one, two\nlines", "four"), "train"),
        ("b.png", ("three",), "val"),
    ]


def test_tsv_takes_quotes_as_letters(folder: Path):
    path = folder / "captions.tsv"
    path.write_text(
        'image\tcaption\tsplit\r\na.png\ta 12" disc, black\tval\r\nb.png\t"half\ttest\r\n', encoding="utf-8"
    )
    records = read_folder(path)
    assert [(record.captions, record.split) for record in records] == [
        (('a 12" disc, black',), "val"),
        (('"half',), "test"),
    ]
    path.write_text("image,caption\na.png,one\n")
    with pytest.raises(DistilvlError, match=r"columns image,caption \(text\): .*with tabs between"):
        read_folder(path)


def test_ten_thousand_words_are_kept(folder: Path):
    caption = " ".join(f"extraordinary{k}" for k in range(10_000))
    assert len(caption) > 131_072
    assert read_folder(csv(folder, f"image,caption\na.png,{caption}\n"))[0].captions == (caption,)


def test_control_characters_in_captions_become_spaces(folder: Path):
    path = jsonl(folder, {"image": "a.png", "captions": ["a\0dog", "\x1b[1mloud\x1b[0m", "tab\tline\nkept", "\x07"]})
    assert read_folder(path)[0].captions == ("a dog", " [1mloud [0m", "tab\tline\nkept")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_marked_encodings(folder: Path, encoding: str):
    (folder / "captions.csv").write_bytes("image,caption\r\na.png,Käse und 猫\r\n".encode(encoding))
    assert read_folder(folder / "captions.csv")[0].captions == ("Käse und 猫",)


def test_csv_with_ids_and_without_splits(folder: Path):
    dataset = read_folder(csv(folder, "image_id,image,caption\n7,a.png,one\n,b.png,two\n"))
    assert [record.image_id for record in dataset] == ["7", "b.png"]
    assert dataset[0].split == split_of("7")


def test_line_separators_inside_a_caption(folder: Path):
    path = folder / "captions.jsonl"
    path.write_text('{"image": "a.png", "caption": "one\u2028two\x85three"}\r\n', encoding="utf-8")
    assert read_folder(path)[0].captions == ("one\u2028two\x85three",)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"image": "a.png"', "line 2 is not valid JSON"),
        ("[1]\n", "line 2 is not an object"),
        ('{"image": "b.png", "captions": "one"}\n', "line 2: 'captions' is not a list"),
        ('{"image": "b.png", "captions": [1]}\n', "line 2: the caption is 1, not a string"),
        ('{"image": "b.png", "caption": null}\n', "image 'b.png' in album has no captions .*--skip-bad"),
        ('{"caption": "one"}\n', "line 2: the image is None, not a file name"),
        ('{"image": "../b.png", "caption": "one"}\n', r"line 2: .*leaves the image folder"),
        ('{"image": "b.png"}\n', "image 'b.png' in album has no captions"),
        ('{"image": "b.png", "caption": "x", "image_id": "a.png"}\n', "duplicate image_id 'a.png'"),
        ('{"image": "a.png", "caption": "x", "image_id": "y"}\n', None),
        (
            '{"image": "b.png", "caption": "x", "split": "val"}\n',
            "image 'a.png' has no split, but others have",
        ),
        ('{"image": "b.png", "caption": "x", "split": ["val"]}\n', "line 2: 'split' is not a name"),
    ],
)
def test_bad_lines(folder: Path, line: str, words: str | None):
    path = jsonl(folder, {"image": "a.png", "caption": "one"}, line)
    if words is None:
        assert read_folder(path)[0].image_id == "y"
        return
    with pytest.raises(DistilvlError, match=words) as caught:
        read_folder(path)
    assert "\n" not in str(caught.value)


def test_lines_that_contradict_each_other(folder: Path):
    first = {"image": "a.png", "caption": "one", "split": "val"}
    with pytest.raises(DistilvlError, match="line 2: split 'test' contradicts 'val'"):
        read_folder(jsonl(folder, first, {**first, "split": "test"}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "columns none"),
        ("a.png,one\n", r"has the columns a.png \(text\), one \(text\)"),
        ("image,caption\na.png\n", "line 2 has not the 2 columns"),
        ("image,caption\na.png,one,two\n", "line 2 has not the 2 columns"),
        ('image,caption\na.png,"one\n', "captions.csv, line"),
        ("image,caption\n,one\n", "line 2: the image is None"),
        ("image,caption\n", "album has no images"),
    ],
)
def test_bad_csv(folder: Path, text: str, words: str):
    with pytest.raises(DistilvlError, match=words):
        read_folder(csv(folder, text))


def test_missing_files(folder: Path):
    path = csv(folder, "image,caption\na.png,one\ngone.png,two\n")
    with pytest.raises(BadImageError, match=r"gone\.png is missing \(1 of 2"):
        read_folder(path)
    assert len(read_folder(path, skip_bad=True)) == 1


def test_all_files_missing(folder: Path):
    with pytest.raises(DistilvlError, match="album has no images"):
        read_folder(csv(folder, "image,caption\ngone.png,two\n"), skip_bad=True)


def test_not_utf8(folder: Path):
    (folder / "captions.csv").write_bytes("image,caption\na.png,Käse\n".encode("latin-1"))
    with pytest.raises(DistilvlError, match=r"captions\.csv, line 2 is not UTF-8 text"):
        read_folder(folder / "captions.csv")


def test_splits_go_by_their_usual_names(folder: Path):
    names = {"a.png": "training", "b.png": "validation", "c.png": "dev", "sub/d.png": "restval"}
    lines = [{"image": name, "caption": "one", "split": split} for name, split in names.items()]
    assert [record.split for record in read_folder(jsonl(folder, *lines))] == ["train", "val", "val", "train"]
    text = "".join(f"{name},one,{split}\n" for name, split in names.items())
    assert read_folder(csv(folder, f"image,caption,split\n{text}")).splits == {"train": 2, "val": 2}


def test_a_column_that_is_named_twice(folder: Path):
    with pytest.raises(DistilvlError, match=r"captions\.csv has the column 'caption' twice"):
        read_folder(csv(folder, "image,caption,caption\na.png,one,two\n"))


def test_a_name_that_is_too_long_for_a_file_is_a_missing_image(folder: Path):
    path = jsonl(folder, {"image": "a.png", "caption": "one"}, {"image": "b" * 5000, "caption": "two"})
    with pytest.raises(BadImageError, match=r"is missing \(1 of 2"):
        read_folder(path)
    assert len(read_folder(path, skip_bad=True)) == 1


@pytest.mark.parametrize("key", ["image", "image_id", "split"])
def test_names_of_half_a_character(folder: Path, key: str):
    line = {"image": "a.png", "caption": "one", key: "\ud800"}
    with pytest.raises(DistilvlError, match=r"line 1: .*not a (file )?name"):
        read_folder(jsonl(folder, line))


@pytest.mark.parametrize(
    "text",
    [
        'image;caption;n\r\na.png;one, two;1,5\r\nb.png;"x; y";2\r\n',
        "sep=;\nimage;caption;n\na.png;one, two;1\nb.png;x; y;2\n".replace("x; y", '"x; y"'),
        "image\tcaption\na.png\tone, two\nb.png\tx; y\n",
        "image| caption\na.png|one, two\nb.png|x; y\n",
        '\ufeffImage;CAPTION\na.png;one, two\nb.png;"x; y"\n',
    ],
)
def test_what_stands_between_columns_is_found(folder: Path, text: str):
    assert [record.captions for record in read_folder(csv(folder, text))] == [("one, two",), ("x; y",)]


def test_columns_by_name(folder: Path):
    (folder / "photos.csv").write_text("FILE;TITLE;TEXT;PART;KEY\na.png;one;two;training;7\n")
    source = f"{folder}/photos.csv?image=FILE&caption=TITLE&caption=TEXT&split=PART&image_id=KEY"
    record = load_dataset(source)[0]
    assert (record.captions, record.split, record.image_id) == (("one", "two"), "train", "7")
    with pytest.raises(DistilvlError, match=r"not 'NAME'\. Name another image column"):
        load_dataset(f"{folder}/photos.csv?image=NAME&caption=TITLE")
    with pytest.raises(DistilvlError, match=r"no option 'colour'\. It takes image, caption"):
        load_dataset(f"{folder}/photos.csv?colour=red")
    (folder / "photos.csv").rename(folder / "captions.csv")
    assert load_dataset(f"{folder}?image=FILE&caption=TITLE")[0].captions == ("one",)


def test_keys_of_json_lines(folder: Path):
    usual = jsonl(folder, {"file_name": "a.png", "text": "one"}, {"image": "b.png", "caption": "two"})
    assert [record.captions for record in read_folder(usual)] == [("one",), ("two",)]
    path = jsonl(folder, {"pic": "a.png", "words": ["one", "two"]})
    with pytest.raises(DistilvlError, match=r"columns pic \(text\), words \(text\): none of them holds images"):
        read_folder(path)
    assert load_dataset(f"{path}?image=pic&caption=words")[0].captions == ("one", "two")


def test_a_root_and_absolute_paths(folder: Path, tmp_path: Path):
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "x.csv").write_text(f"image,caption\n{folder}/a.png,one\nsub/d.png,two\n{folder}/sub/d.png,three\n")
    with pytest.raises(DistilvlError, match=rf"line 2: .* leaves the image folder .*\?root={folder}"):
        load_dataset(lists / "x.csv")
    dataset = load_dataset(f"{lists}/x.csv?root={folder}")
    assert {record.image_id: record.captions for record in dataset} == {
        "a.png": ("one",),
        "sub/d.png": ("two", "three"),
    }
    assert dataset[1].image.read() == (folder / "sub" / "d.png").read_bytes()


def test_with_skip_bad_every_bad_line_is_left_out_and_counted(folder: Path):
    lines = [
        *({"image": "a.png", "captions": ["one", None, " "]}, {"image": "b.png", "caption": None}, "{\n", [1]),
        *({"image": "c.png", "captions": []}, {"image": "c.png", "caption": 3}, {"image": "gone.png", "caption": "x"}),
        *({"image": "/etc/x.png", "caption": "x"}, {"image": "sub/d.png", "caption": "x", "image_id": "a.png"}),
    ]
    dataset = read_folder(jsonl(folder, *lines), skip_bad=True)
    assert [(record.image_id, record.captions) for record in dataset] == [("a.png", ("one",))]
    assert dataset.left_out.counts == {
        MALFORMED: 2,
        NO_TEXT: 1,
        OUTSIDE: 1,
        BLANK: 2,
        NO_CAPTION: 2,
        MISSING: 1,
        DUPLICATE: 1,
    }
    where = dataset.left_out.names[MALFORMED]
    assert [name.rpartition(", ")[2] for name in where] == ["line 3", "line 4"]


def test_one_bad_quote_does_not_cost_the_rest(folder: Path):
    path = csv(folder, 'image,caption\na.png,"one"x\nb.png,two\nc.png,"three\nsub/d.png,four\n')
    with pytest.raises(DistilvlError, match=r"line 2: .* \(2 such in album\)\..*--skip-bad"):
        read_folder(path)
    dataset = read_folder(path, skip_bad=True)
    assert [record.image_id for record in dataset] == ["b.png"]
    assert [name.partition(", ")[2] for name in dataset.left_out.names[MALFORMED]] == ["line 2", "lines 4 to 5"]


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
