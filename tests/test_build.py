"""How the report is built: what is executed again, and what a killed kernel or a stopped build leaves."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import typst
from bad_inputs import write_folder
from cells import PYTHON, all_outputs, notebook, short_notebooks
from jupyter_client.kernelspec import KernelSpecManager
from nbformat.v4 import new_code_cell, new_notebook

from lib.data import ROOT
from lib.engine import store
from lib.study import Study
from report import build, export, probes


def test_an_execution_depends_on_what_was_tried_and_on_which_models_are_kept(tmp_path):
    found, (run,) = [], probes.borders()[12, "gn", "mean"]
    folder = store.Folder(run, tmp_path).path
    for name in (None, store.SUMS, store.MODEL):
        if name:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("x")
        study = Study("smoke", "digits", outputs=tmp_path)
        found.append(
            [build.fingerprint(build.SOURCES / f"{stem}.ipynb", study, {}) for stem in ("01_resnet_bn", "08_cnn_ablations")]
        )
    assert len({first for first, _ in found}) == 3 and len({other for _, other in found}) == 1


def test_an_edit_that_changes_nothing_executes_nothing_again(tmp_path, monkeypatch):
    """Docstrings, comments and layout of lib are no input of a notebook, unless it prints the code; all else is."""
    (tmp_path / "lib" / "engine").mkdir(parents=True)
    monkeypatch.setattr(build, "ROOT", tmp_path)
    file, plain, printing = tmp_path / "lib" / "engine" / "a.py", tmp_path / "plain.ipynb", tmp_path / "printing.ipynb"
    plain.write_text("facts"), printing.write_text("print(inspect.getsource(norms))")

    def codes(text):
        file.write_text(text)
        return build.code_of(plain), build.code_of(printing)

    usual = codes('"""A."""\n\n\ndef f(x):\n    """B."""\n    return x + 1\n')
    reworded = codes('"""Anew."""\ndef f(x):\n    # said\n    """Better."""\n    return (x + 1)\n')
    assert reworded[0] == usual[0] and reworded[1] != usual[1]
    assert codes('"""A."""\n\n\ndef f(x):\n    """B."""\n    return x + 2\n')[0] != usual[0]
    assert codes('"""A."""\n\n\ndef f(x):\n    return "B." and x + 1\n')[0] != usual[0]


def test_a_kernel_takes_no_port_that_another_may_take_before_it(tmp_path):
    study = Study("smoke", outputs=tmp_path / "outputs")
    code = "from ipykernel import get_connection_info\nprint(get_connection_info(unpack=True)['transport'])"
    nb = new_notebook(cells=[new_code_cell(code)], metadata=PYTHON)
    nbformat.write(nb, tmp_path / "02_norm_sanity.ipynb")
    (tmp_path / "executed").mkdir()
    assert build.execute(tmp_path / "02_norm_sanity.ipynb", study, {}, tmp_path / "executed") == ""
    assert all_outputs(notebook(tmp_path / "executed" / "02_norm_sanity.ipynb"))[0].text == "ipc\n"
    assert build.connection("/tmp/" + 100 * "a").KernelManager.transport == "tcp"  # a path too long for a socket


def test_a_killed_kernel_takes_only_its_own_notebook(few, tmp_path):
    """As where memory runs out: the report says so in that section."""
    sources = short_notebooks(tmp_path, "1 + 1", {1: "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"})
    (sources / "06_training_recipe.ipynb").write_text("no notebook")
    failures = build.build(build.Study("smoke", outputs=tmp_path / "outputs"), tmp_path / "report", 2, sources)
    assert list(failures) == ["04_batch_size", "06_training_recipe"] and "DeadKernelError" in failures["04_batch_size"]
    html = (tmp_path / "report" / "report.html").read_text()
    assert "This cell failed: DeadKernelError" in html and "Section 3" in html and "This cell failed: NotJSONError" in html


def test_no_report_poses_as_another(tmp_path):
    folders = {build.report_folder(build.Study(p, d)) for p in ("smoke", "quick", "paper") for d in ("digits", "cifar10")}
    assert len(folders) == 6 and build.report_folder(build.Study("paper", "cifar10")) == build.HERE
    assert build.report_folder(build.Study("quick")) == build.HERE / "quick-digits"
    birds = build.Study("smoke", f"folder:{write_folder(tmp_path / 'birds')}")
    assert build.notebook_folder(birds) == Path("outputs/notebooks/smoke-folder-birds")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_a_stopped_build_leaves_no_process(tmp_path, how):
    from test_jobs import alive, children, wait_until

    code = (
        "import sys; from pathlib import Path; from report import build; from lib.study import Study\n"
        "build.build(Study('smoke', outputs=sys.argv[1]), Path(sys.argv[1]) / 'report', 2, Path(sys.argv[2]))"
    )
    sources = short_notebooks(tmp_path, "import time; time.sleep(600)")
    command = [sys.executable, "-c", f"if __name__ == '__main__':\n    {code.replace(chr(10), chr(10) + '    ')}"]
    process = subprocess.Popen([*command, str(tmp_path / "outputs"), str(sources)], cwd=ROOT, stderr=subprocess.DEVNULL)

    def kernels():
        return [kernel for worker in children(process.pid) for kernel in children(worker)]

    try:
        assert wait_until(lambda: len(kernels()) == 2)
        below = [*children(process.pid), *kernels()]
        process.send_signal(how)
        process.wait(300)
        assert wait_until(lambda: not any(alive(pid) for pid in below), 180)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", ["python3", "Python3"])
def test_notebooks_run_in_this_python_whichever_kernel_jupyter_finds_first(tmp_path, monkeypatch, name):
    other = tmp_path / "kernels" / name
    other.mkdir(parents=True)
    (other / "kernel.json").write_text(json.dumps({"argv": ["/bin/false"], "display_name": "Python 3", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert KernelSpecManager().get_kernel_spec("python3").argv == ["/bin/false"] or name != "python3"
    for _ in range(2):
        build.own_kernel()
        assert KernelSpecManager().get_kernel_spec("python3").resource_dir.startswith(sys.prefix)
        assert os.environ["JUPYTER_PATH"].split(os.pathsep)[1:] == [str(tmp_path)]


def test_a_report_is_new_in_both_its_files_or_in_neither(few, tmp_path, monkeypatch):
    sources = short_notebooks(tmp_path, "1 + 1", {})
    study, folder = build.Study("smoke", outputs=tmp_path / "outputs"), tmp_path / "report"
    folder.mkdir()
    for name in ("report.html", "report.pdf"):
        (folder / name).write_text("the old one")

    def fails(*args, **kwargs):
        raise typst.TypstError("no such font")

    with monkeypatch.context() as patch, pytest.raises(typst.TypstError):
        patch.setattr(export.typst, "compile", fails)
        build.build(study, folder, 2, sources)
    assert {(folder / name).read_text() for name in ("report.html", "report.pdf")} == {"the old one"}
