"""Peak memory and processor time of one step of a ViT of 12 layers: whole, in chunks, with recomputed activations.

    python benchmarks/step_memory.py [--batch 64]

Each way runs in a process of its own, on the CPU, since a process's peak never falls. Memory is the peak resident size
less what the process holds before the step.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViTConfig, ViTModel

from distilvl.objectives import InfoNCE
from distilvl.training.gradcache import ChunkedEncoder

WAYS = {"whole": (1, False), "gradcache_chunks=8": (8, False), "checkpoint_activations": (1, True), "both": (8, True)}
SIZE, WIDTH, TEXT_WIDTH = 112, 192, 8


class Towers(nn.Module):
    """The ViT, and a layer in place of a text tower."""

    def __init__(self) -> None:
        super().__init__()
        config = ViTConfig(hidden_size=WIDTH, num_hidden_layers=12, num_attention_heads=3, intermediate_size=4 * WIDTH,
                           image_size=SIZE, patch_size=16)  # fmt: skip
        self.image, self.text = ViTModel(config, add_pooling_layer=False), nn.Linear(TEXT_WIDTH, WIDTH)

    def forward(self, images: Tensor, texts: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Unit rows (B, D) and (N, D)."""
        pooled = self.image(images).last_hidden_state[:, 0]
        return F.normalize(pooled, dim=1), F.normalize(self.text(texts), dim=1)


def peak() -> float:
    """Peak resident size so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(chunks: int, checkpointed: bool, batch: int) -> dict[str, float]:
    """One step in this process."""
    torch.manual_seed(0)
    towers = Towers().train()
    if checkpointed:
        enable = getattr(towers.image, "activation_checkpointing_enable", towers.image.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
    fabric = Fabric(accelerator="cpu", devices=1)
    passes = ChunkedEncoder(fabric, fabric.setup(towers), chunks)
    images, texts = torch.randn(batch, 3, SIZE, SIZE), torch.randn(batch, TEXT_WIDTH)
    before, started = peak(), time.process_time()
    z_image, z_text = passes.encode(images, texts, None, (batch, batch))
    loss = InfoNCE()(z_image, z_text, torch.arange(batch))
    passes.backward(loss)
    norms = [parameter.grad.norm() for parameter in towers.parameters() if parameter.grad is not None]
    return {
        "peak_mb": peak() - before,
        "cpu_s": time.process_time() - started,
        "loss": float(loss.detach()),
        "gradient_norm": float(torch.stack(norms).norm()),
    }


def main() -> None:
    """Print one line a way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--way", choices=WAYS, help="measure this one, in this process")
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(*WAYS[args.way], args.batch)))
        return
    print("| way | peak, MB | CPU, s | loss | gradient norm |\n|---|---|---|---|---|")
    for way in WAYS:
        command = [sys.executable, __file__, "--batch", str(args.batch), "--way", way]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print("| {} | {peak_mb:.0f} | {cpu_s:.1f} | {loss:.6f} | {gradient_norm:.6f} |".format(way, **found))


if __name__ == "__main__":
    main()
