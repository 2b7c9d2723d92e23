from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.errors import DistilvlError
from distilvl.recipes import apply_overrides, list_recipes, list_students, load_config, method_sections, save_config


@pytest.mark.parametrize("recipe", list_recipes())
def test_every_shipped_recipe_is_valid_with_every_shipped_student(recipe: str) -> None:
    for student in list_students():
        config = load_config(recipe, student=student)
        assert config.student.image.model or config.student.image.config


def test_paper_recipe_is_section_4_1_4() -> None:
    config = load_config("paper")
    assert (config.objective.cd.temperature, config.objective.cd.queue) == (0.05, 8192)
    assert (config.objective.hnd.margin, config.balancer.name, config.balancer.tau) == (0.0, "paper", 1.0)
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (1e-4, 1e-4)
    assert (config.training.epochs, config.training.batch_size) == (20, 64)
    assert (config.schedule.kind, config.schedule.milestones, config.schedule.gamma) == ("step", [0.5], 0.1)


def test_overrides_reach_nested_values_and_read_floats_without_a_dot() -> None:
    config = load_config(
        "paper", overrides=["optimizer.lr=1e-3", "objective.losses=[cd, fd]", "student.image.layers=3"]
    )
    assert config.optimizer.lr == 1e-3
    assert config.objective.losses == ["cd", "fd"]
    assert config.student.image.layers == 3


@given(st.floats(1e-6, 1e3), st.integers(1, 1000))
def test_overrides_keep_numbers(tau: float, epochs: int) -> None:
    tree: dict[str, object] = {"training": {"epochs": 1}}
    apply_overrides(tree, [f"balancer.tau={tau!r}", f"training.epochs={epochs}"])
    assert tree == {"training": {"epochs": epochs}, "balancer": {"tau": tau}}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("balancer.tua=1", "Did you mean balancer.tau?"),
        ("optimiser.lr=1", "Did you mean optimizer?"),
        ("objective.cd.temprature=1", "Did you mean objective.cd.temperature?"),
        ("training.epochs=many", "training.epochs"),
        ("training.epochs=0", "greater than or equal to 1"),
        ("balancer.tau", "not key=value"),
        ("objective.losses=[cd, cd]", "named twice"),
    ],
)
def test_bad_overrides_name_the_key_and_the_remedy(override: str, expected: str) -> None:
    with pytest.raises(DistilvlError) as caught:
        load_config("paper", overrides=[override])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "overrides", "expected"),
    [
        ("paper", ["schedule.milestones=[1]"], "schedule.milestones.0"),
        ("paper", ["schedule.milestones=[0]"], "schedule.milestones.0"),
        ("paper", ["student.image={config: {model_type: vit}, layers: 3}"], "only a pretrained tower is cut"),
        ("paper", ["student.text={config: {model_type: bert}, layers: 3}"], "only a pretrained tower is cut"),
        ("official", ["training.captions_per_image=2"], "set it to distinct_images"),
        ("paper", ["training.sampling=captions", "training.captions_per_image=2"], "set it to distinct_images"),
        ("paper", ["training.token_dropout=0.1", "student.text.frozen=true"], "set it to 0, or student.text.frozen"),
        ("paper", ["balancer.weights.hnd=5"], "set name to static"),
        ("kd", ["balancer.name=paper"], "or weights to {}"),
        ("paper", ["objective.losses=[cd]", "objective.cd.queue=0"], "set queue to 1 or more"),
        ("paper", ["training.seed=-1"], "training.seed"),
        ("paper", ["training.seed=4294967296"], "training.seed"),
        ("paper", ["optimizer.betas=[0.9, 1]"], "optimizer.betas.1"),
        ("paper", ["optimizer.betas=[-0.1, 0.9]"], "optimizer.betas.0"),
    ],
)
def test_options_that_would_do_nothing_are_refused(recipe: str, overrides: list[str], expected: str) -> None:
    with pytest.raises(DistilvlError) as caught:
        load_config(recipe, overrides=overrides)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["schedule.milestones=[]"],
        ["objective.losses=[fd]", "objective.cd.queue=0"],
        ["balancer.name=static", "balancer.weights.hnd=5"],
        ["training.token_dropout=0.1", "student.image.frozen=true"],
        ["training.captions_per_image=2"],
        ["optimizer.betas=[0, 0.5]", "training.seed=4294967295"],
    ],
)
def test_options_that_do_something_are_not_refused(overrides: list[str]) -> None:
    load_config("paper", overrides=overrides)


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(DistilvlError, match="Did you mean 'paper'"):
        load_config("papre")
    with pytest.raises(DistilvlError, match="Did you mean 'tiny'"):
        load_config("paper", student="tinny")


