from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from distilvl.errors import DistilvlError
from distilvl.recipes import apply_overrides, list_recipes, list_students, load_config, method_sections, save_config
from distilvl.recipes.layers import RENAMED


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
        ("balancer.alhpa=1", "Did you mean balancer.alpha?"),
        ("balancer.name=papre", "Did you mean 'paper'?"),
        ("objective.losses=[cd, hdn]", "Did you mean 'hnd'?"),
        ("optimiser.lr=1", "Did you mean optimizer?"),
        ("objective.cd.temprature=1", "Did you mean objective.cd.temperature?"),
        ("training.epochs=many", "training.epochs"),
        ("training.epochs=0", "greater than or equal to 1"),
        ("balancer.tau", "not key=value"),
        ("balancer.name=null", "balancer.name in paper: Input should be a valid string"),
        ("student.width.x=3", "student.dim in paper: Input should be a valid integer"),
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
        ("kd", ["balancer.name=paper", "balancer.weights.kd=2"], "set name to static"),
        ("paper", ["balancer={name: official, tau: 0.3}"], "balancer.name is official. To use it, set name to paper"),
        ("paper", ["balancer={name: dwa, smoothing: 0.5}"], "set name to paper; otherwise leave it out"),
        ("paper", ["balancer.alpha=1"], "set name to gradnorm"),
        ("paper", ["schedule={kind: cosine, gamma: 0.5}"], "set kind to step"),
        ("paper", ["objective.kd.temperature=1"], "add kd to objective.losses"),
        ("paper", ["objective.losses=[fd]", "objective.cd.queue=0"], "objective.losses are fd"),
        ("crd", ["objective.cd.temperature=1"], "objective.losses are infonce, crd. To use it, add cd to"),
        ("paper", ["objective.losses=[fd]", "objective.learn_temperatures=true"], "a temperature that learns"),
        ("clip-kd", ["objective.losses=[infonce]"], "none of the losses infonce. Correct one of the two."),
        ("paper", ["objective.losses=[cd]", "objective.cd.queue=0"], "set queue to 1 or more"),
        (
            "paper",
            ["student.text.rank=3"],
            "student.text.kind is transformer. To use it, set kind to static; otherwise",
        ),
        ("paper", ["student.text={kind: static, layers: 3}"], "student.text.layers in paper does nothing where"),
        ("paper", ["student.text.kind=static", "student.text.pooling=cls"], "set kind to transformer"),
        ("paper", ["student.text.kind=static", "student.text.ranks=3"], "Did you mean student.text.rank?"),
        ("paper", ["student.text.kind=bag"], "student.text.kind in paper: Input should be 'transformer' or 'static'"),
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
        ["objective.losses=[fd, cd]", "objective.cd.queue=0"],
        ["objective.losses=[infonce, crd]", "objective.cd.queue=5", "objective.cd.start=empty"],
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


def test_a_folder_called_like_a_preset_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny").mkdir()  # of a run in --out tiny, say, which the same command continues
    assert load_config("default", student="tiny").student.folder is None
    assert load_config("default", student="./tiny").student.folder == "./tiny"


def test_a_finished_student_takes_no_options_of_a_new_one(tmp_path: Path) -> None:
    student, saved = tmp_path / "student", tmp_path / "config.yaml"
    student.mkdir()
    for unused in ("normalize=false", "text.max_length=8", "image.size=64", "image.pooling=mean"):
        with pytest.raises(DistilvlError, match=f"{unused.partition('=')[0]} would change nothing; .* as --student"):
            load_config("paper", student=str(student), overrides=[f"student.{unused}"])
    # The default preset is a new student's.
    with pytest.raises(DistilvlError, match=r"image\.model, .* would change nothing; name the folder as --student"):
        load_config("paper", overrides=[f"student.folder={student}"])
    used = ["student.dim=12", "student.image.frozen=true", "student.text.frozen=true"]
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


METHODS = ["kd", "dkd", "fsp", "dcd", "clip-kd", "rkd", "sp", "crd", "open-clip", "mobile-clip"]


