"""Typed configuration: what a recipe may say, with defaults that are the paper's (section 4.1.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

Weights = TypeVar("Weights", bound=Mapping[Any, float])


def cut_from_pretrained(layers: int | None, info: ValidationInfo) -> int | None:
    """`layers` of a tower."""
    if layers is not None and info.data.get("config") and not info.data.get("model"):
        raise ValueError("only a pretrained tower is cut; a new one has the layers that its config says")
    return layers


def has_negatives(cd: ContrastiveConfig, info: ValidationInfo) -> ContrastiveConfig:
    """`objective.cd`."""
    if cd.queue == 0 and info.data.get("losses") == ["cd"]:
        raise ValueError("without a queue cd is 0 at every step, and no other loss is there; set queue to 1 or more")
    return cd


def weights_are_used(weights: Weights, info: ValidationInfo) -> Weights:
    """`balancer.weights`."""
    name = info.data.get("name", "static")
    if weights and name != "static":
        raise ValueError(f"the balancer {name} makes its own weights; set name to static, or weights to {{}}")
    return weights


def captions_of_distinct_images(captions: int, info: ValidationInfo) -> int:
    """`training.captions_per_image`."""
    sampling = info.data.get("sampling", "distinct_images")
    if captions > 1 and sampling != "distinct_images":
        raise ValueError(f"sampling {sampling} goes caption by caption; set it to distinct_images, or this to 1")
    return captions


def tokens_are_read(training: TrainingConfig, info: ValidationInfo) -> TrainingConfig:
    """`training.token_dropout`, beside `student.text.frozen`."""
    student = info.data.get("student")
    if training.token_dropout and student is not None and student.text.frozen:
        raise ValueError(
            "token_dropout does nothing to a frozen text tower, which reads each caption once, whole; "
            "set it to 0, or student.text.frozen to false"
        )
    return training


def finished_or_new(folder: str | None, given: Mapping[str, Any]) -> None:
    """`student.folder`, beside what a new student is built from.

    Args:
        folder: of a finished student, which keeps its towers.
        given: the section's values that differ from their defaults; a saved config names all of them.
    """
    if folder is None:
        return
    unused = ["normalize"] if "normalize" in given else []
    for tower in ("image", "text"):
        unused += [f"{tower}.{key}" for key in given.get(tower, {}) if key != "frozen"]
    if unused:
        raise ValueError(
            f"the finished student in folder keeps its towers, and {', '.join(unused)} would change nothing; "
            "name the folder as --student in the place of a preset, and leave these out"
        )


LossName = Literal[
    "cd",
    "fd",
    "sd",
    "hnd",
    "qd",
    "infonce",
    "kd",
    "fsp",
    "dcd",
    "clipkd_feature",
    "clipkd_relation",
    "clipkd_interactive",
    "rkd_distance",
    "rkd_angle",
    "crd",
    "openclip",
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)


class _TowerConfig(_Section):
    model: str | None = Field(None, description="transformers id or folder; none builds from `config`")
    config: dict[str, Any] | None = Field(None, description="model_type and its fields, for a new tower")
    layers: Annotated[int | None, AfterValidator(cut_from_pretrained)] = Field(
        None, ge=1, description="keep the first so many layers of a pretrained tower; none keeps all"
    )


class ImageTowerConfig(_TowerConfig):
    """The image tower: a pretrained transformers model, or one built from `config` with random weights."""

    size: int | None = Field(None, ge=8, description="side of the square input, pixels; none keeps the model's")
    pooling: Literal["cls", "mean", "pooler"] = Field("cls", description="pooler: the model's own, as CNNs have")
    frozen: bool = Field(False, description="train the head only; the tower's outputs are computed once")


class TextTowerConfig(_TowerConfig):
    """The text tower: a pretrained transformers model, or one built from `config` with random weights."""

    vocabulary: int = Field(2000, ge=32, description="WordPiece entries learnt from the captions of a new tower")
    max_length: int = Field(64, ge=4, description="tokens; longer captions are cut")
    pooling: Literal["cls", "mean", "pooler"] = "pooler"
    frozen: bool = Field(False, description="train the head only; the tower's outputs are computed once")


class StudentConfig(_Section):
    """Two towers and the width of the space they share."""

    folder: str | None = Field(None, description="start from this finished student instead of building one")
    image: ImageTowerConfig = ImageTowerConfig()
    text: TextTowerConfig = TextTowerConfig()
    width: int | None = Field(None, ge=2, description="width D of the shared space; none takes the teacher's")
    normalize: bool = Field(True, description="end in unit rows (eq. 4); false is Table 6's row without L2")

    @model_validator(mode="after")
    def _finished_or_new(self) -> StudentConfig:
        finished_or_new(self.folder, self.model_dump(exclude_defaults=True))
        return self

    @property
    def frozen(self) -> list[str]:
        """Modalities whose towers do not learn."""
        towers = (("image", self.image.frozen), ("text", self.text.frozen))
        return [modality for modality, frozen in towers if frozen]


class ContrastiveConfig(_Section):
    """CD, eq. 5-7, and its queue."""

    temperature: float = Field(0.05, gt=0, description="tau")
    queue: int = Field(8192, ge=0, description="K_q, teacher features of each modality")
    start: Literal["stored", "empty", "random"] = Field(
        "stored", description="the queue before the first step: drawn from the store, empty, or random unit vectors"
    )
    mask_false_negatives: bool = True


class SimilarityConfig(_Section):
    """SD, eq. 9."""

    halved: bool = Field(True, description="1 - (1 + mean cos)/2 of the code; false: 1 - mean cos")


class HardNegativeConfig(_Section):
    """HND, eq. 10-14."""

    margin: float = Field(0.0, ge=0, description="alpha")
    negatives: Literal["hardest", "all"] = "hardest"
    reduction: Literal["sum", "mean"] = "sum"
    mask_false_negatives: bool = True


class QueueDistributionConfig(_Section):
    """QD, the teacher's similarities to the queue; the queue is CD's. Not in the paper."""

    temperature: float = Field(0.05, gt=0)


class InfoNCEConfig(_Section):
    """Contrastive training on the pairs alone, the baseline without a teacher."""

    temperature: float = Field(0.05, gt=0)


class KDConfig(_Section):
    """KD, soft targets over the batch."""

    temperature: float = Field(0.05, gt=0)


class DCDConfig(_Section):
    """DCD, dynamic contrastive distillation."""

    temperature: float = Field(0.05, gt=0)
    hard_negatives: int = Field(7, ge=1, description="K, chosen by the teacher")
    alpha: float = Field(0.2, ge=0, le=1, description="share of the distillation term")


class ClipKDConfig(_Section):
    """CLIP-KD's relational and interactive parts."""

    temperature: float = Field(0.05, gt=0)


