"""The sections `optimizer`, `schedule` and `training`: how, and how long, a student learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, model_validator

from distilvl.objectives.config import Variants
from distilvl.objectives.registry import Settings


def _captions_of_distinct_images(captions: int, info: ValidationInfo) -> int:
    sampling = info.data.get("sampling", "distinct_images")
    if captions > 1 and sampling != "distinct_images":
        raise ValueError(f"sampling {sampling} goes caption by caption; set it to distinct_images, or this to 1")
    return captions


class OptimizerConfig(Settings):
    """AdamW; heads (the projections into the shared space) may learn faster than pretrained towers."""

    lr: float = Field(1e-4, gt=0, description="rate of the towers")
    head_lr: float | None = Field(None, gt=0, description="rate of the heads; none: the towers' rate")
    weight_decay: float = Field(1e-4, ge=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="rate of a tower's layer over that of the layer above; 1: the same for all"
    )
    clip_norm: float = Field(1.0, ge=0, description="largest global gradient norm; 0 switches clipping off")


class ScheduleConfig(Variants):
    """The learning rate over the run: the paper's steps, or a cosine to zero."""

    chosen_by: ClassVar[str] = "kind"

    kind: Literal["step", "cosine"] = "step"
    warmup: float = Field(0.0, ge=0, lt=1, description="fraction of the run with a linearly rising rate")

    @classmethod
    def variant(cls, section: Mapping[str, Any]) -> type[BaseModel]:
        """This with the settings of the kind that `section` names."""
        return CosineSchedule if section.get("kind", "step") == "cosine" else StepSchedule

    @classmethod
    def choices(cls) -> dict[str, type[BaseModel]]:
        """Both kinds."""
        return {"step": StepSchedule, "cosine": CosineSchedule}


class StepSchedule(ScheduleConfig):
    """The rate falls at some points."""

    milestones: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.5], description="fractions of the run at which the rate drops"
    )
    gamma: float = Field(0.1, gt=0, le=1, description="the factor at each drop")


class CosineSchedule(ScheduleConfig):
    """The rate follows half a cosine to zero."""


class CropsConfig(Settings):
    """How crops of the images stand beside the whole ones."""

    crops: int = Field(
        1,
        ge=1,
        description="crops of each image, the whole one among them: an epoch of training has one of them, fit has all",
    )
    crop_features: Literal["own", "whole"] = Field(
        "own",
        description="own: the store holds the teacher's features of each crop, and says how they are drawn; whole: "
        "those of the whole image stand for all, half of them mirrored and drawn as follows",
    )
    crop_scale: tuple[float, float] = Field((0.5, 1.0), description="smallest and largest share of the image in a crop")
    crop_colour: float = Field(
        0.0, ge=0, le=1, description="most by which brightness, contrast and saturation of a crop change, as a share"
    )
    crop_grey: float = Field(0.0, ge=0, le=1, description="share of the crops that are made grey")

    @model_validator(mode="after")
    def _drawn_by_one(self) -> CropsConfig:
        of_own = {"crop_scale": (0.5, 1.0), "crop_colour": 0.0, "crop_grey": 0.0}
        changed = [name for name, default in of_own.items() if getattr(self, name) != default]
        if changed and self.crop_features == "own":
            raise ValueError(f"{changed[0]} is of crop_features=whole: a store says by itself how its crops are drawn")
        return self


class TrainingConfig(CropsConfig):
    """Length, batch and bookkeeping of a run."""

    epochs: int = Field(20, ge=1, description="each over as many images, or pairs, as there are training images")
    batch_size: int = Field(64, ge=2, description="distinct images of a step; pairs where `sampling` is by captions")
    sampling: Literal["distinct_images", "captions", "captions_in_order"] = Field(
        "distinct_images",
        description="distinct images, captions of each drawn anew each epoch; or all captions, shuffled; or all "
        "captions in the dataset's order, as the published loader runs",
    )
    captions_per_image: Annotated[int, AfterValidator(_captions_of_distinct_images)] = Field(
        1, ge=1, description="captions of each image in a step; the image is encoded once for all of them"
    )
    extra_share: float = Field(
        0.5, gt=0, lt=1, description="share of the steps that are on `inputs.extra_data`, beside an epoch's own"
    )
    held_out: int = Field(
        0,
        ge=0,
        description="images of the split train that choose the best epoch and are not learnt from, drawn by their ids; "
        "a tenth of it at most. 0: the split val chooses",
    )
    mirror: bool = Field(
        False,
        description="each image or its mirror image, drawn each epoch; the teacher's features of both are taken to be "
        "the same",
    )
    reduced_jpeg: bool = Field(
        False,
        description="decode large JPEGs of the training images at a reduced scale, at least twice the student's size: "
        "faster, and not quite the same pixels",
    )
    head_init: Literal["random", "ridge", "closed_form"] = Field(
        "random",
        description="first weights of the heads: random; the ridge regression of teacher features on some outputs of "
        "the towers as they are; or, with a text table's rows, what distilvl fit makes of all of them",
    )
    token_dropout: float = Field(0.0, ge=0, lt=1, description="share of a caption's tokens hidden from the student")
    image_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the image tower's outputs that its head does not see; for a tower that is frozen, or "
        "some layers of which are",
    )
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the running mean of the weights, which is kept; 0: none")
    gradcache_chunks: int = Field(
        1, ge=1, description="chunks in which a batch is encoded, twice; same losses and gradients in less memory"
    )
    checkpoint_activations: bool = Field(
        False, description="compute the towers' activations again in the backward pass instead of keeping them"
    )
    validate_every: int = Field(1, ge=1, description="epochs between validations; the last epoch always has one")
    seed: int = Field(0, ge=0, lt=2**32)
    precision: Literal["auto", "bf16", "fp32"] = Field("auto", description="auto: bf16 where the device has it")
    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints, besides each epoch's end")
    log_every: int = Field(10, ge=1, description="steps between lines of metrics.jsonl")

    @model_validator(mode="after")
    def _crops_as_the_teacher_saw_them(self) -> TrainingConfig:
        if self.crops > 1 and self.reduced_jpeg:
            raise ValueError("reduced_jpeg moves the edges of crops; use one of the two")
        return self
