"""Notebooks for tests: short ones, and what the report's own show, executed without a kernel in the tests' own process."""

import io

import nbformat
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from pytest import MonkeyPatch

from lib import plots
from report import build, say

PYTHON = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def notebook(path):
    return nbformat.read(path, as_version=4)


def all_outputs(nb):
    return [output for cell in nb.cells for output in cell.get("outputs", [])]


def short_notebooks(folder, code, others=None):
    """A folder of one-cell notebooks in place of the report's, with `code` in all but those numbered in `others`."""
    sources = folder / "notebooks"
    sources.mkdir()
    for i, name in enumerate(build.NOTEBOOKS):
        cells = [new_markdown_cell(f"# Section {i}"), new_code_cell((others or {}).get(i, code))]
        nbformat.write(new_notebook(cells=cells, metadata=PYTHON), sources / f"{name}.ipynb")
    return sources


def shown_by(source, **parameters) -> list[tuple[object, dict]]:
    """What the cells of a notebook display, with its metadata; every figure is drawn. It is raised what one of them raises."""
    shown, names = [], {}

    def display(what, metadata=None):
        if isinstance(what, Figure):
            what.savefig(io.BytesIO(), format="svg")
        shown.append((what, metadata or {}))

    say.SAID.clear()
    with MonkeyPatch.context() as patch:
        for module in (plots, say):
            patch.setattr(module, "display", display)
        for cell in nbformat.read(source, as_version=4).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, str(source), "exec"), names)
            if "parameters" in cell.metadata.get("tags", []):
                assert parameters.keys() <= names.keys()
                names |= parameters
    return shown