def test_unknown_key_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("training: {epoch: 3}\n", encoding="utf-8")
    with pytest.raises(DistilvlError) as caught:
        load_config(str(path))
    assert "training.epoch" in str(caught.value)
    assert str(path) in str(caught.value)
    path.write_text("training: {epochs: [", encoding="utf-8")
    with pytest.raises(DistilvlError, match="not valid YAML"):
        load_config(str(path))


def test_a_saved_config_loads_to_the_same_config(tmp_path: Path) -> None:
    config = load_config("default", student="demo", overrides=["training.seed=7"], inputs={"data": "scenes"})
    save_config(config, tmp_path / "config.yaml")
    assert load_config(str(tmp_path / "config.yaml")) == config


def test_a_folder_as_student_is_taken_as_a_finished_one(tmp_path: Path) -> None:
    assert load_config("paper", student=str(tmp_path)).student.folder == str(tmp_path)


def test_a_finished_student_takes_no_options_of_a_new_one(tmp_path: Path) -> None:
    student, saved = tmp_path / "student", tmp_path / "config.yaml"
    student.mkdir()
    for unused in ("normalize=false", "text.max_length=8", "image.size=64", "image.pooling=mean"):
        with pytest.raises(DistilvlError, match=f"{unused.partition('=')[0]} would change nothing; .* as --student"):
            load_config("paper", student=str(student), overrides=[f"student.{unused}"])
    # The default preset is a new student's.
    with pytest.raises(DistilvlError, match=r"image\.model, .* would change nothing; name the folder as --student"):
        load_config("paper", overrides=[f"student.folder={student}"])
    used = ["student.width=12", "student.image.frozen=true", "student.text.frozen=true"]
    config = load_config("paper", student=str(student), overrides=used)
    save_config(config, saved)
    assert load_config(str(saved)) == config


def test_a_recipe_says_only_what_differs_from_the_one_it_extends(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: default\nobjective: {hnd: {margin: 0.5}}\ntraining: {epochs: 3}\n", encoding="utf-8")
    config, default = load_config(str(mine)), load_config("default")
    assert (config.objective.hnd.margin, config.training.epochs) == (0.5, 3)
    assert config.objective.hnd.negatives == default.objective.hnd.negatives
    assert (config.optimizer, config.balancer) == (default.optimizer, default.balancer)


def test_recipes_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(f"extends: {second}\n", encoding="utf-8")
    second.write_text(f"extends: {first}\n", encoding="utf-8")
    with pytest.raises(DistilvlError, match="extends itself"):
        load_config(str(first))


@pytest.mark.parametrize("recipe", ["kd", "fsp", "dcd", "clip-kd", "rkd", "crd", "open-clip", "contrastive"])
def test_other_systems_differ_from_default_in_method_only(recipe: str) -> None:
    config, default = load_config(recipe), load_config("default")
    assert config.balancer.name == "static"
    assert config.objective.losses[0] == "infonce"
    assert set(config.balancer.weights) <= set(config.objective.losses)
    assert (config.optimizer, config.schedule, config.training) == (
        default.optimizer,
        default.schedule,
        default.training,
    )
    assert method_sections(recipe)["objective"]["losses"] == config.objective.losses


def test_official_is_the_published_readings_together() -> None:
    config = load_config("official")
    assert config.balancer.name == "official"
    assert (config.training.sampling, config.objective.cd.start) == ("captions_in_order", "random")
    assert not config.objective.cd.mask_false_negatives
    assert not config.objective.hnd.mask_false_negatives
    assert (config.objective.hnd.negatives, config.objective.hnd.reduction) == ("all", "sum")


def test_whole_sections_can_be_taken_from_elsewhere() -> None:
    sections = method_sections("kd")
    config = load_config("demo", sections=sections, overrides=["objective.kd.temperature=0.1"])
    assert config.objective.losses == ["infonce", "kd"]
    assert config.objective.kd.temperature == 0.1
    assert config.optimizer == load_config("demo").optimizer
