"""Typed configuration: what a recipe may say, with defaults that are the paper's (section 4.1.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from distilvl.objectives.config import BalancerConfig, ObjectiveConfig, Variants
from distilvl.objectives.registry import Settings


def _cut_from_pretrained(layers: int | None, info: ValidationInfo) -> int | None:
    if layers is not None and info.data.get("config") and not info.data.get("model"):
        raise ValueError("only a pretrained tower is cut; a new one has the layers that its config says")
    return layers


def _of_pooling_stages(stages: list[int] | None, info: ValidationInfo) -> list[int] | None:
    if stages is not None and info.data.get("pooling") != "stages":
        raise ValueError("stages are joined by pooling stages only; set pooling to stages, or leave this out")
    return stages


def _entries_or_trim(vocabulary: object, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
    if vocabulary == "trim" and not info.data.get("model"):
        raise ValueError("only a pretrained tower's vocabulary is trimmed; a new one learns so many entries: a number")
    try:
        return validate(vocabulary)
    except ValidationError as error:  # names the parts of the union as if they were keys
        raise ValueError("32 entries or more, or trim") from error


def _captions_of_distinct_images(captions: int, info: ValidationInfo) -> int:
    sampling = info.data.get("sampling", "distinct_images")
    if captions > 1 and sampling != "distinct_images":
        raise ValueError(f"sampling {sampling} goes caption by caption; set it to distinct_images, or this to 1")
    return captions


def _tokens_are_read(training: TrainingConfig, info: ValidationInfo) -> TrainingConfig:
    student = info.data.get("student")
    if training.token_dropout and student is not None and student.text.frozen:
        raise ValueError(
            "token_dropout does nothing to a frozen text tower, which reads each caption once, whole; "
            "set it to 0, or student.text.frozen to false"
        )
    return training


_Entries = Annotated[int, Field(ge=32)]


class _TowerConfig(Settings):
    model: str | None = Field(None, description="transformers id or folder; none builds from `config`")
    config: dict[str, Any] | None = Field(None, description="model_type and its fields, for a new tower")
    layers: Annotated[int | None, AfterValidator(_cut_from_pretrained)] = Field(
        None, ge=1, description="keep the first so many layers of a pretrained tower; none keeps all"
    )

    @property
    def pretrained(self) -> str | None:
        """The transformers id or folder that it comes from; none for a new tower."""
        return self.model


class ImageTowerConfig(_TowerConfig):
    """The image tower: a pretrained transformers model, or one built from `config` with random weights."""

    size: int | None = Field(None, ge=8, description="side of the square input, pixels; none keeps the model's")
    pooling: Literal["cls", "mean", "pooler", "stages"] = Field(
        "cls",
        description="pooler: the model's own, as CNNs have; stages: the means of several stages or blocks together",
    )
    stages: Annotated[list[Annotated[int, Field(ge=0)]] | None, AfterValidator(_of_pooling_stages)] = Field(
        None,
        min_length=1,
        description="which stages of a CNN, or blocks of a ViT, are joined; the first is 0. none: the last two",
    )
    frozen: bool = Field(False, description="train the head only; the tower's outputs are computed once")


class TextTowerConfig(Variants):
    """The text tower: a transformer, or a static one, which is the mean of a row of numbers for each token."""

    chosen_by: ClassVar[str] = "kind"
    carries_over: ClassVar[bool] = False  # a preset's `vocabulary` of word pieces is no size for a table of words

    kind: Literal["transformer", "static"] = "transformer"
    frozen: bool = Field(False, description="train the head only; the tower's outputs are computed once")

    @property
    def pretrained(self) -> str | None:
        """The transformers id or folder that it comes from; none for a new tower."""
        return None

    @classmethod
    def variant(cls, section: Mapping[str, Any]) -> type[BaseModel]:
        """This with the settings of the kind that `section` names."""
        return StaticTextConfig if section.get("kind", "transformer") == "static" else TransformerTextConfig

    @classmethod
    def choices(cls) -> dict[str, type[BaseModel]]:
        """Both kinds."""
        return {"transformer": TransformerTextConfig, "static": StaticTextConfig}


class TransformerTextConfig(_TowerConfig, TextTowerConfig):
    """A pretrained transformers model, or one built from `config` with random weights."""

    vocabulary: Annotated[_Entries | Literal["trim"], WrapValidator(_entries_or_trim)] = Field(
        2000,
        description="WordPiece entries that a new tower learns from the captions; trim: keep those entries of a "
        "pretrained one that the captions use",
    )
    max_length: int = Field(64, ge=4, description="tokens; longer captions are cut")
    pooling: Literal["cls", "mean", "pooler"] = "pooler"


class StaticTextConfig(TextTowerConfig):
    """A table with a row for each token, new, and a linear map of the mean of a text's rows: no context, no order."""

    vocabulary: int = Field(
        4000, ge=32, description="rows of the table: words and pieces of words learnt from the captions"
    )
    pairs: int = Field(
        0, ge=0, description="least count of two adjacent words to have a row of their own beside these; 0: none has"
    )
    rank: int | None = Field(128, ge=1, description="length of a row, or D where that is less; none: D")
    max_length: int = Field(256, ge=4, description="tokens; longer captions are cut")

    def row_length(self, dim: int) -> int:
        """r, for embeddings of D = `dim` dimensions: longer rows could say no more."""
        return dim if self.rank is None else min(self.rank, dim)


