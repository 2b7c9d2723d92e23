"""A tower in two halves: both together are the whole, and only the top learns."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from distilvl.config import StudentConfig
from distilvl.errors import DistilvlError
from distilvl.students import DualEncoder, build_student
from distilvl.students.cut import depthwise_kernels, layers_of
from distilvl.training.distributed import start_fabric
from distilvl.training.student import store_texts_of

TEXT = {"kind": "static", "vocabulary": 150, "rank": 8}
VIT: dict[str, Any] = {
    "config": {"model_type": "vit", "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
               "intermediate_size": 64, "image_size": 32, "patch_size": 8},
    "size": 32, "pooling": "mean",
}  # fmt: skip
CNN: dict[str, Any] = {
    "config": {"model_type": "mobilenet_v2", "depth_multiplier": 0.35, "image_size": 32},
    "size": 32,
    "pooling": "pooler",
}


def encoder_of(image: dict[str, Any]) -> DualEncoder:
    torch.manual_seed(0)
    config = StudentConfig.model_validate({"image": image, "text": TEXT})
    return DualEncoder(build_student(config, 8, ["a dog"])).eval()


def pixels(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("image", [VIT, CNN], ids=["vit", "cnn"])
@pytest.mark.parametrize("layers", [1, 2])
def test_both_halves_are_the_whole_with_the_same_gradients(image: dict[str, Any], layers: int) -> None:
    encoder = encoder_of(image)
    whole = deepcopy(encoder)
    encoder.cut_image_tower(layers)
    rows = encoder.store_images(pixels(3))
    assert encoder.cut is not None
    assert rows.shape == (3, encoder.cut.width)
    z, expected = encoder.encode_images(rows), whole.encode_images(pixels(3))
    torch.testing.assert_close(z, expected, rtol=0, atol=1e-5)
    z.square().mul(torch.arange(8.0)).sum().backward()
    expected.square().mul(torch.arange(8.0)).sum().backward()
    learning = {name for name, weight in encoder.named_parameters() if weight.requires_grad and "image" in name}
    for name, weight in whole.named_parameters():
        if name in learning:
            found = encoder.get_parameter(name).grad
            assert found is not None
            torch.testing.assert_close(found, weight.grad, rtol=1e-3, atol=1e-6)
    assert 0 < len(learning) < sum("image" in name for name, _ in whole.named_parameters())


TEXTS: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
             "intermediate_size": 32, "max_position_embeddings": 64},
    "distilbert": {"model_type": "distilbert", "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32,
                   "max_position_embeddings": 64},
    "modernbert": {"model_type": "modernbert", "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
                   "intermediate_size": 32, "max_position_embeddings": 64, "pad_token_id": 0},
    "gpt2": {"model_type": "gpt2", "n_embd": 16, "n_layer": 3, "n_head": 2, "n_inner": 32, "n_positions": 64},
    "t5": {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 3, "num_heads": 2},
}  # fmt: skip
CAPTIONS = ["a dog", "two dogs run on a wide beach", "dog"]


def with_text(kind: str) -> DualEncoder:
    torch.manual_seed(0)
    text = {"config": TEXTS[kind], "vocabulary": 120, "pooling": "mean"}
    return DualEncoder(build_student(StudentConfig.model_validate({"image": VIT, "text": text}), 8, CAPTIONS)).eval()


@pytest.mark.parametrize("kind", ["bert", "distilbert", "modernbert"])
@pytest.mark.parametrize("layers", [1, 2])
def test_both_halves_of_a_text_tower_are_the_whole_with_the_same_gradients(kind: str, layers: int) -> None:
    encoder = with_text(kind)
    whole = deepcopy(encoder)
    encoder.cut_text_tower(layers)
    tokens = encoder.tokenize_all(CAPTIONS)
    found = store_texts_of(start_fabric("cpu", "32-true"), encoder, tokens)
    assert [len(found), found.padded([1, 2])[0].shape[2]] == [3, 16]
    rows, mask = found.padded([1, 2])
    assert mask.sum(1).tolist() == tokens.lengths[[1, 2]].tolist()
    z, expected = encoder.encode_texts(rows, mask), whole.encode_texts(*whole.pad([tokens[1], tokens[2]]))
    torch.testing.assert_close(z, expected, rtol=0, atol=2e-3)  # rows lie in half precision
    z.square().mul(torch.arange(8.0)).sum().backward()
    expected.square().mul(torch.arange(8.0)).sum().backward()
    learning = {name for name, weight in encoder.named_parameters() if weight.requires_grad and "text" in name}
    assert 0 < len(learning) < sum("text" in name for name, _ in whole.named_parameters())
    for name, weight in whole.named_parameters():
        if name in learning and weight.grad is not None:
            grad = encoder.get_parameter(name).grad
            assert grad is not None
            torch.testing.assert_close(grad, weight.grad, rtol=0.05, atol=2e-3)


@pytest.mark.parametrize("kind", ["gpt2", "t5"])  # positions are added between layers, or come from the first one
def test_a_text_tower_that_is_no_chain_of_layers_is_refused(kind: str) -> None:
    with pytest.raises(DistilvlError, match=r"the text tower cannot be cut there.*student\.text\.trainable_layers"):
        with_text(kind).cut_text_tower(1)


def test_text_layers_that_are_not_there_are_refused() -> None:
    with pytest.raises(DistilvlError, match="the text tower has 4 layers"):
        with_text("bert").cut_text_tower(4)
    with pytest.raises(DistilvlError, match="a table without layers"):
        encoder_of(VIT).cut_text_tower(1)


def test_no_weight_is_there_twice_and_a_copy_is_cut_on_its_own() -> None:
    encoder = encoder_of(VIT)
    names = [name for name, _ in encoder.named_parameters(remove_duplicate=False)]
    encoder.cut_image_tower(1)
    assert [name for name, _ in encoder.named_parameters(remove_duplicate=False)] == names
    other, rows = deepcopy(encoder), encoder.store_images(pixels(2))
    before = encoder.encode_images(rows)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(0.5)
    torch.testing.assert_close(encoder.encode_images(rows), before, rtol=0, atol=0)
    assert not torch.allclose(other.encode_images(rows), before)


def test_dropout_hides_outputs_from_the_head_in_training_only() -> None:
    encoder = encoder_of(VIT)
    encoder.cut_image_tower(1)
    encoder.image_dropout = 0.5
    rows = encoder.store_images(pixels(2))
    assert torch.equal(encoder.encode_images(rows), encoder.encode_images(rows))
    encoder.train()
    assert not torch.equal(encoder.encode_images(rows), encoder.encode_images(rows))


def test_depthwise_kernels_stay_and_the_other_weights_of_the_top_learn() -> None:
    encoder = encoder_of(CNN)
    encoder.cut_image_tower(2)
    kernels = depthwise_kernels(encoder.head("image").tower)
    assert kernels
    assert not any(kernel.requires_grad for kernel in kernels)
    encoder.encode_images(encoder.store_images(pixels(3))).square().sum().backward()
    assert all(kernel.grad is None for kernel in kernels)
    top = {id(weight) for layer in layers_of(encoder.head("image").tower) for weight in layer}
    convolutions = [m for m in encoder.head("image").tower.modules() if isinstance(m, nn.Conv2d) and m.groups == 1]
    assert any(id(convolution.weight) in top for convolution in convolutions)


def test_too_many_layers_are_refused() -> None:
    with pytest.raises(DistilvlError, match="trainable_layers is 9, and the image tower has 4 layers"):
        encoder_of(VIT).cut_image_tower(9)
