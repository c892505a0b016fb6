"""The documentation site: `make docs` builds it from the pages that are read on GitHub, too.

The sources are the repository's own files, so that a link between two of them holds in both places.
The README is the first page, and its list "Read on" is the navigation. The pages of the Python
names and of the command line are written anew at every build, from docstrings and from `--help`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole
from sphinx.errors import ExtensionError
from sphinx.pycode import ModuleAnalyzer

ROOT = Path(__file__).resolve().parents[1]
# Classes of other libraries, whose members are not described again.
FOREIGN = (
    "Exception, BaseException, dict, Protocol, BaseEstimator, ClassifierMixin, _MetadataRequester"
)
# What every exception has from Python, and every estimator from scikit-learn.
OF_ANY_CLASS = "add_note, with_traceback, set_score_request"
OPTIONS = "options"
GENERATED = ROOT / "docs" / "reference" / "generated"
sys.path.insert(0, str(ROOT / "src"))

import trustvlm  # noqa: E402

project = "trustvlm"
author = "The trustvlm developers"
project_copyright = author
version = release = trustvlm.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
root_doc = "README"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/*.ipynb",
    "docs/extend/*.md",
    "docs/reference/**",
    "docs/research/*.md",
    "benchmarks/RESULTS.md",
]
exclude_patterns = [".*", "build", "dist", "src", "tests", "examples"]

# Headings have the anchors that GitHub gives them, and a link to none is an error.
myst_heading_anchors = 6
myst_links_external_new_tab = False
# The notebook's outputs are stored in it, and tested.
nb_execution_mode = "off"

napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the signatures have them
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autodoc_type_aliases = {
    name: name for name in ("ArrayLike", "Columns", "LabelledSource", "NDArray", "Source")
}
python_maximum_signature_line_length = 72
python_use_unqualified_type_names = True
default_role = "name"

html_theme = "pydata_sphinx_theme"
html_title = "trustvlm"
html_static_path = ["_static"]
templates_path = ["_templates"]
html_css_files = ["site.css"]
html_sidebars = {"**": ["navigation.html"]}
html_show_sourcelink = False
html_copy_source = False
html_context = {"default_mode": "auto"}
html_additional_pages = {"index": "index.html"}
html_theme_options: dict[str, Any] = {
    "logo": {"text": "trustvlm"},
    "navbar_center": [],
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
    "navigation_with_keys": False,
}
# A name that two rooms export has two targets, and either is right.
suppress_warnings = ["ref.python"]


# --- The navigation: the list of pages in the README.


def navigation() -> dict[str, list[str]]:
    """Titles of groups, and the pages of each, as the README's section "Read on" lists them.

    A page that is listed twice belongs where it is listed first.
    """
    _, _, section = (ROOT / "README.md").read_text("utf-8").partition("\n## Read on\n")
    groups: dict[str, list[str]] = {}
    for title, text in re.findall(r"^### (.+)\n((?:(?!#).*\n)*)", section, re.MULTILINE):
        pages = re.findall(r"\]\(([^)#:]+)\.(?:md|ipynb)\)", text)
        before = {page for listed in groups.values() for page in listed}
        groups[title] = [page for page in dict.fromkeys(pages) if page not in before]
    return groups


def add_navigation(_: Sphinx, docname: str, source: list[str]) -> None:
    """Append the tables of contents, which the theme shows beside every page."""
    if docname == root_doc:
        for title, pages in navigation().items():
            entries = "\n".join(f"/{page}" for page in pages)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{entries}\n```\n"
    elif docname in GENERATED_BELOW:
        entries = "\n".join(f"/{page_of(name)}" for name in GENERATED_BELOW[docname]())
        source[0] += f"\n```{{toctree}}\n:hidden:\n\n{entries}\n```\n"


# --- The public names, from their docstrings.


def public_rooms() -> list[str]:
    """Modules that say in `__all__` what is public, the package itself first; and the errors."""
    modules = ["trustvlm", *(f"trustvlm.{m.name}" for m in pkgutil.iter_modules(trustvlm.__path__))]
    rooms = [m for m in modules if getattr(importlib.import_module(m), "__all__", None)]
    return [*rooms, "trustvlm.exceptions"]


def public_names(room: str) -> list[str]:
    """Names that a room exports, in its own order; of the errors all that are defined there."""
    module = importlib.import_module(room)
    exported: list[str] | None = getattr(module, "__all__", None)
    if exported is not None:
        return exported
    return [name for name, value in vars(module).items() if _is_defined_in(value, room)]


def _is_defined_in(value: object, module: str) -> bool:
    return inspect.isclass(value) and value.__module__ == module


def page_of(name: str) -> str:
    """Give the generated page of a room, or that of the options."""
    return f"docs/reference/generated/{name}"


GENERATED_BELOW = {
    "docs/reference/python-names": public_rooms,
    "docs/reference/command-line": lambda: [OPTIONS],
}


def write_reference(_: Sphinx) -> None:
    """Write a page for each room, and that of the command line."""
    GENERATED.mkdir(parents=True, exist_ok=True)
    documented: dict[int, str] = {}
    pages = {room: "\n".join(_room(room, documented)) for room in public_rooms()}
    pages[OPTIONS] = "\n".join(_command_line())
    for name, text in pages.items():
        path = GENERATED / f"{name}.rst"
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
    for path in GENERATED.glob("*.rst"):
        if path.stem not in pages:
            path.unlink()


def _room(room: str, documented: dict[int, str]) -> list[str]:
    """Give the page of a room: what it is, and each of its names."""
    lines = [room, "=" * len(room), "", f".. automodule:: {room}", "   :no-members:", ""]
    for name in public_names(room):
        full, value = f"{room}.{name}", getattr(importlib.import_module(room), name)
        kind = _kind(value)
        # A name that several rooms export, or an older name of the same thing, is described once.
        first = full if kind == "data" else documented.setdefault(id(value), full)
        if isinstance(value, ModuleType):
            index = ["   :no-index:"] if value.__name__ in public_rooms() else []
            summary = (inspect.getdoc(value) or "").partition("\n")[0]
            lines += [f".. py:data:: {name}", f"   :module: {room}", *index, ""]
            lines += [f"   The module :py:mod:`{value.__name__}`: {summary}", ""]
        elif first != full:
            lines += [f".. py:{kind}:: {name}", f"   :module: {room}", ""]
            lines += [f"   The same as :py:obj:`{first}`.", ""]
        elif kind == "data":
            shown = repr(value)
            lines += [f".. py:data:: {name}", f"   :module: {room}"]
            lines += [f"   :value: {shown}"] if len(shown) < 200 and "<" not in shown else []
            lines += ["", *(f"   {line}" for line in _attribute_docstring(room, name)), ""]
        else:
            lines += [f".. auto{kind}:: {full}"]
            if kind != "function":
                lines += ["   :members:", f"   :inherited-members: {FOREIGN}"]
                lines += [f"   :exclude-members: {OF_ANY_CLASS}"]
            lines.append("")
    return lines


def _attribute_docstring(module: str, name: str) -> list[str]:
    """Find the text below the assignment of a name, wherever a module has it from."""
    analyzer = ModuleAnalyzer.for_module(module)
    if docstring := analyzer.find_attr_docs().get(("", name)):
        return docstring
    for node in ast.walk(ast.parse(analyzer.code)):
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            return _attribute_docstring(str(node.module), name)
    raise ExtensionError(f"{module}.{name} is public and has no docstring")


def _kind(value: object) -> str:
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    is_function = inspect.isroutine(value) or hasattr(value, "__wrapped__")
    return "function" if is_function else "data"


# --- The command line, from what `--help` says.


def _command_line() -> list[str]:
    import typer

    from trustvlm.cli.app import app

    lines = ["Every option", "============", ""]
    lines += ["What ``trustvlm COMMAND --help`` says, for every command.", ""]
    for words, command in _commands(typer.main.get_command(app), ("trustvlm",)):
        title = " ".join(words)
        context = typer.Context(command, info_name=title)
        usage = " ".join(command.collect_usage_pieces(context))
        lines += [title, "-" * len(title), "", f"``{title} {usage}``", ""]
        lines += _paragraphs(f"{command.help or ''}\n\n{command.epilog or ''}")
        for parameter in command.params:
            name, meaning = parameter.get_help_record(context) or ("", "")
            if name:
                lines += [f"``{name}``", f"   {_escaped(meaning)}", ""]
    return lines


def _commands(command: Any, words: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    inner = getattr(command, "commands", {})
    if not inner:
        return [(words, command)]
    return [found for name in inner for found in _commands(inner[name], (*words, name))]


def _escaped(text: str) -> str:
    """Restructured text of a help text, in which single backticks hold code as Markdown has it."""
    parts = re.split(r"(`[^`]+`)", " ".join(text.split()))
    return "".join(
        f"`{part}`" if part.startswith("`") else re.sub(r"([\\*|_])", r"\\\1", part)
        for part in parts
    )


def _paragraphs(text: str) -> list[str]:
    return [line for part in text.split("\n\n") if part.strip() for line in (_escaped(part), "")]


# --- Single backticks in docstrings: a link to a public name where they hold one, else code.


class NameRole(PyXRefRole):
    """`name` links to the public name that it is, if it can be nothing else; other text is code."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Make the reference, or the code."""
        # Words such as `coverage` or `n` are parameters far more often than they are functions.
        if re.fullmatch(r"[A-Z]\w*[a-z]{2}\w*|(\w+\.)+\w+", self.text):
            return super().run()
        return [nodes.literal(self.rawtext, self.text)], []


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect what is above."""
    app.add_role("name", NameRole())
    app.connect("builder-inited", write_reference)
    app.connect("source-read", add_navigation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
