"""The notebooks executed at profile smoke, read back, and the report built from them."""

import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pypdf import PdfReader
from test_data import write_folder

from lib import plots, runs
from lib.plots import table_html
from lib.study import ALL, NOTEBOOKS, Study
from report import build
from report.export import ReportHTMLExporter, TypstPDFExporter, to_markdown

PARAMETERS = {"profile", "dataset", "data_dir", "seeds", "outputs"}
MORE_PARAMETERS = {"09_transfer": {"backbone", "weights", "positive"}}


def notebook(path):
    return nbformat.read(path, as_version=4)


def executed(study, name):
    return notebook(study.outputs / "notebooks" / "smoke-digits" / f"{name}.ipynb")


def tagged(nb, tag):
    return [cell for cell in nb.cells if tag in cell.metadata.get("tags", [])]


def all_outputs(nb):
    return [output for cell in nb.cells for output in cell.get("outputs", [])]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_source_notebook(name):
    nb = notebook(build.SOURCES / f"{name}.ipynb")
    (cell,) = tagged(nb, "parameters")
    values = {}
    exec(cell.source, values)
    assert values.keys() - {"__builtins__"} == PARAMETERS | MORE_PARAMETERS.get(name, set())
    assert nb.cells[0].source.startswith("# ") and "**Question.**" in nb.cells[0].source
    assert nb.cells[1] in tagged(nb, "answer")
    assert "Limits and what next" in nb.cells[-1].source


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_executed_notebook(smoke, name):
    study, _, failures = smoke
    nb = executed(study, name)
    assert failures == {}
    assert not [o for o in all_outputs(nb) if o.output_type == "error"]
    text, figure, caption = tagged(nb, "answer")[0].outputs
    assert len(text.data["text/markdown"].split("\n\n")) == 3 and text.metadata["headline"]
    assert "image/svg+xml" in figure.data and caption.metadata["caption"] == "figure"
    captions = [o for o in all_outputs(nb) if o.get("metadata", {}).get("caption")]
    pictures = [o for o in all_outputs(nb) if "image/svg+xml" in o.get("data", {})]
    tables = [o for o in all_outputs(nb) if "<table" in o.get("data", {}).get("text/html", "")]
    tables += [o for o in all_outputs(nb) if o.get("data", {}).get("text/markdown", "").startswith("| ")]
    assert len(captions) == len(pictures) + len(tables)  # nothing without a caption
    (cell,) = tagged(nb, "injected-parameters")
    assert "smoke" in cell.source


def test_every_run_was_made_once_and_is_in_the_results(smoke):
    study, _, _ = smoke
    written = pd.read_csv(study.outputs / "results.csv")
    ids = {run.id for names in NOTEBOOKS.values() for planned in study.plan(names).values() for run in planned}
    assert len(ids) == 2 * (9 + 9 + 23 + 10 + 5)  # variants, sweep, recipes, CNN, transfer
    more = set(written["run_id"]) - ids  # the CNN's best configuration, if it is none of the others
    assert set(written["run_id"]) >= ids and len(more) in (0, 2) and all("-cnn-" in run for run in more)
    assert len(written) == 3 * (len(ids) + len(more))
    beside = pd.read_csv(build.notebook_folder(study) / "results.csv")  # the report's own
    assert len(beside) == len(written) and set(beside["run_id"]) == set(written["run_id"])
    of_one = build.reported(Study("smoke", outputs=study.outputs))  # in the same store
    assert [r.run.seed for r in of_one["bn"]] == [0, 1] and [r.run.seed for r in of_one["ln"]] == [0]
    assert {r.run.seed for name, results in of_one.items() if name not in ("torch_bn", "bn", "gn", "nn") for r in results} == {
        0
    }


