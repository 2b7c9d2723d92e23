"""README.md and docs/ do what they say: every block runs, in order, in a folder with small real input (`blocks.py`)."""

from __future__ import annotations

import pytest
from blocks import LANGUAGES, PAGES, PYTHON, SHELL, Block, all_blocks, begins_with, blocks_of, docstring_examples
from workshop import MADE, Workshop

MOST_NOT_RUN = 0.3
COMMANDS = ("distilvl", "python", "pip", "curl", "make", "torchrun", "export", "npm", "$")

# What runs in the quick tier; the others train more or load more.
QUICK = ("docs/data.md",)


def runnable(page: str) -> list[Block]:
    return [block for block in blocks_of(page) if block.language in (SHELL, PYTHON) and block.not_run is None]


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=() if page in QUICK else pytest.mark.slow) for page in PAGES if runnable(page)],
)
@pytest.mark.timeout(1800)  # a busy machine; alone, a page takes half a minute at most
def test_the_blocks_of_a_page_run_in_order(page: str, workshop: Workshop) -> None:
    folder = workshop.open_page(begins_with(page))
    problems = [workshop.run(block, folder) for block in runnable(page)]
    problems.append(workshop.close_page(folder))
    assert not any(problems), "\n\n".join(filter(None, problems))


@pytest.mark.slow
def test_the_examples_in_docstrings_run(workshop: Workshop) -> None:
    # That of the browser fetches two packages of npm.
    examples = [block for block in docstring_examples() if block.page != "src/distilvl/browser/__init__.py"]
    assert {"src/distilvl/__init__.py", "src/distilvl/runtime/__init__.py"} <= {block.page for block in examples}
    folder = workshop.open_page(["runs/demo", "exported"])
    problems = [workshop.run(block, folder) for block in examples]
    problems.append(workshop.close_page(folder))
    assert not any(problems), "\n\n".join(filter(None, problems))


def test_every_block_says_what_it_is() -> None:
    unknown = [f"{block}: {block.language!r}" for block in all_blocks() if block.language not in (*LANGUAGES, None)]
    assert not unknown, f"label the fence with one of {LANGUAGES}"
    shell = [str(block) for block in all_blocks() if block.language is None and block.text.startswith(COMMANDS)]
    assert not shell, "commands belong into a fence labelled sh"


def test_what_is_not_run_says_why_and_is_little() -> None:
    blocks = all_blocks(SHELL, PYTHON)
    left_out = [block for block in blocks if block.not_run is not None]
    assert [str(block) for block in left_out if len((block.not_run or "").split()) < 2] == [], "<!-- not run: WHY -->"
    assert len(left_out) <= MOST_NOT_RUN * len(blocks), [str(block) for block in left_out]


def test_what_a_page_begins_with_can_be_made() -> None:
    assert {item for page in PAGES for item in begins_with(page)} <= set(MADE)


def test_comments_belong_to_the_next_block_only() -> None:
    text = (
        "<!-- not run: needs a hub -->\n```sh\na\n```\n\n```python\nb\n```\n<!-- not run: -->\n```sh\nc\n```\n    d\n"
    )
    found = [(block.language, block.text, block.not_run) for block in blocks_of("page.md", text)]
    assert found == [(SHELL, "a\n", "needs a hub"), (PYTHON, "b\n", None), (SHELL, "c\n", ""), (None, "d\n", None)]


def test_a_block_that_fails_is_told_with_its_line_and_its_error(workshop: Workshop) -> None:
    folder = workshop.open_page([])
    wrong = [
        Block("page.md", 3, SHELL, "distilvl eval nowhere --data photos | cat\n", None),
        Block("page.md", 5, SHELL, "pip install 'distilvl[nothing]'\n", None),
        Block("page.md", 7, PYTHON, "from distilvl import nothing\n", None),
    ]
    right = Block(
        "page.md", 9, SHELL, "COUNT=$(distilvl data inspect photos --json | grep -c train)\ntest $COUNT -gt 0", None
    )
    then = Block("page.md", 12, SHELL, "test $COUNT -gt 0", None)
    told = [workshop.run(block, folder) for block in (*wrong, right, then)]
    assert workshop.close_page(folder) == ""
    assert "page.md:3: exit code 2" in told[0]
    assert "error: " in told[0]
    assert "page.md:5" in told[1]
    assert "ImportError" in told[2]
    assert told[3:] == ["", ""]