class StudentConfig(Settings):
    """Two towers and the dimension of the space they share."""

    folder: str | None = Field(None, description="start from this finished student instead of building one")
    image: ImageTowerConfig = ImageTowerConfig()
    text: SerializeAsAny[TextTowerConfig] = TransformerTextConfig()
    dim: int | None = Field(None, ge=2, description="embedding dimension D; none takes the teacher's")
    normalize: bool = Field(True, description="L2-normalise embeddings (eq. 4); false is Table 6's row without L2")

    @model_validator(mode="after")
    def _finished_or_new(self) -> StudentConfig:
        given = self.model_dump(exclude_defaults=True)  # a saved config names all values
        unused = ["normalize"] if "normalize" in given else []
        for tower in ("image", "text"):
            unused += [f"{tower}.{key}" for key in given.get(tower, {}) if key != "frozen"]
        if self.folder is not None and unused:
            raise ValueError(
                f"the finished student in folder keeps its towers, and {', '.join(unused)} would change nothing; "
                "name the folder as --student in the place of a preset, and leave these out"
            )
        return self

    @property
    def frozen(self) -> list[str]:
        """Modalities whose towers do not learn."""
        return ["image"] * self.image.frozen + ["text"] * self.text.frozen


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


class TrainingConfig(Settings):
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
    crops: int = Field(
        1, ge=1, description="crops of each image, one drawn each epoch; the store holds the teacher's features of them"
    )
    reduced_jpeg: bool = Field(
        False,
        description="decode large JPEGs of the training images at a reduced scale, at least twice the student's size: "
        "faster, and not quite the same pixels",
    )
    head_init: Literal["random", "ridge"] = Field(
        "random",
        description="first weights of the heads: random, or the ridge regression of teacher features on the outputs of "
        "the towers as they are",
    )
    token_dropout: float = Field(0.0, ge=0, lt=1, description="share of a caption's tokens hidden from the student")
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


class ClosedFormConfig(Settings):
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
    training: Annotated[TrainingConfig, AfterValidator(_tokens_are_read)] = TrainingConfig()

    @property
    def seed(self) -> int:
        """Of weights and batches."""
        return self.training.seed

    @property
    def needs_teacher(self) -> bool:
        """Whether any loss compares with teacher features."""
        return self.objective.needs_teacher

    @model_validator(mode="after")
    def _weights_are_of_the_losses(self) -> Config:
        losses = self.objective.losses
        if unknown := sorted(set(getattr(self.balancer, "weights", {})) - set(losses)):
            raise ValueError(f"balancer.weights has {unknown[0]}, which is none of the losses {', '.join(losses)}")
        return self