def test_numbers_in_the_prose_are_those_of_the_runs(smoke):
    study, _, _ = smoke
    written = pd.read_csv(study.outputs / "results.csv").query("epochs == 2")  # without the sweep
    written = written.groupby(["norm", "batch_size", "split"])["accuracy"].mean()
    headline = tagged(executed(study, "01_resnet_bn"), "answer")[0].outputs[0].metadata["headline"]
    assert f"reaches a test accuracy of {100 * written['torch_bn', 32, 'test']:.1f} %" in headline
    headline = tagged(executed(study, "03_six_variants"), "answer")[0].outputs[0].metadata["headline"]
    test = written.xs("test", level="split").xs(32, level="batch_size")
    assert f"({100 * test.max():.1f} %; " in headline and f"the lowest ({100 * test.min():.1f} %" in headline
    scores = next(
        o for o in all_outputs(executed(study, "03_six_variants")) if "macro F1" in o.get("data", {}).get("text/html", "")
    )
    for norm in ALL:
        assert f"<td>{written[norm, 32, 'test']:.3f}</td>" in scores.data["text/html"]


def test_an_execution_depends_on_what_was_tried_and_on_which_models_are_kept(tmp_path):
    found, (run,) = [], Study("paper", "cifar10", outputs=tmp_path).borders()[12, "gn", "mean"]
    folder = runs.Folder(run, tmp_path).path
    for name in (None, runs.SUMS, runs.MODEL):
        if name:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("x")
        study = Study("smoke", "digits", outputs=tmp_path)
        found.append(
            [build.fingerprint(build.SOURCES / f"{stem}.ipynb", study, {}) for stem in ("01_resnet_bn", "08_cnn_ablations")]
        )
    assert len({first for first, _ in found}) == 3 and len({other for _, other in found}) == 1


def test_unchanged_notebooks_are_not_executed_again_and_nothing_is_trained(smoke):
    study, target, _ = smoke
    before = {f: f.stat().st_mtime_ns for f in study.outputs.rglob("*") if f.is_file()}
    assert build.build(study, target, jobs=1) == {}
    assert {f: f.stat().st_mtime_ns for f in study.outputs.rglob("*") if f.is_file()} == before


def test_a_kernel_takes_no_port_that_another_may_take_before_it(smoke, tmp_path):
    study, _, _ = smoke
    code = "from ipykernel import get_connection_info\nprint(get_connection_info(unpack=True)['transport'])"
    nb = new_notebook(cells=[new_code_cell(code)], metadata=PYTHON)
    nbformat.write(nb, tmp_path / "02_norm_sanity.ipynb")
    (tmp_path / "executed").mkdir()
    assert build.execute(tmp_path / "02_norm_sanity.ipynb", study, {}, tmp_path / "executed") == ""
    assert all_outputs(notebook(tmp_path / "executed" / "02_norm_sanity.ipynb"))[0].text == "ipc\n"
    assert build.connection("/tmp/" + 100 * "a").KernelManager.transport == "tcp"  # a path too long for a socket


def test_papermill_from_the_top_level(smoke, tmp_path):
    study, _, _ = smoke
    command = ["papermill", "notebooks/05_feature_quantiles.ipynb", str(tmp_path / "out.ipynb"), "-k", "python3"]
    values = {"profile": "smoke", "seeds": "0,1", "outputs": str(study.outputs)}
    for name, value in values.items():
        command += ["-p", name, value]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=runs.ROOT, check=False)
    assert done.returncode == 0, done.stderr
    one, other = (
        tagged(nb, "answer")[0].outputs[0].data
        for nb in (notebook(tmp_path / "out.ipynb"), executed(study, "05_feature_quantiles"))
    )
    assert one == other


@pytest.mark.parametrize("name, classes, size", [("07_grad_cam", 5, 256), ("08_cnn_ablations", 3, 24), ("09_transfer", 4, 16)])
def test_an_image_folder_of_other_classes_and_size(tmp_path, name, classes, size):
    path = write_folder(
        tmp_path / "birds", classes=[f"bird{i}" for i in range(classes)], images=2 if size > 100 else 5, size=(size, size)
    )
    values = {"profile": "smoke", "dataset": f"folder:{path}", "outputs": str(tmp_path / "outputs")}
    papermill.execute_notebook(
        build.SOURCES / f"{name}.ipynb", tmp_path / "out.ipynb", values, kernel_name="python3", cwd=build.SOURCES,
        progress_bar=False, extra_arguments=["--IPKernelApp.log_level=40"],
    )  # fmt: skip
    text = tagged(notebook(tmp_path / "out.ipynb"), "answer")[0].outputs[0]
    assert text.metadata["headline"]
    assert f"{size}×{size} in {classes} classes" in str(all_outputs(notebook(tmp_path / "out.ipynb")))


