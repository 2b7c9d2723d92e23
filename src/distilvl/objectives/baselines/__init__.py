"""Distillation losses published by others, adapted to image-text output features, one method a file: docs/baselines.md.

Each was published as a term beside the task's own loss, which here is `InfoNCE`. Shapes as in `distilvl.objectives`.
"""

from distilvl.objectives.baselines.clip_kd import ClipKdFeature, ClipKdGradient, ClipKdInteractive, ClipKdRelation
from distilvl.objectives.baselines.crd import ContrastiveRepresentationDistillation
from distilvl.objectives.baselines.dcd import DynamicContrastiveDistillation
from distilvl.objectives.baselines.fsp import FlowDistillation
from distilvl.objectives.baselines.kd import DecoupledDistillation, SoftTargetDistillation
from distilvl.objectives.baselines.open_clip import OpenClipDistillation
from distilvl.objectives.baselines.rkd import RelationalAngle, RelationalDistance
from distilvl.objectives.baselines.sp import SimilarityPreserving

__all__ = [
    "ClipKdFeature", "ClipKdGradient", "ClipKdInteractive", "ClipKdRelation", "ContrastiveRepresentationDistillation",
    "DecoupledDistillation", "DynamicContrastiveDistillation", "FlowDistillation", "OpenClipDistillation",
    "RelationalAngle", "RelationalDistance", "SimilarityPreserving", "SoftTargetDistillation",
]  # fmt: skip