class CRDConfig(_Section):
    """CRD, contrastive representation distillation; its negatives are CD's queue."""

    temperature: float = Field(0.07, gt=0)


class OpenClipConfig(_Section):
    """open_clip's distillation term."""

    temperature_student: float = Field(0.05, gt=0)
    temperature_teacher: float = Field(0.05, gt=0)


class ObjectiveConfig(_Section):
    """Which losses take part, and their settings."""

    losses: list[LossName] = Field(["cd", "fd", "sd", "hnd"], min_length=1)
    cd: Annotated[ContrastiveConfig, AfterValidator(has_negatives)] = ContrastiveConfig()
    sd: SimilarityConfig = SimilarityConfig()
    hnd: HardNegativeConfig = HardNegativeConfig()
    qd: QueueDistributionConfig = QueueDistributionConfig()
    infonce: InfoNCEConfig = InfoNCEConfig()
    kd: KDConfig = KDConfig()
    dcd: DCDConfig = DCDConfig()
    clipkd: ClipKDConfig = ClipKDConfig()
    crd: CRDConfig = CRDConfig()
    openclip: OpenClipConfig = OpenClipConfig()
    widths: list[Annotated[int, Field(ge=1)]] = Field(
        [],
        description="Matryoshka: widths below D at which the losses are taken as well; the teacher is turned to its "
        "principal axes",
    )
    learn_temperatures: bool = Field(False, description="let tau of cd and infonce learn, from their values here")

    @model_validator(mode="after")
    def _no_loss_twice(self) -> ObjectiveConfig:
        if len(set(self.losses)) != len(self.losses):
            raise ValueError(f"a loss is named twice: {self.losses}")
        return self

    @property
    def needs_teacher(self) -> bool:
        """Whether any of the losses compares with teacher features."""
        return any(name != "infonce" for name in self.losses)


