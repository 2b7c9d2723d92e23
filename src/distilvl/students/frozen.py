"""What is frozen of an image tower, on a CPU, as fast as PyTorch makes it: one graph, normalisation folded in.

Operator by operator a small network spends most of its time on what stands between its convolutions. Traced and frozen,
normalisation goes into the convolutions' weights, and activations into the same kernels (oneDNN). On two cores of a
Xeon with AMX an EfficientNet-Lite1 reads 2.1 times as many pictures a second so as by autocast, and its outputs are
0.1 standard deviations off those in float32, where autocast's are 0.05 off (`benchmarks/frozen_tower.py`). A CPU
without bfloat16 has the same graph in float32, the maps' channels last: 1.7 times as fast, equal but for rounding.
"""

import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distilvl.students.dual_encoder import DualEncoder
from distilvl.students.heads import is_convolutional
from distilvl.students.towers import first_line, quiet_transformers

logger = logging.getLogger("distilvl")

ON_CPU = 16  # pictures that a tower reads at a time on a CPU: the maps of more do not stay in its caches
# Least cosine of pooled outputs with those of the tower in float32; bfloat16 keeps 8 bits.
_ALIKE = {torch.bfloat16: 0.98, torch.float32: 0.99999}
_PROBES = 4  # pictures of noise that are compared


class _Stored(nn.Module):
    """From pixel values to what is stored; `tower` is a module of it, so that the trace knows its weights."""

    def __init__(self, tower: nn.Module, store: Callable[[dict[str, Any]], Tensor]) -> None:
        super().__init__()
        self.tower, self._store = tower, store

    def forward(self, pixels: Tensor) -> Tensor:
        return self._store({"pixel_values": pixels, "modality": "image"}).float()


@torch.no_grad()
def traced_store(encoder: DualEncoder, dtype: torch.dtype) -> Callable[[Tensor], Tensor] | None:
    """A faster `encoder.store_images` of a convolutional tower: (B, 3, H, W) uint8 to (B, R) float32.

    `dtype` is what it computes in, bfloat16 or float32.

    None for other towers, elsewhere than on a CPU, and where a traced graph does not give the same but for rounding.
    The tower stays as it is.
    """
    head = encoder.head("image")
    if encoder.mean.device.type != "cpu" or not is_convolutional(head.tower):
        return None
    encoder.eval()
    shape, kept = (_PROBES, 3, *encoder.image_size), {k: v.clone() for k, v in head.tower.state_dict().items()}
    probes = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    expected, store = encoder.store_images(probes), head.pool if encoder.cut is None else encoder.cut.below
    try:
        head.tower.to(dtype)
        with warnings.catch_warnings(), quiet_transformers():
            warnings.simplefilter("ignore")  # of shapes that become constants, which they are
            torch.jit.enable_onednn_fusion(True)
            trace: Any = torch.jit.trace
            traced = trace(_Stored(head.tower, store).eval(), _normalised(encoder, probes, dtype), check_trace=False)
            graph = torch.jit.freeze(traced)
        found = [graph(_normalised(encoder, probes, dtype)) for _ in range(2)][
            -1
        ]  # from the second time on it is fused
    except Exception as error:  # tracing raises anything at what it does not know
        logger.debug("the image tower is not traced: %s", first_line(error))
        return None
    finally:
        head.tower.float().load_state_dict(kept)
    if F.cosine_similarity(found, expected).min() < _ALIKE[dtype]:
        return None
    return _Traced(encoder, graph, dtype)


class _Traced:
    """Calls the graph until that fails, as oneDNN may for another number of pictures; from then on the tower itself."""

    def __init__(self, encoder: DualEncoder, graph: Any, dtype: torch.dtype) -> None:
        self._encoder, self._graph, self._dtype = encoder, graph, dtype

    def __call__(self, pixels: Tensor) -> Tensor:
        if self._graph is not None:
            try:
                return self._graph(_normalised(self._encoder, pixels, self._dtype))  # type: ignore[no-any-return]
            except RuntimeError as error:
                logger.debug("the traced image tower fails: %s", first_line(error))
                self._graph = None
        return self._encoder.store_images(pixels)


def _normalised(encoder: DualEncoder, pixels: Tensor, dtype: torch.dtype) -> Tensor:
    values = (pixels.float() - encoder.mean) / encoder.std
    return values.to(dtype).contiguous(memory_format=torch.channels_last)
