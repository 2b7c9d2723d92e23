"""The section `student`: two towers, how each is made and pooled, and the dimension of the space they share."""

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

from distilvl.objectives.config import Variants
from distilvl.objectives.registry import Settings


def _cut_from_pretrained(layers: int | None, info: ValidationInfo) -> int | None:
    if layers is not None and info.data.get("config") and not info.data.get("model"):
        raise ValueError("only a pretrained tower is cut; a new one has the layers that its config says")
    return layers


def _of_pooling_stages(stages: list[int] | None, info: ValidationInfo) -> list[int] | None:
    if stages is not None and info.data.get("pooling") != "stages":
        raise ValueError("stages are joined by pooling stages only; set pooling to stages, or leave this out")
    return stages


def _of_a_tower_that_learns(layers: int | None, info: ValidationInfo) -> int | None:
    if layers is not None and info.data.get("frozen"):
        raise ValueError("no layer of a frozen tower learns; set frozen to false, or leave this out")
    return layers


def _entries_or_trim(vocabulary: object, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
    if vocabulary == "trim" and not info.data.get("model"):
        raise ValueError("only a pretrained tower's vocabulary is trimmed; a new one learns so many entries: a number")
    try:
        return validate(vocabulary)
    except ValidationError as error:  # names the parts of the union as if they were keys
        raise ValueError("32 entries or more, or trim") from error


_Entries = Annotated[int, Field(ge=32)]
OF_TRAINING = {"frozen", "trainable_layers"}  # settings of a tower that do not change what it is


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
    trainable_layers: Annotated[int | None, AfterValidator(_of_a_tower_that_learns)] = Field(
        None,
        ge=1,
        description="train the last so many layers only, with the statistics that they were pretrained with; the "
        "outputs of those below are computed once. none: all of them learn",
    )


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
    trainable_layers: Annotated[int | None, AfterValidator(_of_a_tower_that_learns)] = Field(
        None,
        ge=1,
        description="train the last so many layers only; the outputs of those below are computed once. none: all learn",
    )


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
            unused += [f"{tower}.{key}" for key in given.get(tower, {}) if key not in OF_TRAINING]
        if self.folder is not None and unused:
            raise ValueError(
                f"the finished student in folder keeps its towers, and {', '.join(unused)} would change nothing; "
                "name the folder as --student in the place of a preset, and leave these out"
            )
        return self

    @property
    def text_layers(self) -> int | None:
        """`text.trainable_layers`, which a static text tower has not."""
        return self.text.trainable_layers if isinstance(self.text, TransformerTextConfig) else None

    @property
    def frozen(self) -> list[str]:
        """Modalities whose towers do not learn."""
        return ["image"] * self.image.frozen + ["text"] * self.text.frozen