class BalancerConfig(_Section):
    """How the losses are weighted, eq. 15-18."""

    name: Literal["paper", "official", "dwa", "static", "uncertainty", "gradnorm"] = "paper"
    tau: float = Field(1.0, gt=0, description="tau_b")
    floor: float = Field(1e-8, gt=0, description="a loss below this counts as this")
    smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of the old running mean of each loss kept at each step"
    )
    weights: Annotated[dict[LossName, float], AfterValidator(weights_are_used)] = Field(
        {}, description="for `static`; 1 where not given"
    )
    lr: float = Field(0.1, gt=0, le=2, description="for `uncertainty` and `gradnorm`: the step of their weights")
    alpha: float = Field(1.5, ge=0, description="for `gradnorm`: pull towards equal training rates")


class OptimizerConfig(_Section):
    """AdamW; heads (the projections into the shared space) may learn faster than pretrained towers."""

    lr: float = Field(1e-4, gt=0, description="rate of the towers")
    head_lr: float | None = Field(None, gt=0, description="rate of the heads; none: the towers' rate")
    weight_decay: float = Field(1e-4, ge=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="rate of a tower's layer over that of the layer above; 1: the same for all"
    )
    clip_norm: float = Field(1.0, ge=0, description="largest global gradient norm; 0 switches clipping off")


class ScheduleConfig(_Section):
    """The learning rate over the run: the paper's steps, or a cosine to zero."""

    kind: Literal["step", "cosine"] = "step"
    milestones: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.5], description="`step`: fractions of the run at which the rate drops"
    )
    gamma: float = Field(0.1, gt=0, le=1, description="`step`: the factor at each drop")
    warmup: float = Field(0.0, ge=0, lt=1, description="fraction of the run with a linearly rising rate")


class TrainingConfig(_Section):
    """Length, batch and bookkeeping of a run."""

    epochs: int = Field(20, ge=1, description="passes over as many images, or pairs, as there are training images")
    batch_size: int = Field(64, ge=2, description="distinct images of a step; pairs where `sampling` is by captions")
    sampling: Literal["distinct_images", "captions", "captions_in_order"] = Field(
        "distinct_images",
        description="distinct images, captions of each drawn anew each pass; or all captions, shuffled; or all "
        "captions in the dataset's order, as the published loader runs",
    )
    captions_per_image: Annotated[int, AfterValidator(captions_of_distinct_images)] = Field(
        1, ge=1, description="captions of each image in a step; the image is encoded once for all of them"
    )
    extra_share: float = Field(
        0.5, gt=0, lt=1, description="share of the steps that are on `inputs.extra_data`, beside an epoch's own"
    )
    views: int = Field(
        1, ge=1, description="views of each image, one drawn each epoch; the store holds the teacher's features of them"
    )
    reduced_jpeg: bool = Field(
        False,
        description="decode large JPEGs of the training images at a reduced scale, at least twice the student's size: "
        "faster, and not quite the same pixels",
    )
    head_start: Literal["random", "regression"] = Field(
        "random",
        description="first weights of the heads: random, or the ridge regression of the teacher's rows on those of the "
        "towers as they are",
    )
    token_dropout: float = Field(0.0, ge=0, lt=1, description="share of a caption's tokens hidden from the student")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the running mean of the weights, which is kept; 0: none")
    accumulate: int = Field(
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
    def _views_as_the_teacher_saw_them(self) -> TrainingConfig:
        if self.views > 1 and self.reduced_jpeg:
            raise ValueError("reduced_jpeg moves the edges of views; use one of the two")
        return self


class InputsConfig(_Section):
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


class Config(_Section):
    """Everything a run depends on. Saved, resolved, as `config.yaml` of the run folder."""

    inputs: InputsConfig = InputsConfig()
    student: StudentConfig = StudentConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    balancer: BalancerConfig = BalancerConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    training: Annotated[TrainingConfig, AfterValidator(tokens_are_read)] = TrainingConfig()