@pytest.mark.parametrize("recipe", [*METHODS, "tiny-clip", "contrastive"])
def test_other_systems_differ_from_default_in_method_only(recipe: str) -> None:
    config, default = load_config(recipe), load_config("default")
    assert config.balancer.name == "static"
    assert ("infonce" in config.objective.losses) == (recipe != "tiny-clip")
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


def test_switching_a_variant_drops_what_the_recipe_says_of_the_other() -> None:
    config = load_config("paper", overrides=["balancer.name=gradnorm", "schedule.kind=cosine", "objective.losses=[fd]"])
    assert set(config.balancer.model_dump()) == {"name", "alpha", "lr", "floor"}
    assert set(config.schedule.model_dump()) == {"kind", "warmup"}
    assert set(config.objective.model_dump()) == {"losses", "dims", "learn_temperatures"}
    assert load_config("kd", overrides=["balancer.name=paper"]).balancer == load_config("paper").balancer
    # What `contrastive` leaves out of `default` is there again for a loss that is chosen after all.
    assert load_config("contrastive", overrides=["objective.losses=[infonce, hnd]"]).objective.hnd.margin == 0.2


def test_shared_overrides_are_left_out_where_they_would_do_nothing() -> None:
    shared = ["balancer.tau=3", "objective.cd.queue=7", "objective.cd.temperature=0.7", "training.epochs=2"]
    config = load_config("paper", shared_overrides=shared)
    assert (config.balancer.tau, config.objective.cd.queue, config.objective.cd.temperature) == (3, 7, 0.7)
    config = load_config(
        "paper", shared_overrides=shared, overrides=["balancer.name=official", "objective.losses=[crd]"]
    )
    assert (config.training.epochs, config.objective.cd.model_dump()) == (2, {"queue": 7, "start": "stored"})
    with pytest.raises(DistilvlError, match=r"Did you mean balancer\.tau"):
        load_config("paper", shared_overrides=["balancer.tua=3"])


SAVED_BY_0_1 = """
inputs: {data: photos, val_data: null, extra_data: null, teacher: null, features: store}
student:
  folder: null
  image: {model: null, config: {model_type: vit}, layers: null, size: 32, pooling: mean, frozen: false}
  text: {model: null, config: {model_type: bert}, layers: null, vocabulary: 120, max_length: 48, pooling: mean,
         frozen: false}
  width: 12
  normalize: true
objective:
  losses: [infonce, kd]
  cd: {temperature: 0.05, queue: 8192, start: stored, mask_false_negatives: true}
  sd: {halved: true}
  hnd: {margin: 0.2, negatives: hardest, reduction: sum, mask_false_negatives: true}
  qd: {temperature: 0.05}
  infonce: {temperature: 0.05}
  kd: {temperature: 0.05}
  dcd: {temperature: 0.05, hard_negatives: 7, alpha: 0.2}
  clipkd: {temperature: 0.05}
  crd: {temperature: 0.07}
  openclip: {temperature_student: 0.05, temperature_teacher: 0.05}
  widths: [6]
  learn_temperatures: false
balancer: {name: static, tau: 1.0, floor: 1.0e-08, smoothing: 0.0, weights: {infonce: 1, kd: 1}, lr: 0.1, alpha: 1.5}
optimizer: {lr: 0.0001, head_lr: 0.002, weight_decay: 0.0001, betas: [0.9, 0.999], layer_decay: 1.0, clip_norm: 1.0}
schedule: {kind: cosine, milestones: [0.5], gamma: 0.1, warmup: 0.02}
training: {epochs: 2, batch_size: 8, views: 3, head_start: regression, accumulate: 2, precision: fp32}
"""


