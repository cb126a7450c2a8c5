"""Notebooks on image folders: a file of its own, so that another process runs it beside the report's tests."""

import papermill
import pytest
from test_data import write_folder
from test_report import all_outputs, notebook, tagged

from report import build


@pytest.mark.parametrize("name, classes, size", [("07_grad_cam", 5, 48), ("08_cnn_ablations", 3, 24), ("09_transfer", 4, 16)])
def test_an_image_folder_of_other_classes_and_size(tmp_path, name, classes, size):
    classes = [f"bird{i}" for i in range(classes)]
    path = write_folder(tmp_path / "birds", classes=classes, images=2 if name == "07_grad_cam" else 5, size=(size, size))
    values = {"profile": "smoke", "dataset": f"folder:{path}", "outputs": str(tmp_path / "outputs")}
    papermill.execute_notebook(
        build.SOURCES / f"{name}.ipynb", tmp_path / "out.ipynb", values, kernel_name="python3", cwd=build.SOURCES,
        progress_bar=False, extra_arguments=["--IPKernelApp.log_level=40"],
    )  # fmt: skip
    nb = notebook(tmp_path / "out.ipynb")
    assert [o for cell in tagged(nb, "answer") for o in cell.get("outputs", []) if "image/svg+xml" in o.get("data", {})]
    said = [o for o in all_outputs(nb) if o.get("metadata", {}).get("ok") is not None]
    assert said and not [o for o in all_outputs(nb) if o.output_type == "error"]
