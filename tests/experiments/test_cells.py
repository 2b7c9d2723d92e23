from __future__ import annotations

from pathlib import Path

import pytest

from distilvl.errors import DistilvlError
from distilvl.experiments.cells import Base, TableSpec, fingerprint, list_tables, load_table, plan
from distilvl.recipes import load_config

BASE = Base(recipe="demo", data="scenes", features="store", student="demo", overrides=("training.epochs=2",))


@pytest.mark.parametrize("name", list_tables())
def test_every_shipped_table_gives_valid_configs(name: str, tmp_path: Path) -> None:
    table = load_table(name)
    jobs = plan(table, BASE, (0, 1), tmp_path)
    assert [job.cell for job in jobs] == [cell.name for cell in table.cells] * 2
    assert all(job.config.training.epochs == 2 for job in jobs)
    assert len({job.folder for job in jobs}) == len(jobs), "two cells are the same run"


def test_all_tables_of_the_paper_and_its_figure_are_there() -> None:
    assert {*(f"table{k}" for k in range(1, 11)), "figure2"} <= set(list_tables())


def test_table4_has_every_set_of_losses_once() -> None:
    sets = [frozenset(job.config.objective.losses) for job in plan(load_table("table4"), BASE, (0,), Path("out"))]
    assert len(sets) == len(set(sets)) == 2**4 - 1


def test_equal_configs_share_a_folder_across_tables() -> None:
    def folder(table: str, cell: str, seed: int = 0) -> Path:
        jobs = plan(load_table(table), BASE, (0, 1), Path("out"))
        return next(job.folder for job in jobs if (job.cell, job.seed) == (cell, seed))

    assert folder("table2", "dsmd") == folder("table4", "all") == folder("table5", "paper") == folder("figure2", "dsmd")
    assert folder("table5", "official") == folder("table10", "official")
    assert folder("table2", "dsmd") != folder("table2", "dsmd", seed=1)
    assert folder("table2", "dsmd").name[:12] == folder("table2", "dsmd", seed=1).name[:12]


def test_a_cell_takes_method_of_another_recipe_and_rates_of_the_base() -> None:
    job = next(job for job in plan(load_table("table2"), BASE, (3,), Path("out")) if job.cell == "kd")
    assert job.config.objective.losses == ["infonce", "kd"]
    assert job.config.balancer.name == "static"
    assert job.config.optimizer == load_config("demo").optimizer
    assert job.config.training.seed == 3


def test_a_cell_may_run_another_recipe_as_a_whole() -> None:
    table = TableSpec.model_validate(
        {
            "name": "mine",
            "title": "t",
            "cells": [{"name": "other", "label": "l", "recipe": "paper", "set": ["balancer.tau=2"]}],
        }
    )
    config = plan(table, BASE, (4,), Path("out"))[0].config
    paper = load_config("paper")
    assert (config.optimizer, config.schedule, config.objective) == (paper.optimizer, paper.schedule, paper.objective)
    assert (config.balancer.tau, config.training.epochs, config.training.seed) == (2, 2, 4)


def test_the_fingerprint_follows_what_matters() -> None:
    config = load_config("demo", overrides=["training.seed=1"])
    assert fingerprint(config) == fingerprint(load_config("demo", overrides=["training.seed=2"]))
    assert fingerprint(config) == fingerprint(load_config("demo"))
    assert fingerprint(config) != fingerprint(load_config("demo", overrides=["balancer.tau=2"]))
    # A value that is the default counts the same whether it is said or not.
    assert fingerprint(config) == fingerprint(load_config("demo", overrides=["training.validate_every=1"]))


def test_a_cell_that_the_config_refuses_is_named() -> None:
    table = TableSpec.model_validate(
        {"name": "mine", "title": "t", "cells": [{"name": "odd", "label": "l", "set": ["balancer.tua=1"]}]}
    )
    with pytest.raises(DistilvlError, match=r"cell odd of mine.*Did you mean balancer\.tau"):
        plan(table, BASE, (0,), Path("out"))