PYTHON = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def short_notebooks(folder, code, others=None):
    """A folder of one-cell notebooks in place of the study's, with `code` in all but those numbered in `others`."""
    sources = folder / "notebooks"
    sources.mkdir()
    for i, name in enumerate(NOTEBOOKS):
        cells = [new_markdown_cell(f"# Section {i}"), new_code_cell((others or {}).get(i, code))]
        nbformat.write(new_notebook(cells=cells, metadata=PYTHON), sources / f"{name}.ipynb")
    return sources


def outputs_copy(study, folder):
    """The outputs of the study without the checkpoints and with links to its models: more than a gigabyte otherwise."""

    def copy(source, target):
        (os.link if Path(source).name == runs.MODEL else shutil.copy2)(source, target)

    return shutil.copytree(
        study.outputs, folder / "outputs", ignore=shutil.ignore_patterns(*runs.CHECKPOINTS), copy_function=copy
    )


def lose(study, variant):
    """Let a variant's runs look as a diverged run does."""
    for run in study.runs(variant):
        path = runs.Folder(run, study.outputs).path
        metrics = json.loads((path / "metrics.json").read_text()) | {"status": "diverged"}
        (path / "metrics.json").write_text(json.dumps(metrics))
        history = pd.read_csv(path / "history.csv")
        history.loc[history.index[-1], ["train_loss", "val_loss", "q01", "q20", "q80", "q99"]] = np.nan
        history.to_csv(path / "history.csv", index=False)
        runs.Folder(run, study.outputs).seal()


def test_a_failing_notebook_does_not_take_the_others_with_it(smoke, tmp_path, capsys):
    study, _, _ = smoke
    sources = shutil.copytree(build.SOURCES, tmp_path / "notebooks")
    concerned = {"nn", "torch_bn", "more_seeds", "recipes"}
    empty = [name for name, needed in NOTEBOOKS.items() if not concerned & set(needed)]  # to save the time
    for name in empty:
        nbformat.write(new_notebook(cells=[new_markdown_cell(f"# {name}")], metadata=PYTHON), sources / f"{name}.ipynb")
    nb = notebook(sources / "01_resnet_bn.ipynb")
    nb.cells.insert(4, new_code_cell("raise RuntimeError('the disk is gone')"))
    nbformat.write(nb, sources / "01_resnet_bn.ipynb")
    copy = outputs_copy(study, tmp_path)
    lose(build.Study("smoke", seeds=study.seeds, outputs=copy), "nn")
    failures = build.build(build.Study("smoke", outputs=copy), tmp_path / "report", 2, sources)
    assert failures == {"01_resnet_bn": "RuntimeError: the disk is gone"}
    html = (tmp_path / "report" / "report.html").read_text()
    assert "This cell failed: RuntimeError" in html and "the disk is gone" in html
    words = " ".join(html.split())
    assert "Diverged, with a loss that is no number, and therefore without scores here: NN (2 of 2 runs)." in words
    assert "Of the 5 variants " in words and "no number without a norm, which diverged" in words
    cells = r"\s*".join(
        f"<td[^>]*>{cell}</td>" for cell in ("BN − NN &gt; 0: [^<]*", "Ioffe [^<]*", "diverged", "–", "confirmed")
    )
    assert re.search(cells, html)  # that NN diverged speaks for the norm
    assert not re.search(r"\bnan\b", re.sub(r"<details class=.code.>.*?</details>|data:[^\"]*", "", html, flags=re.S))
    assert f"{1 + len(empty)} of {len(NOTEBOOKS)} sections have no result" in words
    assert len(PdfReader(tmp_path / "report" / "report.pdf").pages) > 5


