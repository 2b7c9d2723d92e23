from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from distilvl.teachers.beit3.network import Beit3Config, Beit3Retrieval, base, large


def network_of(recipe: ModuleType, config: Beit3Config) -> Beit3Retrieval:
    network = Beit3Retrieval(config).eval()
    network.load_state_dict({name: recipe.weight(name, tuple(old.shape)) for name, old in network.state_dict().items()})
    return network


@pytest.mark.parametrize("image_size", [32, 64])
@torch.inference_mode()
def test_rows_are_torchscales(recipe: ModuleType, answers: dict[str, Any], small: Beit3Config, image_size: int):
    network = network_of(recipe, replace(small, image_size=image_size))
    tokens = torch.tensor(recipe.TOKENS)
    expected = answers["answers"][str(image_size)]
    images = network.image_features(recipe.pixels(image_size)).numpy()
    texts = network.text_features(tokens, tokens == recipe.PAD).numpy()
    np.testing.assert_allclose(images, expected["image"], atol=1e-5)
    np.testing.assert_allclose(texts, expected["text"], atol=1e-5)
    # Unlike rows, or the comparison would mean little.
    for rows in (images, texts):
        assert np.abs(np.triu(rows @ rows.T, 1)).max() < 0.9


@torch.inference_mode()
def test_padding_changes_nothing(recipe: ModuleType, small: Beit3Config):
    network = network_of(recipe, small)
    tokens = torch.tensor([recipe.TOKENS[0]])
    alone = network.text_features(tokens[:, :6], torch.zeros(1, 6, dtype=torch.bool))
    np.testing.assert_allclose(network.text_features(tokens, tokens == recipe.PAD), alone, atol=1e-6)


@pytest.mark.parametrize("image_size", [224, 384, 480])
@pytest.mark.parametrize("make", [base, large], ids=["base", "large"])
def test_keys_shapes_and_counts_of_the_released_models(make: Any, image_size: int, answers: dict[str, Any]):
    released = answers["models"][f"{make.__name__}-{image_size}"]
    with torch.device("meta"):
        network = Beit3Retrieval(make(image_size))
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    expected = {
        name.replace("*", str(layer)): shape
        for name, shape in released["shapes"].items()
        for layer in range(released["layers"])
    }
    assert shapes == expected
    assert sum(parameter.numel() for parameter in network.parameters()) == released["parameters"]


def test_counts_are_those_that_were_published(answers: dict[str, Any]):
    """In millions, for retrieval at 384 pixels: 222 and 675 (README of microsoft/unilm/beit3)."""
    counts = {name: round(model["parameters"] / 1e6) for name, model in answers["models"].items()}
    assert (counts["base-384"], counts["large-384"]) == (222, 675)
