"""Heads: the linear map FC_m behind a tower, wherever its numbers stand in a student.

Most students keep it in a last `Dense`. One that pools over stages is shaped so that sentence-transformers runs it
without this package, and its head is a part of the transformers model: see `distilvl.students.stages` and
`distilvl.students.depths`.
"""

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Protocol

import torch
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from torch import Tensor, nn
from torch.nn import functional as F

from distilvl.students.timm_towers import TIMM_TYPE

STAGES_TYPE, DEPTHS_TYPE = "edgetam_vision_model", "vipllava"  # model types that hold their head


class Head(Protocol):
    """FC_m: z = W x + b of pooled x (n, C), before L2 normalisation."""

    widths: list[int]  # columns of each stage in a row of x; one entry where the tower is pooled as a whole
    tower: nn.Module  # what stands before the head

    @property
    def weight(self) -> Tensor:
        """W (D, C), to be read."""
        ...

    @property
    def bias(self) -> Tensor | None:
        """b (D,), to be read; none for a head without one."""
        ...

    @property
    def in_features(self) -> int:
        """C."""
        ...

    @property
    def out_features(self) -> int:
        """D."""
        ...

    def set(self, weight: Tensor, bias: Tensor) -> None:
        """Make W (D, C) and, where the head has one, b (D,) these."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """The weights in which W and b are kept."""
        ...

    def pool(self, features: dict[str, Any]) -> Tensor:
        """What the tower, without dropout, makes of its inputs: x (n, C)."""
        ...

    def __call__(self, pooled: Tensor) -> Tensor:
        """x (n, C) to z (n, D)."""
        ...


def head_of(modules: Any) -> Head:
    """The head of one route of a student, `modules` from tower to last."""
    kind = module_type(modules[0])
    if kind == STAGES_TYPE:
        return _StagesHead(modules[0].model)
    if kind == DEPTHS_TYPE:
        return _DepthsHead(modules[0].model)
    return _StaticHead(modules) if isinstance(modules[0], StaticEmbedding) else _DenseHead(modules)


def head_path(modules: Any) -> str:
    """Where in a route the head stands: the number of its module, and the path inside."""
    inside = {STAGES_TYPE: "0.model.neck.convs", DEPTHS_TYPE: "0.model.multi_modal_projector.linear_1"}
    return inside.get(module_type(modules[0]) or "", str(len(modules) - 1))


def module_type(module: Any) -> str | None:
    """`model_type` of the transformers model in a module of sentence-transformers; none where there is none."""
    return getattr(getattr(getattr(module, "model", None), "config", None), "model_type", None)


def keeps_statistics(module: Any) -> bool:
    """Whether batch normalisation in a tower always uses the statistics that it was pretrained with.

    In timm's networks it does: those of a small batch, or of a part of one, would be worse, and rows stay independent.
    """
    return module_type(module) in (TIMM_TYPE, STAGES_TYPE)


def is_convolutional(tower: nn.Module) -> bool:
    """Whether most weights of a tower belong to convolutions."""
    sizes = [(weight.ndim, weight.numel()) for weight in tower.parameters()]
    return 2 * sum(size for dims, size in sizes if dims == 4) > sum(size for _, size in sizes)


class _DenseHead:
    def __init__(self, modules: Any) -> None:
        self.tower: Any = modules[:-1]
        self._linear = modules[-1].linear
        self.widths = [self._linear.in_features]

    @property
    def weight(self) -> Tensor:
        return self._linear.weight  # type: ignore[no-any-return]

    @property
    def bias(self) -> Tensor | None:
        return self._linear.bias  # type: ignore[no-any-return]

    @property
    def in_features(self) -> int:
        return self._linear.in_features  # type: ignore[no-any-return]

    @property
    def out_features(self) -> int:
        return self._linear.out_features  # type: ignore[no-any-return]

    @torch.no_grad()
    def set(self, weight: Tensor, bias: Tensor) -> None:
        self._linear.weight.copy_(weight)
        if self._linear.bias is not None:
            self._linear.bias.copy_(bias)

    def parameters(self) -> Iterator[nn.Parameter]:
        return self._linear.parameters()  # type: ignore[no-any-return]

    def pool(self, features: dict[str, Any]) -> Tensor:
        for module in self.tower:
            features = module.eval()(features)
        return features["sentence_embedding"]  # type: ignore[no-any-return]

    def __call__(self, pooled: Tensor) -> Tensor:
        return self._linear(pooled)  # type: ignore[no-any-return]


class _StaticHead(_DenseHead):
    """Behind a static text tower, whose own module takes no padding."""

    def pool(self, features: dict[str, Any]) -> Tensor:
        return mean_of_rows(self.tower[0].embedding.weight, features["input_ids"], features["attention_mask"])


def mean_of_rows(table: Tensor, ids: Tensor, mask: Tensor | None) -> Tensor:
    """(N, r): the mean of the rows of `table` (V, r) that `ids` (N, L) name where `mask` (N, L) is 1, or of all.

    As `StaticEmbedding` computes it, of padded texts. Where the mask has no 1, zeros.
    """
    rows = F.embedding(ids, table)
    if mask is None:
        return rows.mean(dim=1)
    kept = mask.unsqueeze(-1).to(rows.dtype)
    return (rows * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)


class _StagesHead:
    """W_k in one 1x1 convolution a stage; their biases add up to b."""

    def __init__(self, model: Any) -> None:
        self._model, self.tower = model, model.backbone
        self._convolutions = list(model.neck.convs)[::-1]  # the neck has the coarsest first, x the finest
        self.widths = [convolution.in_channels for convolution in self._convolutions]

    @property
    def weight(self) -> Tensor:
        return torch.cat([convolution.weight.flatten(1) for convolution in self._convolutions], dim=1)

    @property
    def bias(self) -> Tensor | None:
        return torch.stack([convolution.bias for convolution in self._convolutions]).sum(dim=0)

    @property
    def in_features(self) -> int:
        return sum(self.widths)

    @property
    def out_features(self) -> int:
        return self._convolutions[0].out_channels  # type: ignore[no-any-return]

    @torch.no_grad()
    def set(self, weight: Tensor, bias: Tensor) -> None:
        ends = accumulate(self.widths)
        for convolution, width, end in zip(self._convolutions, self.widths, ends, strict=True):
            convolution.weight.copy_(weight[:, end - width : end, None, None])
            convolution.bias.zero_()
        self._convolutions[0].bias.copy_(bias)

    def parameters(self) -> Iterator[nn.Parameter]:
        return (parameter for convolution in self._convolutions for parameter in convolution.parameters())

    def pool(self, features: dict[str, Any]) -> Tensor:
        maps = self.tower.eval()(features["pixel_values"]).last_hidden_state
        return torch.cat([stage.float().mean((2, 3)) for stage in maps], dim=1)

    def __call__(self, pooled: Tensor) -> Tensor:
        return F.linear(pooled, self.weight, self.bias)


class _DepthsHead:
    """W and b in the projector's first linear map; the second is the identity, and does not learn."""

    def __init__(self, model: Any) -> None:
        self._model, self._projector = model, model.multi_modal_projector
        self.tower: Any = nn.ModuleList([model.vision_tower, self._projector.projector_layernorm])
        self._layers = model.config.vision_feature_layer
        self.widths = [self.in_features // len(self._layers)] * len(self._layers)
        self._projector.linear_2.requires_grad_(False)

    @property
    def weight(self) -> Tensor:
        return self._projector.linear_1.weight  # type: ignore[no-any-return]

    @property
    def bias(self) -> Tensor | None:
        return self._projector.linear_1.bias  # type: ignore[no-any-return]

    @property
    def in_features(self) -> int:
        return self._projector.linear_1.in_features  # type: ignore[no-any-return]

    @property
    def out_features(self) -> int:
        return self._projector.linear_1.out_features  # type: ignore[no-any-return]

    @torch.no_grad()
    def set(self, weight: Tensor, bias: Tensor) -> None:
        self._projector.linear_1.weight.copy_(weight)
        self._projector.linear_1.bias.copy_(bias)
        nn.init.eye_(self._projector.linear_2.weight)
        nn.init.zeros_(self._projector.linear_2.bias)

    def parameters(self) -> Iterator[nn.Parameter]:
        return self._projector.linear_1.parameters()  # type: ignore[no-any-return]

    def pool(self, features: dict[str, Any]) -> Tensor:
        tower, norm = self.tower.eval()
        states = tower(features["pixel_values"], output_hidden_states=True).hidden_states
        patches = torch.cat([states[layer][:, 1:] for layer in self._layers], dim=-1)
        return norm(patches).float().mean(dim=1)  # type: ignore[no-any-return]

    def __call__(self, pooled: Tensor) -> Tensor:
        return self._projector.linear_1(pooled)  # type: ignore[no-any-return]