@pytest.mark.parametrize(
    "name, seeds",
    [
        ("02_norm_sanity", [0, 1]), ("03_six_variants", [0, 1]), ("05_feature_quantiles", [0, 1]),
        ("02_norm_sanity", [0]), ("03_six_variants", [0]), ("10_discussion", [0]),
    ],
)  # fmt: skip
def test_a_seed_with_which_bn_diverged_leaves_the_others(smoke, tmp_path, name, seeds):
    study, _, _ = smoke
    copy = outputs_copy(study, tmp_path)
    lose(Study("smoke", seeds=(study.seeds[-1],), outputs=copy), "torch_bn")
    seen = Study("smoke", seeds=seeds, outputs=copy)
    values = {"profile": "smoke", "dataset": "digits", "seeds": seeds, "outputs": str(copy)}
    (tmp_path / "executed").mkdir()
    assert build.execute(build.SOURCES / f"{name}.ipynb", seen, values, tmp_path / "executed") == ""
    assert "PyTorch BN (1 of 2 runs)" in (tmp_path / "executed" / f"{name}.ipynb").read_text()


def test_a_report_of_what_is_finished_trains_nothing(smoke, tmp_path, capsys):
    study, _, _ = smoke
    half = build.Study("smoke", seeds=study.seeds, outputs=outputs_copy(study, tmp_path))
    lost = [planned[0] for planned in half.sweep().values()][:2]
    for run in lost:
        shutil.rmtree(runs.Folder(run, half.outputs).path)
    sources = short_notebooks(tmp_path, "1 + 1")
    assert build.build(half, tmp_path / "report", 2, sources, finished=True) == {}
    assert not any(runs.Folder(run, half.outputs).path.exists() for run in lost)
    said = capsys.readouterr().out
    words = " ".join((tmp_path / "report" / "report.html").read_text().split())
    for i, name in enumerate(NOTEBOOKS):
        planned = half.runs_of(NOTEBOOKS[name])
        count, waits = f"{len(planned) - 2} of {len(planned)}", name in ("04_batch_size", "10_discussion")
        assert (f"{name}: executed" in said) != waits
        assert (f"{name}: waits for its runs, {count} are finished" in said) == waits
        section = rf"Section {i}(<[^>]*>|¶|\s)*This section waits for its runs: {count} are finished"
        assert bool(re.search(section, words)) == waits
    assert "2 of 10 sections wait for runs that are not finished" in words and "interim report" in words
    assert build.main(["--profile", "smoke", "--outputs", str(tmp_path / "none"), "--finished"]) == 2
    assert "no section has all its runs" in capsys.readouterr().err


def test_a_killed_kernel_takes_only_its_own_notebook(tmp_path):
    """As where memory runs out: the report says so in that section."""
    sources = short_notebooks(tmp_path, "1 + 1", {1: "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"})
    (sources / "05_feature_quantiles.ipynb").write_text("no notebook")
    failures = build.build(build.Study("smoke", outputs=tmp_path / "outputs"), tmp_path / "report", 2, sources)
    assert list(failures) == ["02_norm_sanity", "05_feature_quantiles"] and "DeadKernelError" in failures["02_norm_sanity"]
    html = (tmp_path / "report" / "report.html").read_text()
    assert "This cell failed: DeadKernelError" in html and "Section 3" in html and "This cell failed: NotJSONError" in html


def test_an_executed_notebook_that_was_changed_is_executed_again(smoke, tmp_path):
    study, _, _ = smoke
    file = Path(shutil.copy(study.outputs / "notebooks" / "smoke-digits" / "01_resnet_bn.ipynb", tmp_path))
    assert build.key_of(file)
    file.write_text(re.sub(r"accuracy of \d", "accuracy of 9", file.read_text()))
    assert build.key_of(file) == ""
    file.write_bytes(file.read_bytes()[:1000])
    assert build.key_of(file) == ""


def test_no_report_poses_as_another(tmp_path):
    folders = {build.report_folder(build.Study(p, d)) for p in ("smoke", "quick", "paper") for d in ("digits", "cifar10")}
    assert len(folders) == 6 and build.report_folder(build.Study("paper", "cifar10")) == build.HERE
    assert build.report_folder(build.Study("quick")) == build.HERE / "quick-digits"
    birds = build.Study("smoke", f"folder:{write_folder(tmp_path / 'birds')}")
    assert build.notebook_folder(birds) == Path("outputs/notebooks/smoke-folder-birds")


