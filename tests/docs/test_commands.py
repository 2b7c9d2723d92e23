"""Every command, option, setting and Python name in README.md, docs/ and the commands' own help exists."""

from __future__ import annotations

import ast
import functools
import importlib
import json
import re
import shlex
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from blocks import PAGES, PYTHON, ROOT, SHELL, Block, all_blocks, blocks_of, inline_code
from shell import commands_in
from workshop import VARIABLES

import distilvl
from distilvl.cli import app
from distilvl.config import Config
from distilvl.errors import DistilvlError
from distilvl.experiments.candidates import read_candidates
from distilvl.recipes import load_config

DISTILVL: Any = typer.main.get_command(app)
UsageError: type[Exception] = typer.BadParameter.__base__  # click's, which newer releases of typer carry inside
SCRIPTS = ("scripts", "benchmarks", "examples")
SECTIONS = tuple(f"{name}." for name in Config.model_fields)


def parse(words: list[str]) -> None:
    """Read the words after `distilvl` as the command line does; `UsageError` where it would refuse them."""
    command, name = DISTILVL, "distilvl"
    while True:
        context = command.make_context(name, list(words))
        # What is left of a group's words is the name and the words of a command in it.
        words = [*context._protected_args, *context.args] if hasattr(command, "commands") else []
        if not words:
            break
        name, command, words = command.resolve_command(context, words)
    for item in context.params.get("set_") or ():
        check_setting(item)


def check_setting(item: str) -> None:
    """`DistilvlError` where `--set item` names no setting. Values that a reader is to fill in are taken for text."""
    try:
        load_config(overrides=[item])
    except DistilvlError as error:
        if "unknown" in str(error) or "is not key=value" in str(error):
            raise


def options(command: Any) -> set[str]:
    """The options of a command and of the commands in it."""
    own = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*(options(inner) for inner in getattr(command, "commands", {}).values()))


def commands(command: Any = DISTILVL, name: str = "distilvl") -> Iterator[tuple[str, Any]]:
    """All commands with their names."""
    yield name, command
    for inner, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{name} {inner}")


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.language == SHELL for b in blocks_of(page))])
def test_the_commands_of_a_page_exist(page: str, tmp_path: Path) -> None:
    # What a block names of a package that it makes itself is known only where test_blocks.py runs it.
    blocks = [block for block in blocks_of(page) if block.language == SHELL and "entry_points" not in block.text]
    problems = []
    for words in commands_in("".join(block.text for block in blocks), tmp_path, VARIABLES):
        try:
            check_command(words)
        except Exception as problem:
            problems.append(f"{shlex.join(words)}: {problem}")
    assert not problems, "\n".join(problems)


SCRIPT_FILES = [path for place in SCRIPTS for path in sorted((ROOT / place).glob("*.py"))]


@pytest.mark.parametrize("script", [pytest.param(path, id=path.name) for path in SCRIPT_FILES])
def test_the_commands_in_a_script_s_docstring_exist(script: Path, tmp_path: Path) -> None:
    text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    block = "\n".join(re.findall(r"^ *((?:python|distilvl|pip) .*)", text, re.MULTILINE))
    assert f"python {script.relative_to(ROOT)}" in block
    for words in commands_in(block, tmp_path, VARIABLES):
        check_command([word.strip("[]") for word in words])


def check_command(words: list[str]) -> None:
    """That what the words call exists, as far as it is ours."""
    if "distilvl" in words:  # behind torchrun too
        parse(words[words.index("distilvl") + 1 :])
    elif words[0] == "python" and words[1].endswith(".py"):
        script = (ROOT / words[1]).read_text(encoding="utf-8")
        for option in (word for word in words if word.startswith("--")):
            assert f'"{option}"' in script, f"{words[1]} has no {option}"
    elif words[:2] == ["pip", "install"] and words[2].startswith("distilvl"):
        extras = words[2].rstrip("]").partition("[")[2].split(",")
        assert set(extras) <= set(metadata("distilvl").get_all("Provides-Extra") or ()), words[2]
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), words[1]


@pytest.mark.parametrize("page", PAGES)
def test_what_sentences_name_exists(page: str) -> None:
    assert [code for code in inline_code(page) if is_stale(code)] == []


def test_what_messages_and_docstrings_name_exists() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py")}
    named = [(path.name, code) for path, text in texts.items() for code in re.findall(r"`(distilvl [^`\n{]*)`", text)]
    assert len(named) > 20
    assert [item for item in named if is_stale(item[1])] == []