def test_a_config_that_version_0_1_saved_is_the_one_that_is_resolved_now(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved, student = tmp_path / "config.yaml", tmp_path / "student.yaml"
    saved.write_text(SAVED_BY_0_1, encoding="utf-8")
    student.write_text(
        "image: {config: {model_type: vit}, size: 32, pooling: mean}\n"
        "text: {config: {model_type: bert}, vocabulary: 120, max_length: 48, pooling: mean}\ndim: 12\n",
        encoding="utf-8",
    )
    old = load_config(str(saved))
    assert not caplog.records
    overrides = [
        *("training.epochs=2", "training.batch_size=8", "training.crops=3", "training.head_init=ridge"),
        *("training.gradcache_chunks=2", "training.precision=fp32", "objective.dims=[6]"),
    ]
    inputs = {"data": "photos", "features": "store"}
    assert old == load_config("kd", student=str(student), overrides=overrides, inputs=inputs)


def test_old_names_of_keys_are_taken_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: paper\ntraining: {accumulate: 4}\nobjective: {widths: [8]}\n", encoding="utf-8")
    config = load_config(
        str(mine), overrides=["training.head_start=regression", "student.width=16", "training={views: 2}"]
    )
    assert (config.objective.dims, config.student.dim, config.training.crops) == ([8], 16, 2)
    assert config == load_config("paper", overrides=["objective.dims=[8]", "student.dim=16", "training={crops: 2}"])
    assert load_config("paper", overrides=["training.head_start=regression"]).training.head_init == "ridge"
    told = [record.getMessage() for record in caplog.records]
    assert f"training.accumulate in {mine} is called training.gradcache_chunks now; write gradcache_chunks: 4" in told
    assert len(told) == len(set(told))


@pytest.mark.parametrize(("old", "new"), [(old, new) for old, (new, _) in RENAMED.items()])
def test_both_names_of_one_key_are_refused(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(DistilvlError, match=f"both .* two names of one setting. Keep {new}"):
        load_config("paper", overrides=[f"{new}=2", f"{old}=2"])
    section, key = old.split(".")
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"{section}: {{{key}: 2, {new.split('.')[1]}: 2}}\n", encoding="utf-8")
    with pytest.raises(DistilvlError, match=f"both {old} and {new}, two names of one setting"):
        load_config(str(mine))


@pytest.mark.parametrize("recipe", list_recipes())
def test_a_config_is_sent_to_another_process(recipe: str) -> None:
    config = load_config(recipe, overrides=["balancer={name: gradnorm, alpha: 0.5}"])
    code = f"import pickle; print(pickle.loads({pickle.dumps(config)!r}).model_dump_json())"
    if recipe in ("default", "crd"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == config.model_dump_json()
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301  # bytes of our own


def test_a_text_tower_of_another_kind_takes_nothing_over_from_the_preset(tmp_path: Path) -> None:
    """A preset's count of word pieces is no count of words; what both kinds are told above the choice stays."""
    chosen = load_config("demo", student="demo", overrides=["student.text.kind=static", "student.text.rank=5"])
    said = {"kind": "static", "frozen": False, "vocabulary": 4000, "pairs": 0, "rank": 5, "max_length": 256}
    assert chosen.student.text.model_dump() == said
    save_config(chosen, tmp_path / "config.yaml")
    assert load_config(str(tmp_path / "config.yaml")) == chosen
    mine = tmp_path / "mine.yaml"
    mine.write_text("image: {config: {model_type: vit}}\ntext: {kind: static, vocabulary: 900}\n", encoding="utf-8")
    again = load_config("demo", student=str(mine), overrides=["student.text.kind=static"]).student.text
    assert (again.vocabulary, again.rank) == (900, 128)  # type: ignore[attr-defined]
    back = load_config("demo", student=str(mine), overrides=["student.text.kind=transformer"]).student.text
    assert back == type(back)()


def test_a_config_without_a_kind_of_text_tower_loads(tmp_path: Path) -> None:
    config = load_config("demo", student="demo")
    old = config.model_dump(mode="json")
    assert old["student"]["text"].pop("kind") == "transformer"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old), encoding="utf-8")
    assert load_config(str(tmp_path / "config.yaml")) == config
