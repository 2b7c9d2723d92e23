"""What a recipe says in `objective` and `balancer`: which losses and which balancer, and just the settings of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from pydantic import BaseModel, Field, create_model, model_validator
from pydantic.fields import FieldInfo

from distilvl.errors import DistilvlError
from distilvl.objectives.balancers import BALANCERS
from distilvl.objectives.loss import LOSSES, PAPER_LOSSES
from distilvl.objectives.multiscale import QUEUE_SECTION, settings_of
from distilvl.objectives.queue import QueueSettings
from distilvl.objectives.registry import Settings


def model_of(field: FieldInfo | None) -> type[BaseModel] | None:
    """The model that a field of a model holds, if it holds one."""
    kind = field.annotation if field else None
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return next((each for each in kinds if isinstance(each, type) and issubclass(each, BaseModel)), None)


def _has(model: type[BaseModel] | None, path: Sequence[str]) -> bool:
    for part in path:
        if model is None or part not in model.model_fields:
            return False
        model = model_of(model.model_fields[part])
    return True


class Variants(Settings):
    """A section whose other keys depend on the value of `chosen_by`: settings of what was not chosen are errors.

    `model_validate` gives an instance of a subclass with just the keys that belong to that value.
    """

    chosen_by: ClassVar[str]
    carries_over: ClassVar[bool] = True  # whether a setting that two choices have stays when another one is chosen

    @classmethod
    def variant(cls, section: Mapping[str, Any]) -> type[BaseModel]:
        """The model of the section with this value of `chosen_by`; `DistilvlError` where there is none."""
        raise NotImplementedError

    @classmethod
    def choices(cls) -> dict[str, type[BaseModel]]:
        """What this package offers: values of `chosen_by`, each with the model of the section for it."""
        raise NotImplementedError

    @classmethod
    def owners(cls, *path: str) -> list[str]:
        """The values of `chosen_by` that have the setting `path` in this section."""
        return [choice for choice, model in cls.choices().items() if _has(model, path)]

    @model_validator(mode="wrap")
    @classmethod
    def _of_the_variant(cls, section: Any, handler: Any) -> Any:
        if isinstance(section, Mapping) and Variants in cls.__bases__:
            return cls.variant(section).model_validate(section)
        return handler(section)

    def __reduce__(self) -> tuple[Any, ...]:
        # The class of a variant is made when it is needed, so another process has to make it, too.
        root = next(kind for kind in type(self).__mro__ if Variants in kind.__bases__)
        return root.model_validate, (self.model_dump(),)  # type: ignore[attr-defined]


@cache
def _with_fields(cls: type[BaseModel], sections: tuple[tuple[str, type[Settings]], ...]) -> type[BaseModel]:
    """`cls` with these sections at their defaults: the same class for the same sections."""
    fields: dict[str, Any] = {name: (model, model()) for name, model in sections}
    return create_model(cls.__name__, __base__=cls, **fields)


@cache
def _joined(cls: type[BaseModel], settings: type[Settings]) -> type[BaseModel]:
    return create_model(cls.__name__, __base__=cls if settings is Settings else (settings, cls))


class ObjectiveConfig(Variants):
    """Which losses take part; beside these keys, a section of settings for each that has some."""

    chosen_by: ClassVar[str] = "losses"

    losses: list[str] = Field(list(PAPER_LOSSES), min_length=1)
    dims: list[Annotated[int, Field(ge=1)]] = Field(
        [],
        description="Matryoshka: dimensions below D at which the losses are taken as well; the teacher's features are "
        "turned to their principal axes",
    )
    learn_temperatures: bool = Field(False, description="let tau of cd and infonce learn, from their values here")

    @classmethod
    def variant(cls, section: Mapping[str, Any]) -> type[BaseModel]:
        """This with the sections of the losses that `section` names."""
        losses = section.get("losses", PAPER_LOSSES)
        named = isinstance(losses, list | tuple) and all(isinstance(name, str) for name in losses)
        sections = settings_of(losses if named else ())
        if taken := sorted(set(sections) & set(cls.model_fields)):
            raise DistilvlError(f"a loss has the name of the key objective.{taken[0]}.", "Rename the loss.")
        return _with_fields(cls, tuple(sections.items()))

    @classmethod
    def choices(cls) -> dict[str, type[BaseModel]]:
        """For each loss this with its section."""
        return {name: cls.variant({"losses": [name]}) for name in LOSSES.uncontested()}

    @classmethod
    def owners(cls, *path: str) -> list[str]:
        """The losses that have the setting `path`; what a package's loss has is not looked at."""
        return super().owners(*path) or [name for name in LOSSES.added() if (name,) == path]

    @model_validator(mode="after")
    def _makes_sense(self) -> ObjectiveConfig:
        if len(set(self.losses)) != len(self.losses):
            raise ValueError(f"a loss is named twice: {self.losses}")
        if self.losses == ["cd"] and self.queues.queue == 0:
            raise ValueError("without a queue cd is 0 at every step, and it is the only loss; set queue to 1 or more")
        if self.learn_temperatures and not any(LOSSES[name].learns_temperature for name in self.losses):
            raise ValueError("learn_temperatures: none of the losses has a temperature that learns; set it to false")
        return self

    @property
    def needs_teacher(self) -> bool:
        """Whether any of the losses compares with teacher features."""
        return any(LOSSES[name].needs_teacher for name in self.losses)

    @property
    def queues(self) -> QueueSettings:
        """Size and start of the queues, which are empty where no loss reads them."""
        found: QueueSettings = getattr(self, QUEUE_SECTION, None) or QueueSettings(queue=0, start="empty")
        return found

    def settings(self, loss: str) -> Settings:
        """The settings of one of the losses."""
        kind = LOSSES[loss]
        found: Settings = getattr(self, kind.section or loss, None) or kind.settings()
        return found


class BalancerConfig(Variants):
    """How the losses are weighted, eq. 15-18: the name of a balancer, and its settings."""

    chosen_by: ClassVar[str] = "name"

    name: str = "paper"

    @classmethod
    def variant(cls, section: Mapping[str, Any]) -> type[BaseModel]:
        """This with the settings of the balancer that `section` names."""
        name = section.get("name", "paper")
        return _joined(cls, BALANCERS[name].settings if isinstance(name, str) else Settings)

    @classmethod
    def choices(cls) -> dict[str, type[BaseModel]]:
        """For each balancer this with its settings."""
        return {name: cls.variant({"name": name}) for name in BALANCERS.uncontested()}
