from __future__ import annotations

import pytest
import torch

from distilvl.errors import DistilvlError
from distilvl.io.specs import parse_spec
from distilvl.teachers.torch_teacher import DEFAULTS, RunOptions


def split_options(text: str) -> tuple[str, RunOptions]:
    spec = parse_spec(text, noun="teacher")
    return str(spec), RunOptions.of(spec)


@pytest.mark.parametrize(
    "spec", ["openai/clip-vit-base-patch32", "folder/with ? in it", "C:/a?b", "a?", "", "what?/a=b"]
)
def test_without_options(spec: str):
    assert split_options(spec) == (spec, DEFAULTS)


def test_all_options():
    spec, options = split_options("a/b?device=cpu&dtype=bfloat16&batch_size=7")
    assert (spec, options) == ("a/b", RunOptions("cpu", "bfloat16", 7))
    assert (options.torch_device, options.torch_dtype()) == (torch.device("cpu"), torch.bfloat16)


def test_the_last_mark_counts():
    assert split_options("what?/a?batch_size=2") == ("what?/a", RunOptions(batch_size=2))


def test_defaults():
    assert DEFAULTS.torch_dtype() == torch.float32
    assert DEFAULTS.torch_dtype(torch.float16) == torch.float16
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert DEFAULTS.torch_device.type == best


def test_the_revision_names_a_format_that_is_not_the_default():
    assert DEFAULTS.revision("abc") == RunOptions(dtype="float32").revision("abc") == "abc"
    assert RunOptions(dtype="bfloat16", device="cpu", batch_size=1).revision("abc") == "abc-bfloat16"
    assert RunOptions(dtype="float32").revision("abc", default=None) == "abc-float32"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("precision=16", "has no option 'precision'"),
        ("dtype=int8", "'dtype' is 'int8', not float32, bfloat16 or float16"),
        ("dtype=", "'dtype' is ''"),
        ("batch_size=0", "'batch_size' is '0', not a positive whole number"),
        ("batch_size=-1", "'batch_size' is '-1'"),
        ("device=toaster", "no device 'toaster'"),
    ],
)
def test_bad_options(query: str, words: str):
    with pytest.raises(DistilvlError, match=words):
        split_options(f"a/b?{query}")


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DistilvlError, match="this machine has no CUDA"):
        split_options("a/b?device=cuda:1")