def test_paths_in_executed_notebooks_name_no_machine(smoke):
    study, _, _ = smoke
    assert build.portable("outputs/x") == "outputs/x" and build.portable(runs.ROOT / "notebooks") == "notebooks"
    assert build.portable(study.outputs) == str(study.outputs)
    for name in NOTEBOOKS:
        assert str(runs.ROOT) not in (build.notebook_folder(study) / f"{name}.ipynb").read_text()


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
    process = subprocess.Popen([*command, str(tmp_path / "outputs"), str(sources)], cwd=runs.ROOT, stderr=subprocess.DEVNULL)

    def kernels():
        return [kernel for worker in children(process.pid) for kernel in children(worker)]

    try:
        assert wait_until(lambda: len(kernels()) == 2)
        below = [*children(process.pid), *kernels()]
        process.send_signal(how)
        process.wait(60)
        assert wait_until(lambda: not any(alive(pid) for pid in below), 60)
    finally:
        process.kill()


class Links(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.ids, self.links, self.resources = set(), [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.add(found.get("id"))
        if tag == "a":
            self.links.append(found.get("href", ""))
        else:
            self.resources += [found[name] for name in ("src", "href", "data") if found.get(name)]


def test_html_needs_no_network_and_every_contents_link_lands(smoke):
    html = (smoke[1] / "report.html").read_text()
    found = Links(html)
    assert found.resources and all(resource.startswith("data:") for resource in found.resources)
    assert not re.search(r"@import|url\((?!['\"]?data:)", html)
    inside = [link[1:] for link in found.links if link.startswith("#")]
    assert len(inside) > 20 and set(inside) <= found.ids
    assert all(link.startswith(("#", "https://")) for link in found.links)
    assert "<math" in html and "$$" not in html  # math is MathML, not something a script has to turn into it


def test_figures_and_tables_are_numbered_alike_in_both(smoke):
    html = (smoke[1] / "report.html").read_text()
    text = "\n".join(page.extract_text() for page in PdfReader(smoke[1] / "report.pdf").pages)
    for kind in ("Figure", "Table"):
        numbers = [int(n) for n in re.findall(rf"<strong>{kind} (\d+)\.</strong>", html)]
        assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= 10
        assert {int(n) for n in re.findall(rf"{kind} (\d+)\. ", text)} == set(numbers)


def test_prose_names_figures_and_tables_by_their_numbers(smoke, tmp_path):
    def caption(kind, **metadata):
        return new_output("display_data", {"text/markdown": "*It.*"}, metadata={"caption": kind} | metadata)

    def words(text):
        return new_output("display_data", {"text/markdown": text})

    plot = new_output("display_data", {"text/plain": "a plot"})
    found = [words("the figure below"), plot, caption("figure"), words("so (figure above); no table above")]
    found += [words("The figure at the top of this section")]
    found += [plot, caption("table"), words("figure below, The table above, figures above")]
    found += [words("The table of names (notebook 01) and the table of names"), plot, caption("table", name="table of names")]
    cell = new_code_cell("", outputs=found)
    text = to_markdown(new_notebook(cells=[new_markdown_cell("a table below"), cell]), tmp_path, code=False)
    prose = [line for line in text.splitlines() if "igure" in line or "able" in line]
    assert [line for line in prose if ":" not in line and "It." not in line] == [
        "a Table 1", "Figure 1", "so (Figure 1); no table above", "Figure 1", "figure below, Table 1, figures above",
        "Table 2 and Table 2",
    ]  # fmt: skip
    html = " ".join(re.sub("<pre.*?</pre>", "", (smoke[1] / "report.html").read_text(), flags=re.S).split())
    assert "See Figure 1." in html and not re.search(r"(figure|table) (above|below)", html)


def test_what_every_notebook_says_of_its_setting_stands_once(smoke):
    study, target, _ = smoke
    html = (target / "report.html").read_text()
    html = " ".join(re.sub(r"<details class=.code.>.*?</details>", "", html, flags=re.S).split())
    assert html.count("<p>The setting: ") == 1
    for name in ("02_norm_sanity", "05_feature_quantiles"):
        assert any(
            "The setting: n = 1 (8 layers)" in o.get("data", {}).get("text/markdown", "")
            for o in all_outputs(executed(study, name))
        )


def test_a_heading_without_anything_below_it_is_left_out():
    markdown, code = build.new_markdown_cell, build.new_code_cell
    shown = code("x", outputs=[build.new_output("display_data", data={"text/markdown": "text"})])
    cells = [markdown("# A"), markdown("## Setting"), code("x = 1"), markdown("## More"), shown, markdown("## End\n\nWords.")]
    kept = [cell.source for cell in build.without_empty_sections(cells)]
    assert kept == ["# A", "x = 1", "## More", "x", "## End\n\nWords."]


def test_the_appendix_says_what_bf16_does_if_all_its_runs_are_there():
    def fake(kind, accuracy, diverged=False):
        run = build.runs.Run(precision=kind, epochs=10)
        return SimpleNamespace(run=run, diverged=diverged, score=lambda: accuracy)

    float32, bf16 = (
        [fake(kind, a) for a in accuracies]
        for kind, accuracies in (("float32", (0.8, 0.81, 0.82)), ("bf16", (0.8, 0.82, 0.81)))
    )
    words = build.of_precision(float32 + bf16)
    assert (
        "after 10 epochs" in words
        and "bf16 minus float32: +0.00 points" in words
        and "less than the spread over 3 seeds" in words
    )
    assert build.of_precision(float32 + bf16[:2]) == build.of_precision([]) == ""
    assert build.of_precision(float32 + bf16[:2] + [fake("bf16", 0.8, diverged=True)]) == ""


def test_only_a_cell_of_the_setting_and_an_output_marked_so_are_said_once():
    def cell(tags, **metadata):
        shown = build.new_output("display_data", data={"text/markdown": "This is the setting."}, metadata=metadata)
        return build.new_code_cell("x", outputs=[shown], metadata={"tags": tags})

    cells, said = [cell(["setting"]), cell(["setting"]), cell([])], set()
    for each in cells:
        build.say_once(each, said)
    assert [len(each.outputs) for each in cells] == [1, 0, 1] and cells[1].source == "x"
    marked, other = cell([], once=True), build.new_output("display_data", data={"text/markdown": "Something else."})
    marked.outputs.append(other)
    build.say_once(marked, said)
    assert marked.outputs == [other]


def test_columns_of_words_are_left_aligned_in_html_too(smoke):
    html = (smoke[1] / "report.html").read_text()
    row = re.search(r"<tr[^>]*>\s*<td[^>]*>BN − NN &gt; 0: .*?</tr>", html, re.S)[0]
    sides = re.findall(r"<td style=\"text-align: (\w+);?\">", row)
    # claim, source, points, interval, verdict, of the claim alone
    assert sides == ["left", "left", "right", "right", "left", "left"]


def test_lines_that_are_no_variant_start_anew_in_every_figure():
    first = [plots.style_of(name) for name in ("Adam", "SGD")]
    assert first[0] != first[1] and first[0] == plots.OTHERS[0] and plots.style_of("Adam") == first[0]
    plots.show(plots.plt.figure(figsize=(1, 1)), "A figure.")
    assert plots.style_of("tanh") == plots.OTHERS[0]
    plots.USED.clear()
    assert plots.style_of("bn") == plots.STYLES["bn"] and not plots.USED


def test_gates_are_drawn_alike_every_time():
    channels = pd.DataFrame({"layer": ["stem"] * 4 + ["1.0.1"] * 4, "channel": [*range(4)] * 2, "rho": [0.1, 0.5, 1, 1] * 2})
    drawn = []
    for _ in range(2):
        figure = plots.gate_values(channels)
        figure.canvas.draw()
        drawn.append(bytes(figure.canvas.buffer_rgba()))
    assert drawn[0] == drawn[1]


def test_pdf_has_title_abstract_contents_references_and_no_code(smoke):
    reader = PdfReader(smoke[1] / "report.pdf")
    first, second = (reader.pages[i].extract_text() for i in range(2))
    text = "\n".join(page.extract_text() for page in reader.pages)
    abstract = (smoke[1] / "report.html").read_text().split('class="abstract"')[1].split("</section>")[0]
    assert abstract.count("<li>") == 6  # a finding of each section but those of part II
    assert build.TITLE in first and "Abstract" in first and reader.metadata.title == build.TITLE
    assert "Contents" in second and "Six variants" in second
    assert "References" in text and "arXiv:1502.03167" in text
    assert "study.fit" not in text and "import numpy" not in text
    assert len(reader.outline) >= 8


def right_edge(page) -> float:
    edges = [0.0]

    def see(text, _, matrix, font, size):
        if text.strip():
            edges.append(matrix[4])

    page.extract_text(visitor_text=see)
    return max(edges)


def test_short_columns_beside_long_texts_keep_their_lines_whole():
    claim = "a claim of the length that claims have, or a bit longer than that " * 2
    short = {"source": "Wu and He 2018", "points": "+1.23", "interval": "(−0.83 to +0.34)", "verdict": "confirmed"}
    shown = new_output("display_data", {"text/html": table_html(pd.DataFrame([{"claim": claim} | short] * 3))})
    pdf, _ = TypstPDFExporter().from_notebook_node(new_notebook(cells=[new_code_cell("", outputs=[shown])]))
    page = PdfReader(io.BytesIO(pdf)).pages[0]
    text = page.extract_text()
    assert all(text.count(value) == 3 for value in short.values()), text
    assert " ".join(claim.split()) not in text  # which is on several lines
    assert right_edge(page) < page.mediabox.width - 40


def test_any_notebook_becomes_a_pdf(tmp_path):
    """DataFrames (one too wide for a page), images, math, streams, attachments, errors, widgets: nothing is lost or cut."""
    pixel = base64.b64encode(png()).decode()
    wide = pd.DataFrame(np.arange(60).reshape(2, 30) * 1000.5, columns=[f"column {i}" for i in range(30)])
    long = pd.DataFrame({"row": range(150)})
    outputs = [
        new_output("stream", name="stdout", text="\x1b[31mprinted\x1b[0m ```ticks```\n"),
        new_output("stream", name="stderr", text="a progress bar"),
        new_output("display_data", {"text/html": table_html(wide), "text/plain": "hidden"}),
        new_output("display_data", {"text/html": f"<style>p{{}}</style><div>{long.to_html()}</div>"}),
        new_output("display_data", {"image/png": pixel}),
        new_output("display_data", {"text/latex": r"$$\int_0^1 x\,dx$$"}),
        new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "HBox(children=...)"}),
        new_output("error", ename="ValueError", evalue="[*]", traceback=["\x1b[31mtrace back\x1b[0m"]),
    ]
    cells = [
        new_markdown_cell(
            "# Some *title*\n\nCost \\$5, $a_1 < b$ and ![](attachment:dot.png)", attachments={"dot.png": {"image/png": pixel}}
        ),
        new_code_cell("secret_code = 1", outputs=outputs),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "some.ipynb")
    subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "typst_pdf", "some.ipynb"], cwd=tmp_path, check=True, capture_output=True
    )
    reader = PdfReader(tmp_path / "some.pdf")
    text = "\n".join(page.extract_text() for page in reader.pages)
    for wanted in (
        "Some title",
        "printed ```ticks```",
        "column 29",
        "149",
        "trace back",
        "This cell failed: ValueError",
        "Cost $5",
    ):
        assert wanted in text, wanted
    for unwanted in ("secret_code", "HBox", "progress bar", "hidden"):
        assert unwanted not in text, unwanted
    assert all(right_edge(page) < page.mediabox.width - 40 for page in reader.pages)
    assert sum(len(page.images) for page in reader.pages) == 2


