"""Distillation losses published by others, adapted to image-text output features: docs/baselines.md says how and why.

Each was published as a term beside the task's own loss, which here is `InfoNCE`. Shapes as in `distilvl.objectives`.
"""

from __future__ import annotations

from distilvl.objectives.baselines.clip_kd import ClipKdFeature, ClipKdInteractive, ClipKdRelation
from distilvl.objectives.baselines.crd import ContrastiveRepresentationDistillation, DynamicContrastiveDistillation
from distilvl.objectives.baselines.kd import OpenClipDistillation, SoftTargetDistillation
from distilvl.objectives.baselines.rkd import FlowDistillation, RelationalAngle, RelationalDistance

__all__ = [
    "ClipKdFeature", "ClipKdInteractive", "ClipKdRelation", "ContrastiveRepresentationDistillation",
    "DynamicContrastiveDistillation", "FlowDistillation", "OpenClipDistillation", "RelationalAngle",
    "RelationalDistance", "SoftTargetDistillation",
]  # fmt: skip
