"""Typed configuration: what a recipe may say, with defaults that are the paper's (section 4.1.4)."""

from distilvl.config.run import ClosedFormConfig, Config, FitConfig, InputsConfig, RunConfig
from distilvl.config.student import (
    ImageTowerConfig,
    StaticTextConfig,
    StudentConfig,
    TextTowerConfig,
    TransformerTextConfig,
)
from distilvl.config.training import CosineSchedule, OptimizerConfig, ScheduleConfig, StepSchedule, TrainingConfig

__all__ = [
    "ClosedFormConfig", "Config", "CosineSchedule", "FitConfig", "ImageTowerConfig", "InputsConfig", "OptimizerConfig",
    "RunConfig", "ScheduleConfig", "StaticTextConfig", "StepSchedule", "StudentConfig", "TextTowerConfig",
    "TrainingConfig", "TransformerTextConfig",
]  # fmt: skip
