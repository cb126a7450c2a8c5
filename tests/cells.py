"""A notebook's cells executed in the tests' own process, which saves a kernel and what it would import."""

import io

import nbformat
from matplotlib.figure import Figure
from pytest import MonkeyPatch

from lib import plots
from report import say


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