def png() -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), "teal").save(buffer, "png")
    return buffer.getvalue()


ODD = {
    "image beside the notebook": ("![dot](dot.png)", None),
    "image of another host": ("![a *remote* one](https://example.org/a.png)", "a remote one"),
    "image that is not there": ("![gone](gone.png)", "[missing image: gone]"),
    "an at sign": ("use @property, ask @bob", "use @property, ask @bob"),
    "Jupyter's anchors": ("[there](#My-Section)\n\n## My Section", "there"),
    "a link that leads nowhere": ("[nowhere](#lost)", "nowhere"),
    "what looks like YAML": ("---\nNote: a: b: c\n\n---", "Note: a: b: c"),
    "a list without a blank line": ("Items:\n- one\n- two", "• two"),
    "HTML": ("<div class='alert'>be <em>careful</em></div>\n\n<img src='dot.png'>", "be careful"),
    "LaTeX environment": ("\\begin{align}\na &= b \\\\\nc &= d\n\\end{align}\n\n\\begin{equation*}x^2\\end{equation*}", "="),
    "Typst's own signs": ("a #strong[b] $5 and $6 \\* _c_ `#d`", "#strong[b]"),
}


@pytest.mark.parametrize("text, shown", ODD.values(), ids=ODD)
def test_markdown_as_jupyter_writes_it(tmp_path, text, shown):
    (tmp_path / "dot.png").write_bytes(png())
    nb = new_notebook(cells=[new_markdown_cell(text)])
    pdf, _ = TypstPDFExporter().from_notebook_node(nb, {"metadata": {"path": str(tmp_path)}})
    (tmp_path / "some.pdf").write_bytes(pdf)
    page = PdfReader(tmp_path / "some.pdf").pages[0]
    assert shown in page.extract_text() if shown else len(page.images) == 1
    if "<img" in text:
        assert len(page.images) == 1
    html, _ = ReportHTMLExporter().from_notebook_node(nb, {"metadata": {"path": str(tmp_path)}})
    assert all(resource.startswith("data:") for resource in Links(html).resources)