@pytest.mark.parametrize(
    "code",
    [
        "distilvl evaluate",
        "distilvl --versions",
        "distilvl eval RUN --wide 64",
        "--skip-bed",
        "training.epoch=6",
        "student.image.sizes",
    ],
)
def test_stale_names_are_found(code: str) -> None:
    assert is_stale(code)
    assert not any(
        map(
            is_stale,
            (
                "distilvl eval RUN --dim 64",
                "distilvl --version",
                "distilvl eval RUN --width 64",
                "--skip-bad",
                "training.epochs=6",
                "student.image.size",
            ),
        )
    )


def is_stale(code: str) -> bool:
    """Whether `distilvl COMMAND ... --option`, an option alone, or `section.setting` names what there is not."""
    words = code.split()
    flags = [word for word in words if re.fullmatch(r"--[a-z-]+", word)]
    if words[0] == "distilvl" and len(words) > 1 and words[1].islower():
        command = DISTILVL if words[1] in flags else DISTILVL.commands.get(words[1])
        if command is None or not options(command).issuperset({*flags} - {"--help"}):
            return True
    elif words[0] in flags and words[0] not in every_option():
        return True
    settings = (word.partition("=")[0] for word in words if word.startswith(SECTIONS))
    return not all(setting_exists(name) for name in settings if re.fullmatch(r"[a-z_.]+", name))


@functools.cache
def every_option() -> set[str]:
    """Of all commands, and of the scripts and benchmarks."""
    scripts = "".join(path.read_text(encoding="utf-8") for path in SCRIPT_FILES)
    return options(DISTILVL) | set(re.findall(r'"(--[a-z-]+)"', scripts))


def setting_exists(name: str) -> bool:
    try:
        check_setting(f"{name}=null")
    except DistilvlError:
        return False
    return True


@pytest.mark.parametrize(
    "wrong",
    [
        "train",
        "train --out a --epoch 3",
        "train --out a --set training.epoch=3",
        "train --out a --set training",
        "evaluate a",
        "features merge",
        "search a b c",
        "serve --port x",
        "data look photos",
    ],
)
def test_a_command_that_would_be_refused_is_found(wrong: str) -> None:
    with pytest.raises((DistilvlError, UsageError)):
        parse(wrong.split())
    parse(["features", "merge", "a", "b", "--out", "c"])
    parse(["train", "--out", "a", "--set", "balancer.tau=0.5", "--set", "student.image.model=FOLDER"])


@pytest.mark.parametrize(("name", "command"), [pytest.param(*pair, id=pair[0]) for pair in commands()])
def test_every_command_has_an_example_that_it_takes(name: str, command: Any, tmp_path: Path) -> None:
    if getattr(command, "commands", None) and not getattr(command, "invoke_without_command", False):
        return  # a group whose commands have theirs
    assert command.epilog, f"{name} has no example"
    example = command.epilog.removeprefix("Example: ")
    (words,) = commands_in(example, tmp_path, VARIABLES)
    assert " ".join(words).startswith(name)
    parse(words[1:])


@pytest.mark.parametrize("block", [pytest.param(block, id=str(block)) for block in all_blocks(PYTHON)])
def test_what_python_imports_from_distilvl_exists(block: Block) -> None:
    tree = ast.parse(block.text, filename=str(block))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("distilvl"):
            module = importlib.import_module(node.module or "")
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "distilvl":
            assert node.attr in distilvl.__all__


def check_data(block: Block, folder: Path) -> None:
    """That JSON can be read, and that YAML with a section of a recipe is one, or a list of candidate towers."""
    if block.language == "json":
        json.loads(block.text)
    elif isinstance(yaml.safe_load(block.text), list):
        candidates = folder / "candidates.yaml"
        candidates.write_text(block.text, encoding="utf-8")
        assert read_candidates([], candidates)
    elif set(yaml.safe_load(block.text)) & {*Config.model_fields, "extends"}:
        recipe = folder / "recipe.yaml"
        recipe.write_text(block.text, encoding="utf-8")
        load_config(str(recipe))


def test_json_can_be_read_and_recipes_are_recipes(tmp_path: Path) -> None:
    for block in all_blocks("json", "yaml"):
        check_data(block, tmp_path)
    with pytest.raises(DistilvlError):
        check_data(Block("page.md", 1, "yaml", "extends: default\ntraining: {epoch: 3}", None), tmp_path)
    with pytest.raises(ValueError):
        check_data(Block("page.md", 1, "json", "{'a': 1}", None), tmp_path)
