"""What a run depends on, trained (`Config`) or in closed form (`FitConfig`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializeAsAny, ValidationInfo, model_validator

from distilvl.config.student import StudentConfig
from distilvl.config.training import CropsConfig, OptimizerConfig, ScheduleConfig, StepSchedule, TrainingConfig
from distilvl.objectives.config import BalancerConfig, ObjectiveConfig
from distilvl.objectives.registry import Settings


def _dropout_acts(training: TrainingConfig, info: ValidationInfo) -> TrainingConfig:
    student = info.data.get("student")
    if training.token_dropout and student is not None and student.text.frozen:
        raise ValueError(
            "token_dropout does nothing to a frozen text tower, which reads each caption once, whole; "
            "set it to 0, or student.text.frozen to false"
        )
    if training.image_dropout and student is not None:
        image = student.image
        if not image.frozen and image.trainable_layers is None:
            raise ValueError(
                "image_dropout is between a tower whose outputs are stored and its head; set it to 0, or "
                "student.image.frozen or student.image.trainable_layers"
            )
    return training


class InputsConfig(Settings):
    """What the run was made from; enough to run it again."""

    data: str | None = None
    val_data: str | None = Field(None, description="dataset with a split val; none: `data` has one")
    extra_data: str | None = Field(None, description="dataset that is learnt beside `data`, paired or not")
    teacher: str | None = None
    features: str | None = None

    @property
    def scored_data(self) -> str | None:
        """The dataset whose split val scores the run."""
        return self.val_data or self.data


class RunConfig(Settings):
    """What all runs have, trained or in closed form. Saved, resolved, as `config.yaml` of the run folder."""

    inputs: InputsConfig = InputsConfig()
    student: StudentConfig = StudentConfig()


class ClosedFormConfig(CropsConfig):
    """How `distilvl fit` solves heads and tables: the candidates, among which held-out items choose."""

    ridges: list[Annotated[float, Field(gt=0)]] = Field(
        [300.0, 1000.0, 3000.0, 10000.0],
        min_length=1,
        description="penalties of a head's weights, for columns of unit variance, in the sum over all items",
    )
    scale: float = Field(
        0.5, ge=0, le=1, description="columns are divided by this power of their standard deviation: 1 makes all equal"
    )
    betas: list[float] = Field(
        [0.3], min_length=1, description="weights of mean(u^t), an image's captions, in the image targets"
    )
    text_ridges: list[Annotated[float, Field(gt=0)]] = Field(
        [0.03, 0.1, 0.3], min_length=1, description="penalties of the rows of a static table"
    )
    pair_ridges: list[Annotated[float, Field(gt=0)]] = Field(
        [1.0, 3.0, 10.0],
        min_length=1,
        description="penalties of what a word pair adds to its words, where the table has pairs",
    )
    alphas: list[float] = Field(
        [0.8], min_length=1, description="weights of u^v, a caption's image, in the text targets"
    )
    mirror: bool = Field(True, description="fit to each image's mirror image, too, with the same features")
    held_out: int = Field(1000, ge=20, description="images, and texts, that choose; a tenth of all at most")
    precision: Literal["auto", "bf16", "fp32"] = Field("auto", description="auto: bf16 where the device has it")
    seed: int = Field(0, ge=0, lt=2**32, description="of new towers, which have random weights")


class FitConfig(RunConfig):
    """Everything a closed-form run depends on."""

    fit: ClosedFormConfig = ClosedFormConfig()

    @property
    def seed(self) -> int:
        """Of new towers."""
        return self.fit.seed

    @property
    def needs_teacher(self) -> bool:
        """Always."""
        return True

    @model_validator(mode="after")
    def _nothing_unused(self) -> FitConfig:
        if self.inputs.extra_data is not None:
            raise ValueError("inputs.extra_data is of distilvl train; leave it out")
        if self.student.folder is not None:
            raise ValueError("student.folder is of distilvl train: name towers, or a preset, as --student")
        if not self.student.normalize:
            raise ValueError("a fitted student's embeddings have a direction only; leave student.normalize true")
        return self


class Config(RunConfig):
    """Everything a training run depends on."""

    objective: SerializeAsAny[ObjectiveConfig] = ObjectiveConfig.model_validate({})
    balancer: SerializeAsAny[BalancerConfig] = BalancerConfig.model_validate({})
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: SerializeAsAny[ScheduleConfig] = StepSchedule()
    training: Annotated[TrainingConfig, AfterValidator(_dropout_acts)] = TrainingConfig()
    phases: list[dict[str, Any]] = Field(
        [],
        description="what comes before, one phase after the other: sections with what differs in it from all this. "
        "Each goes on from the best of the one before, and this from the last one's",
    )

    @property
    def seed(self) -> int:
        """Of weights and batches."""
        return self.training.seed

    @property
    def needs_teacher(self) -> bool:
        """Whether any loss compares with teacher features."""
        return self.objective.needs_teacher

    @model_validator(mode="after")
    def _fitted_once(self) -> Config:
        if self.training.head_init == "closed_form" and self.student.folder is not None:
            raise ValueError("training.head_init=closed_form makes a student, and student.folder names a finished one")
        return self

    @model_validator(mode="after")
    def _weights_are_of_the_losses(self) -> Config:
        losses = self.objective.losses
        if unknown := sorted(set(getattr(self.balancer, "weights", {})) - set(losses)):
            raise ValueError(f"balancer.weights has {unknown[0]}, which is none of the losses {', '.join(losses)}")
        return self
