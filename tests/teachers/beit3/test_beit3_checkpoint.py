from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from distilvl.errors import DistilvlError
from distilvl.teachers.beit3 import load_checkpoint
from distilvl.teachers.beit3.network import Beit3Config, Beit3Retrieval


def test_sizes_follow_from_the_shapes(checkpoint: Path, weights: dict[str, Tensor], small: Beit3Config):
    network = load_checkpoint(checkpoint)
    assert network.config == small
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0)


@pytest.mark.parametrize("image_size", [16, 96, 480])
def test_image_size_follows_from_the_positions(image_size: int, small: Beit3Config, tmp_path: Path):
    network = Beit3Retrieval(replace(small, image_size=image_size, vocabulary=20, layers=1))
    torch.save({"model": network.state_dict()}, tmp_path / "a.pth")
    assert load_checkpoint(tmp_path / "a.pth").config.image_size == image_size


def test_other_layouts(weights: dict[str, Tensor], tmp_path: Path):
    """DeepSpeed's key, no key, a file of the time before zip, half precision, safetensors."""
    torch.save({"module": weights}, tmp_path / "deepspeed.pth")
    torch.save(weights, tmp_path / "bare.pth")
    torch.save({"model": weights}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"model": {name: value.half() for name, value in weights.items()}}, tmp_path / "half.pth")
    save_file(weights, tmp_path / "safe.safetensors")
    for path in sorted(tmp_path.iterdir()):
        network = load_checkpoint(path)
        assert {value.dtype for value in network.state_dict().values()} == {torch.float32}
        torch.testing.assert_close(network.vision_head.weight, weights["vision_head.weight"], atol=1e-3, rtol=1e-3)


def test_what_fine_tuning_keeps_beside_the_weights(weights: dict[str, Tensor], tmp_path: Path):
    others = {"args": argparse.Namespace(lr=1e-4), "epoch": 3, "optimizer": {"state": {0: torch.zeros(3)}}}
    torch.save({"model": {**weights, "mlm_head.weight": torch.zeros(2)}, **others}, tmp_path / "tuned.pth")
    load_checkpoint(tmp_path / "tuned.pth")


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('code of a checkpoint was run')",))


def test_nothing_in_a_checkpoint_is_run(weights: dict[str, Tensor], tmp_path: Path):
    torch.save({"model": weights, "args": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(DistilvlError, match=r"evil\.pth is not a checkpoint of tensors and plain values") as caught:
        load_checkpoint(tmp_path / "evil.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut off"])
def test_broken_file(content: bytes, tmp_path: Path):
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(DistilvlError, match="is not a checkpoint of tensors"):
        load_checkpoint(tmp_path / "broken.pth")


def test_missing_file(tmp_path: Path):
    with pytest.raises(DistilvlError, match=r"cannot read the checkpoint .*none\.pth"):
        load_checkpoint(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("removed", "words"),
    [
        ("vision_head.weight", r"has no vision_head\.weight \(1 of"),
        ("beit3.text_embed.weight", "is not a BEiT-3 checkpoint: it has no 'beit3.text_embed"),
        ("beit3.encoder.layers.1.ffn.B.fc2.bias", r"has no beit3\.encoder\.layers\.1\.ffn\.B\.fc2\.bias"),
    ],
)
def test_missing_weights(removed: str, words: str, weights: dict[str, Tensor], tmp_path: Path):
    del weights[removed]
    torch.save({"model": weights}, tmp_path / "lacking.pth")
    with pytest.raises(DistilvlError, match=words):
        load_checkpoint(tmp_path / "lacking.pth")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("beit3.encoder.relative_position", torch.zeros(1), "another BEiT-3 .*relative_position"),
        ("beit3.encoder.layers.0.ffn.B.fc1.bias", torch.zeros(7), r"another BEiT-3 .*layers\.0\.ffn\.B\.fc1\.bias"),
        ("beit3.encoder.embed_positions.A.weight", torch.zeros(8, 128), "5 patches are no BEiT-3's"),
        ("note", "text", "holds no named weights"),
    ],
)
def test_weights_of_another_model(name: str, value: object, words: str, weights: dict[str, object], tmp_path: Path):
    torch.save({"model": {**weights, name: value}}, tmp_path / "other.pth")
    with pytest.raises(DistilvlError, match=words):
        load_checkpoint(tmp_path / "other.pth")
