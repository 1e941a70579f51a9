"""Sphinx builds the site from here: every page as it is stored, and the API from its docstrings."""

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

import blitz_helpers  # noqa: E402, found by the line above in a clone that is not installed

project = "See what happens inside a neural network"
author = "the maintainers of blitz-helpers"
release = version = blitz_helpers.__version__
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["ARCHITECTURE.md", "build"]

nb_execution_mode = "off"  # the outputs are those that nbval compares
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Source"]

html_theme = "furo"
html_title = "Inside a neural network"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_favicon = "static/icon.svg"
html_show_sourcelink = False
html_show_sphinx = False
html_copy_source = False

TOPICS = {
    "network": "The network of the series",
    "shapes": "Sizes, worked out",
    "trace": "Shapes of any model",
    "gradients": "Gradients",
    "graph": "The autograd graph",
    "updates": "Update rules",
    "data": "Digits",
    "training": "Training",
    "tracking": "Weights & Biases",
    "plotting": "Pictures",
    "explorers": "Something to move",
    "notebook": "In a notebook",
}


def copy_pages() -> None:
    """Put the pages where Sphinx finds them; git ignores the copies."""
    for folder in ("notebooks", "imgs"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
        shutil.copytree(
            ROOT / folder,
            HERE / folder,
            ignore=shutil.ignore_patterns("wandb", "checkpoints", ".ipynb_checkpoints", "*.py"),
        )


def write_api() -> None:
    """Write a page a topic, with all public names of it, so that none can be forgotten."""
    folder = HERE / "api"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    left = set(blitz_helpers.__all__)
    index = ["# Reference", "", "Every name here is imported from `blitz_helpers`.", ""]
    for topic, title in TOPICS.items():
        module = f"blitz_helpers.{topic}"
        names = sorted(
            (
                name
                for name in blitz_helpers.__all__
                if f"blitz_helpers.{blitz_helpers._MODULE_OF[name]}.".startswith(f"{module}.")
            ),
            key=lambda name: isinstance(getattr(blitz_helpers, name), type),  # functions first
        )
        left -= set(names)
        index += [f"**[{title}]({topic}.md)**", ""]
        index += [", ".join(f"{{any}}`{name} <blitz_helpers.{name}>`" for name in names), ""]
        page = [f"# {title}", "", "```{eval-rst}", ".. currentmodule:: blitz_helpers", ""]
        for name in names:
            value = getattr(blitz_helpers, name)
            kind = "function"
            if isinstance(value, type):
                kind = "exception" if issubclass(value, BaseException) else "class"
            page += [f".. auto{kind}:: blitz_helpers.{name}"]
            page += ["   :members:", ""] if kind != "function" else [""]
        (folder / f"{topic}.md").write_text("\n".join([*page, "```", ""]), "utf-8")
    assert not left, f"no topic has {left}"
    tree = ["```{toctree}", ":hidden:", "", *TOPICS, "```", ""]
    (folder / "index.md").write_text("\n".join([*index, *tree]), "utf-8")


def leave_out(app, what, name, member, skip, options):
    """Leave out the fields of a named tuple, which its own docstring describes."""
    return skip or type(member).__name__ == "_tuplegetter"


def setup(app):
    """Sphinx calls this when it starts."""
    copy_pages()
    write_api()
    app.connect("autodoc-skip-member", leave_out)
