"""Notebooks on image folders: a file of its own, so that another process runs it beside the report's tests."""

import pytest
from cells import shown_by
from matplotlib.figure import Figure
from test_data import write_folder

from report import build


@pytest.mark.parametrize("name, classes, size", [("07_grad_cam", 5, 48), ("08_cnn_ablations", 3, 24), ("09_transfer", 4, 16)])
def test_an_image_folder_of_other_classes_and_size(tmp_path, name, classes, size):
    classes = [f"bird{i}" for i in range(classes)]
    path = write_folder(tmp_path / "birds", classes=classes, images=2 if name == "07_grad_cam" else 5, size=(size, size))
    values = {"profile": "smoke", "dataset": f"folder:{path}", "outputs": str(tmp_path / "outputs")}
    shown = shown_by(build.SOURCES / f"{name}.ipynb", **values)
    assert [what for what, _ in shown if isinstance(what, Figure)]
    assert [metadata["ok"] for _, metadata in shown if "ok" in metadata]
