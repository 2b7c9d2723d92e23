"""The documentation site: `make docs` builds it from these pages and from docstrings, and stops at any warning."""

import os
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

import distilvl
import distilvl.students
import distilvl.teachers

HERE = Path(__file__).parent
for _package in (distilvl, distilvl.students, distilvl.teachers):  # what is imported on first use is imported now
    for _name in _package.__all__:
        setattr(_package, _name, getattr(_package, _name))

project, author, release = "distilvl", "the distilvl developers", distilvl.__version__
html_title = f"distilvl {release}"
extensions = [
    "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx.ext.viewcode",
    "sphinxcontrib.mermaid", "sphinx_copybutton",
]  # fmt: skip
html_theme = "furo"
exclude_patterns = ["templates"]
templates_path = ["templates"]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]

default_role = "code"  # docstrings are written with single backticks
autosummary_imported_members = True
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
autodoc_default_options = {"exclude-members": "model_config, model_post_init"}
python_maximum_signature_line_length = 88
napoleon_use_rtype = False

_LISTS = re.compile(r"^\s*([-*]|\d+\.)\s")
_BAR = re.compile(r"\|(?=(?:[^`]*`[^`]*`)*[^`]*$)")  # outside of backticks
_SECTION = re.compile(r"^\s*(Args|Attributes|Raises|Returns|Yields|Note|Example)s?:\s*$")


def formulas_stay(_app: Sphinx, _kind: str, _name: str, _of: object, _options: object, lines: list[str]) -> None:
    """An indented paragraph of a docstring is a formula or a table: it keeps its lines.

    Runs before napoleon, which would read a section's indented lines likewise; so those are left alone.
    """
    new: list[str] = []
    section = False
    for number, line in enumerate(lines):
        before = lines[number - 1] if number else ""
        if _SECTION.match(line):
            section = True
        elif line.strip() and not line.startswith(" "):
            section = False
        begins = line.startswith("    ") and not before.strip() and not section and not _LISTS.match(line)
        if begins and not _literal(new):
            new += ["::", ""]
        new.append(line if line.startswith("    ") or begins else _BAR.sub(r"\\|", line))
    lines[:] = new


def _literal(lines: list[str]) -> bool:
    """Whether the next indented line goes on with what is literal already."""
    for line in reversed(lines):
        if line.strip():
            return line.startswith("    ") or line.endswith("::")
    return False


def links_out_of_the_pages(app: Sphinx, _name: str, tree: nodes.document) -> None:
    """Links to files of the repository: to its address where one is known, plain text otherwise."""
    address = os.environ.get("DISTILVL_REPOSITORY", "").rstrip("/")
    for link in list(tree.findall(lambda node: "reftarget" in getattr(node, "attributes", {}))):
        target = str(link["reftarget"]).partition("#")[0]
        place = (Path(str(app.env.doc2path(_name))).parent / target).resolve()
        inside = place.is_relative_to(HERE) and place.suffix == ".md"
        if not target or inside or not place.exists() or not place.is_relative_to(HERE.parent):
            continue
        path = place.relative_to(HERE.parent).as_posix()
        if address:
            link.replace_self(nodes.reference("", "", *link.children, refuri=f"{address}/blob/main/{path}"))
        else:
            link.replace_self(link.children)


def setup(app: Sphinx) -> None:
    """Sphinx calls it."""
    app.connect("autodoc-process-docstring", formulas_stay, priority=100)
    app.connect("doctree-read", lambda app, tree: links_out_of_the_pages(app, app.env.docname, tree))
