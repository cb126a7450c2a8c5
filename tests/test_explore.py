"""The notebook for JupyterLab: its form, executed as it is, and with its widgets moved."""

import nbformat
import papermill
import pytest
from cells import shown_by
from nbformat.v4 import new_code_cell

from lib.data import ROOT
from lib.study import NOTEBOOKS, Study
from report import build

SOURCE = build.SOURCES / "00_explore.ipynb"

#: What somebody does with the widgets, and what they then see.
MOVED = """
from IPython.display import DisplayHandle

seen, update = [], DisplayHandle.update
DisplayHandle.update = lambda self, obj, **kwargs: (seen.append(obj), update(self, obj, **kwargs))
for norm in norms.value:  # on the images as they are, what the run itself stored
    places = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))[:images]
    stored = trained[norm, 0].correct()[places.numpy()].mean()
    assert abs(accuracy(norm, 0) - 100 * stored) < 1e-9, norm
before = answers.cache_info().currsize
change["contrast"].value = 0.25
assert answers.cache_info().currsize == before + 6  # each of the networks has answered, once
assert [type(one) for one in seen] == [plt.Figure] * 2
moved = [accuracy(norm, 0, contrast=0.25, brightness=0, blur=0.0) for norm in norms.value]
assert [f"{value:.1f}" for value in moved] == [text.get_text() for text in seen[0].axes[0].texts]
page.value, what.value, seed.value = 2, "training loss (nats)", 1
assert [type(one) for one in seen[:-1]] == [plt.Figure] * 6 and not plt.get_fignums()
assert seen[-1].data == "_There is no training of BIN with this seed._"
"""
MISTAKEN = """
seen.clear()
chosen, norms.value = norms.value, ()
assert [one.data for one in seen] == ["_Choose at least one norm._"] * 3  # accuracies, answers and curves
kept, trained = trained, None  # as a mistake in the code would
seed.value = 0
assert [one.data for one in seen[3:5]] == ["_Choose at least one norm._"] * 2 and "TypeError" in str(seen[5].data)
trained, norms.value, seed.value = kept, chosen, 1
seed.value = 0
print(len(seen))
"""


def execute(tmp_path, cells=(), **values):
    """The outputs of the notebook with further cells behind it, of all cells in order; it is raised what one of them raises."""
    nb = nbformat.read(SOURCE, as_version=4)
    nb.cells += [new_code_cell(cell) for cell in cells]
    nbformat.write(nb, tmp_path / "00_explore.ipynb")
    done = papermill.execute_notebook(
        tmp_path / "00_explore.ipynb", tmp_path / "out.ipynb", values, kernel_name="python3", cwd=ROOT / "notebooks",
        progress_bar=False, extra_arguments=["--IPKernelApp.log_level=40"],
    )  # fmt: skip
    return [cell.get("outputs", []) for cell in done.cells if cell.cell_type == "code"]


def test_it_has_the_form_of_the_others_and_is_not_in_the_report():
    nb = nbformat.read(SOURCE, as_version=4)
    assert SOURCE.stem not in NOTEBOOKS and "(notebooks/00_explore.ipynb)" in (ROOT / "README.md").read_text()
    assert nb.cells[0].source.startswith("# ") and "**Question.**" in nb.cells[0].source
    (parameters,) = [cell for cell in nb.cells if "parameters" in cell.metadata.get("tags", [])]
    values = {}
    exec(parameters.source, values)
    assert values.keys() - {"__builtins__"} == {"profile", "dataset", "data_dir", "seeds", "outputs", "images"}
    for cell in nb.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            assert sum(bool(line.strip()) for line in cell.source.splitlines()) <= 12, cell.source


def test_executed_and_with_its_widgets_moved(tmp_path):
    Study("smoke", outputs=tmp_path).fit(NOTEBOOKS["03_six_variants"], progress=False)
    values = {"profile": "smoke", "dataset": "digits", "outputs": str(tmp_path), "images": 40}
    outputs = execute(tmp_path, (MOVED, MISTAKEN), **values)
    assert outputs[-1][0].text == "15\n"
    every = [o for cell in outputs for o in cell]
    assert not [o for o in every if o.output_type == "error" or o.get("name") == "stderr"]
    # The figures stand in the notebook, for who sees no widgets.
    assert len([o for o in every if {"image/svg+xml", "image/png"} <= set(o.get("data", {}))]) == 4


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(ValueError) as error:
        shown_by(SOURCE, profile="smoke", dataset="digits", outputs=str(tmp_path))
    said = f'no training of profile smoke on digits is in {tmp_path}/runs; make them: make train PROFILE=smoke DATASET="digits"'
    assert str(error.value) == f'{said} OUTPUTS="{tmp_path}"'