def test_code_is_shown_on_request():
    nb = new_notebook(cells=[new_code_cell("shown_code = 1")])
    html, _ = ReportHTMLExporter().from_notebook_node(nb)
    assert "shown_code" in html and re.search("<details class=.code.>", html)
    html, _ = ReportHTMLExporter(exclude_input=True).from_notebook_node(nb)
    assert "shown_code" not in html
    pdf, resources = TypstPDFExporter().from_notebook_node(nb)
    assert pdf[:5] == b"%PDF-" and resources["output_extension"] == ".pdf"


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.mark.skipif(not BROWSER, reason="no Chromium or Chrome is installed on this machine")
@pytest.mark.parametrize("width", [400, 1400])
def test_html_in_a_browser(smoke, width):
    from playwright.sync_api import sync_playwright

    said, requests = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.on("requestfailed", lambda request: said.append(f"failed: {request.url}"))
        page.goto((smoke[1] / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing scrolls sideways but tables
        loaded = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
        assert page.evaluate(loaded) == 0 and page.evaluate("document.images.length") >= 10
        contents, text = (page.locator(name).bounding_box() for name in ("nav", "main"))
        assert (contents["x"] + contents["width"] <= text["x"] + 1) == (width >= 1000)  # beside the text where there is room
        assert page.locator("h1.title").bounding_box()["y"] < 250
        if width < 1000:
            page.locator(".contents > summary").click()
        links = page.locator("nav a")
        for i in range(links.count()):
            links.nth(i).click()
            target = links.nth(i).get_attribute("href")[1:]
            top = page.evaluate("id => document.getElementById(id).getBoundingClientRect().top", target)
            assert -5 <= top < 900, target
        code = page.locator("details.code").first
        assert not code.locator("pre").is_visible()
        code.locator("summary").click()
        assert code.locator("pre").is_visible()
        page.locator("#fold").click()
        assert page.evaluate("[...document.querySelectorAll('details.code')].every(d => d.open)")
        page.locator("#fold").click()
        assert not page.evaluate("[...document.querySelectorAll('details.code')].some(d => d.open)")
        browser.close()
    assert said == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


def test_readme_says_what_the_committed_runs_say():
    from report import readme

    text = readme.README.read_text()
    assert readme.filled(text) == text, "run python -m report.readme"
    for name in NOTEBOOKS:
        assert f"(notebooks/{name}.ipynb)" in text
