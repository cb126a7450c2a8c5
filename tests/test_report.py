"""The notebooks executed at profile smoke, read back, and the report built from them."""

import ast
import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from cells import all_outputs, notebook, short_notebooks, shown_by
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pypdf import PdfReader
from safetensors.torch import load_file

from lib import plots
from lib.data import ROOT
from lib.engine import store
from lib.engine.store import Folder
from lib.plots import table_html
from lib.study import NOTEBOOKS, Study
from report import build, bundle, figures, page, saved
from report.export import ReportHTMLExporter, TypstPDFExporter, Writer

PARAMETERS = {"profile", "dataset", "data_dir", "seeds", "outputs"}
MORE_PARAMETERS = {"09_transfer": {"backbone", "weights", "positive"}}


def executed(study, name):
    return notebook(study.outputs / "notebooks" / "smoke-digits" / f"{name}.ipynb")


def tagged(nb, tag):
    return [cell for cell in nb.cells if tag in cell.metadata.get("tags", [])]


def code_cells(nb):
    return [cell for cell in nb.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_source_notebook(name):
    nb = notebook(build.SOURCES / f"{name}.ipynb")
    (cell,) = tagged(nb, "parameters")
    values = {}
    exec(cell.source, values)
    assert values.keys() - {"__builtins__"} == PARAMETERS | MORE_PARAMETERS.get(name, set())
    assert nb.cells[0].source.startswith("# ") and "**Question.**" in nb.cells[0].source
    assert len([cell for cell in tagged(nb, "answer") if cell.cell_type == "code"]) >= 2  # words and a figure
    assert any("Limits and what next" in cell.source for cell in nb.cells)
    assert f'keep(study, "{name}"' in code_cells(nb)[-1].source  # the last cell, so that it keeps every claim


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_reads_as_text_science_and_pictures(name):
    for cell in code_cells(notebook(build.SOURCES / f"{name}.ipynb")):
        assert sum(bool(line.strip()) for line in cell.source.splitlines()) <= 12, cell.source
        prose = re.search(r'\.say\("""|^tell\(\s*"""', cell.source, re.M)
        assert cell.metadata.get("jupyter", {}).get("source_hidden", False) == bool(prose), cell.source  # folded in JupyterLab
        for node in ast.walk(ast.parse(cell.source)):  # no words chosen by code
            if isinstance(node, ast.IfExp):
                assert not any(
                    isinstance(n, ast.Constant) and isinstance(n.value, str) and " " in n.value for n in ast.walk(node)
                )
        assert "{%" not in cell.source


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_executed_notebook(smoke, name):
    study, _, failures = smoke
    nb = executed(study, name)
    assert failures == {}
    assert not [o for o in all_outputs(nb) if o.output_type == "error"]
    captions = [o for o in all_outputs(nb) if o.get("metadata", {}).get("caption")]
    pictures = [o for o in all_outputs(nb) if "image/svg+xml" in o.get("data", {})]
    assert pictures and all("image/png" in o.data for o in pictures)  # JupyterLab draws no SVG that it does not trust
    tables = [o for o in all_outputs(nb) if "<table" in o.get("data", {}).get("text/html", "")]
    assert len(captions) == len(pictures) + len(tables)  # nothing without a caption
    (cell,) = tagged(nb, "injected-parameters")
    assert "smoke" in cell.source
    claims = pd.read_csv(saved.folder(study) / name / "claims.csv", index_col=0)
    said = {o.metadata["claim"]: o.metadata["ok"] for o in all_outputs(nb) if "claim" in o.get("metadata", {})}
    assert said == (claims.loc[claims["source"].isna(), "verdict"] == "holds").to_dict()


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
    """Two cells of a table and two numbers of prose, from the files of the runs."""
    study, _, _ = smoke
    means = pd.read_csv(study.outputs / "results.csv").query("epochs == 2")  # without the sweep
    means = means[means["batch_size"] == 32].groupby(["norm", "split"])["accuracy"].mean()
    known = saved.load(study)
    assert known["splits"].loc["test", "accuracy"] == pytest.approx(means["torch_bn", "test"])
    assert known["scores"].loc["gn", "train"] == pytest.approx(means["gn", "train"])
    assert known["scores"].loc["bn", "test"] == pytest.approx(
        (means["bn", "test"] + means["torch_bn", "test"]) / 2
    )  # one layer
    shown = next(
        o for o in all_outputs(executed(study, "03_six_variants")) if "macro F1" in o.get("data", {}).get("text/html", "")
    )
    assert f"<td>{100 * means['ln', 'test']:.1f}</td>" in shown.data["text/html"]


def test_committed_prose_says_what_the_committed_runs_say():
    """Numbers of the abstract and of two sections, recomputed from the files of the runs and nothing else."""
    study = Study("paper", "cifar10", outputs=ROOT / "outputs")

    def accuracy(run, split="test"):
        with np.load(store.Folder(run, study.outputs).path / "predictions.npz") as arrays:
            return float((arrays[f"{split}_labels"] == arrays[f"{split}_predictions"]).mean())

    plan = study.more_seeds()
    means = {v: np.mean([accuracy(run) for run in planned]) for v, planned in plan.items() if not v.endswith("_8")}
    bn = np.mean([accuracy(run) for v in ("bn", "torch_bn") for run in plan[v]])
    text, held = page.abstract(study, saved.load(study))
    assert all(held.values()) and len(text.split()) <= 160
    assert f"BIN reaches {100 * means['bin']:.1f} % and BN {100 * bn:.1f} %" in text and f"LN ({100 * means['ln']:.1f})" in text
    epochs = [pd.read_csv(store.Folder(run, study.outputs).path / "history.csv") for run in plan["nn"]]
    first = sorted(int(h.loc[h["train_accuracy"] >= 0.8, "epoch"].iloc[0]) for h in epochs)
    assert f"NN after {first[len(first) // 2]}." in text
    said = "\n".join(
        o.data["text/markdown"] for n in ("01_resnet_bn", "04_batch_size")
        for o in all_outputs(notebook(build.notebook_folder(study) / f"{n}.ipynb")) if "ok" in o.get("metadata", {})
    )  # fmt: skip
    assert f"reaches {100 * means['torch_bn']:.1f} % test accuracy" in said
    smallest = [accuracy(planned[0]) for name, planned in study.sweep().items() if name.startswith("BN, batch 2, lr 0.0015625")]
    assert f"BN ({100 * smallest[0]:.1f} %) has come down" in " ".join(said.split())


def test_what_is_known_of_cifar10_alone_is_not_said_of_other_data():
    known = saved.load(Study("paper", "cifar10", outputs=ROOT / "outputs"))
    sentence = "gradient changes least over a step"
    said = {dataset: page.abstract(Study("paper", dataset), known)[0] for dataset in ("cifar10", "digits")}
    assert sentence in said["cifar10"] and "on CIFAR-10" in said["cifar10"]
    assert sentence not in said["digits"] and "CIFAR-10" not in said["digits"]


def test_committed_cells_of_section_12_are_in_the_files_of_the_runs():
    """Two cells of each of its tables, from configs, histories and weights alone."""
    facts = ROOT / "outputs" / "notebooks" / "paper-cifar10" / "facts" / "12_norm_or_recipe"
    tuned, dead = (pd.read_csv(facts / f"{name}.csv", index_col=0) for name in ("tuned", "dead_scales"))
    configs = {file.parent: json.loads(file.read_text()) for file in (ROOT / "outputs" / "runs").glob("*/config.json")}
    probed = {path: c for path, c in configs.items() if c.get("probe") and c["epochs"] == 12 and c["seed"] == 0}
    for norm, column, field, value in (
        ("ln", "weight decay 1e-3", "weight_decay", 1e-3),
        ("gn", "learning rate 0.05", "lr", 0.05),
    ):
        (path,) = [path for path, c in probed.items() if c["norm"] == norm and c[field] == value]
        assert tuned.loc[norm, column] == pytest.approx(pd.read_csv(path / "history.csv")["val_accuracy"].max())
    study = Study("paper", "cifar10", outputs=ROOT / "outputs")
    for norm, place, name in (("ln", "3.2.2", "layer3.1.norm2.weight"), ("gn", "3.2.1", "layer3.1.norm1.weight")):
        scales = [load_file(Folder(run, study.outputs).path / store.MODEL)[name] for run in study.more_seeds()[norm]]
        assert dead.loc[place, norm] == pytest.approx(np.mean([(scale.abs() < 0.01).double().mean() for scale in scales]))


def test_committed_cells_of_section_13_are_in_the_files_of_the_runs():
    """Two learning rates, and two norms' mean change of the gradient, from configs, histories and what was followed."""
    facts = ROOT / "outputs" / "notebooks" / "paper-cifar10" / "facts" / "13_why"
    rates, changes = pd.read_csv(facts / "by_rate.csv"), pd.read_csv(facts / "gradient.csv", index_col=0)
    configs = {file.parent: json.loads(file.read_text()) for file in (ROOT / "outputs" / "runs").glob("*/config.json")}
    usual = {"epochs": 12, "seed": 0, "probe": True, "weight_decay": 5e-4, "bias_decay": True, "ghost_batch": None}
    probed = {path: c for path, c in configs.items() if all(c.get(name, value) == value for name, value in usual.items())}
    for norm, rate in (("bn", 0.2), ("nn", 0.05)):
        (path,) = [path for path, c in probed.items() if (c["norm"], c["lr"], c.get("probe")) == (norm, rate, True)]
        (row,) = rates[(rates["norm"] == norm) & (rates["rate"] == rate)].to_dict("records")
        assert row["val"] == pytest.approx(pd.read_csv(path / "history.csv")["val_accuracy"].max())
    for norm in ("bn", "gn"):
        (path,) = [path for path, c in probed.items() if (c["norm"], c["lr"], c.get("probe")) == (norm, 0.1, True)]
        steps = pd.read_csv(path / "landscape.csv").query("step == 1")
        assert changes.loc[norm, "change"] == pytest.approx(
            sum(own["change"].sum() / 5 for _, own in steps.groupby("epoch")) / 12
        )


def test_every_committed_claim_holds():
    claims = pd.read_csv(ROOT / "outputs" / "notebooks" / "paper-cifar10" / "claims.csv", index_col=0)
    assert set(claims["section"]) == {"abstract", *NOTEBOOKS} and len(claims) > 60
    assert set(claims.loc[claims["source"].isna(), "verdict"]) == {"holds"}
    assert set(claims.loc[claims["source"].notna(), "verdict"]) <= {"confirmed", "contradicted", "open"}


def test_unchanged_notebooks_are_not_executed_again_and_nothing_is_trained(smoke):
    study, target, _ = smoke
    before = {f: f.stat().st_mtime_ns for f in study.outputs.rglob("*") if f.is_file()}
    assert build.build(study, target, jobs=1) == {}
    assert {f: f.stat().st_mtime_ns for f in study.outputs.rglob("*") if f.is_file()} == before


def test_papermill_from_the_top_level(smoke, tmp_path):
    study, _, _ = smoke
    command = ["papermill", "notebooks/05_feature_quantiles.ipynb", str(tmp_path / "out.ipynb"), "-k", "python3"]
    values = {"profile": "smoke", "seeds": "0,1", "outputs": str(study.outputs)}
    for name, value in values.items():
        command += ["-p", name, value]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    one, other = (
        [o.data["text/markdown"] for o in all_outputs(nb) if "ok" in o.get("metadata", {})]
        for nb in (notebook(tmp_path / "out.ipynb"), executed(study, "05_feature_quantiles"))
    )
    assert one == other and one


def outputs_copy(study, folder):
    """The outputs of the study without the checkpoints and with links to its models: more than a gigabyte otherwise."""

    def copy(source, target):
        (os.link if Path(source).name == store.MODEL else shutil.copy2)(source, target)

    return shutil.copytree(
        study.outputs, folder / "outputs", ignore=shutil.ignore_patterns(*store.CHECKPOINTS), copy_function=copy
    )


def lose(study, variant):
    """Let a variant's runs look as a diverged run does."""
    for run in study.runs(variant):
        path = store.Folder(run, study.outputs).path
        metrics = json.loads((path / "metrics.json").read_text()) | {"status": "diverged"}
        (path / "metrics.json").write_text(json.dumps(metrics))
        history = pd.read_csv(path / "history.csv")
        history.loc[history.index[-1], ["train_loss", "val_loss", "q01", "q20", "q80", "q99"]] = np.nan
        history.to_csv(path / "history.csv", index=False)
        store.Folder(run, study.outputs).seal()


def test_a_failing_notebook_does_not_take_the_others_with_it(smoke, tmp_path, monkeypatch):
    """Nor does a variant that diverged with every seed."""
    study, _, _ = smoke
    copy, sources = outputs_copy(study, tmp_path), shutil.copytree(build.SOURCES, tmp_path / "notebooks")
    executed_here = ("01_resnet_bn", "03_six_variants", "14_discussion")
    monkeypatch.setattr(build, "NOTEBOOKS", {name: NOTEBOOKS[name] for name in executed_here})
    nb = notebook(sources / "01_resnet_bn.ipynb")
    nb.cells.insert(4, new_code_cell("raise RuntimeError('the disk is gone')"))
    nbformat.write(nb, sources / "01_resnet_bn.ipynb")
    lose(build.Study("smoke", seeds=study.seeds, outputs=copy), "nn")
    for name in ("05_feature_quantiles", "07_grad_cam", "10_shifted_images", "11_calibration"):
        shown = shown_by(build.SOURCES / f"{name}.ipynb", profile="smoke", dataset="digits", outputs=str(copy))
        assert not [what.data for what, _ in shown if re.search(r"\bnan\b", getattr(what, "data", "") or "")]
    failures = build.build(build.Study("smoke", outputs=copy), tmp_path / "report", 2, sources)
    assert failures == {"01_resnet_bn": "RuntimeError: the disk is gone"}
    html = (tmp_path / "report" / "report.html").read_text()
    assert "This cell failed: RuntimeError" in html and "the disk is gone" in html
    claims = pd.read_csv(copy / "notebooks" / "smoke-digits" / "claims.csv", index_col=0)
    assert "Batch statistics win" in claims.index and claims.loc["Batch statistics win", "verdict"] == "not in these runs"
    assert claims.loc["BN raises accuracy", "verdict"] == "open"  # no number is of the seeds that happened not to diverge
    trainings = saved.load(build.Study("smoke", outputs=copy))["trainings"]
    assert trainings.loc["nn", "test"].isna().all() and trainings.drop("nn")["test"].notna().all()
    assert not re.search(r"\bnan\b", re.sub(r"<details class=.code.>.*?</details>|data:[^\"]*", "", html, flags=re.S))
    assert len(PdfReader(tmp_path / "report" / "report.pdf").pages) > 5


@pytest.mark.parametrize(
    "name, seeds",
    [
        ("04_batch_size", [0]),
        ("05_feature_quantiles", [0, 1]), ("02_norm_sanity", [0]), ("03_six_variants", [0]), ("14_discussion", [0]),
    ],
)  # fmt: skip
def test_a_seed_with_which_bn_diverged_leaves_the_others(smoke, tmp_path, name, seeds):
    study, _, _ = smoke
    copy = outputs_copy(study, tmp_path)
    lost = ("bn_8", study.seeds) if name == "04_batch_size" else ("torch_bn", study.seeds[-1:])
    lose(Study("smoke", seeds=lost[1], outputs=copy), lost[0])
    if name != "14_discussion":  # which reads what the others saved
        shutil.rmtree(saved.folder(Study("smoke", outputs=copy)))
    shown = shown_by(build.SOURCES / f"{name}.ipynb", profile="smoke", dataset="digits", seeds=seeds, outputs=str(copy))
    assert [metadata["ok"] for _, metadata in shown if "ok" in metadata]
    assert (saved.folder(Study("smoke", outputs=copy)) / name / "claims.csv").is_file()


def test_a_report_of_what_is_finished_trains_nothing(smoke, few, tmp_path, capsys):
    study, _, _ = smoke
    half = build.Study("smoke", seeds=study.seeds, outputs=outputs_copy(study, tmp_path))
    lost = [planned[0] for planned in half.sweep().values()][:2]
    for run in lost:
        shutil.rmtree(store.Folder(run, half.outputs).path)
    sources = short_notebooks(tmp_path, "1 + 1")
    assert build.build(half, tmp_path / "report", 2, sources, finished=True) == {}
    assert not any(store.Folder(run, half.outputs).path.exists() for run in lost)
    said = capsys.readouterr().out
    words = " ".join((tmp_path / "report" / "report.html").read_text().split())
    for i, name in enumerate(build.NOTEBOOKS):
        planned = half.runs_of(NOTEBOOKS[name])
        count, waits = f"{len(planned) - 2} of {len(planned)}", name in ("04_batch_size", "14_discussion")
        assert (f"{name}: executed" in said) != waits
        assert (f"{name}: waits for its runs, {count} are finished" in said) == waits
        section = rf"Section {i}(<[^>]*>|¶|\s)*This section waits for its runs: {count} are finished"
        assert bool(re.search(section, words)) == waits
    assert "This report is not whole and has no abstract" in words and "04_batch_size waits for its runs" in words
    assert build.main(["--profile", "smoke", "--outputs", str(tmp_path / "none"), "--finished"]) == 2
    assert "no section has all its runs" in capsys.readouterr().err


def test_an_executed_notebook_that_was_changed_is_executed_again(smoke, tmp_path):
    study, _, _ = smoke
    file = Path(shutil.copy(study.outputs / "notebooks" / "smoke-digits" / "01_resnet_bn.ipynb", tmp_path))
    assert build.key_of(file, study)
    file.write_text(file.read_text().replace("test accuracy", "test accurazy"))
    assert build.key_of(file, study) == ""
    file.write_bytes(file.read_bytes()[:1000])
    assert build.key_of(file, study) == ""
    (copied := tmp_path / "outputs").mkdir()
    other = Study("smoke", "digits", seeds=(0, 1), outputs=copied)
    shutil.copytree(build.notebook_folder(study), build.notebook_folder(other))
    file = build.notebook_folder(other) / "01_resnet_bn.ipynb"
    assert build.key_of(file, other)
    with (saved.folder(other) / "01_resnet_bn" / "splits.csv").open("a") as csv:
        csv.write("other,1,1,1,1\n")
    assert build.key_of(file, other) == ""  # a fact was changed


def test_paths_in_executed_notebooks_name_no_machine(smoke):
    study, _, _ = smoke
    assert build.portable("outputs/x") == "outputs/x" and build.portable(ROOT / "notebooks") == "notebooks"
    assert build.portable(study.outputs) == str(study.outputs)
    for name in NOTEBOOKS:
        assert str(ROOT) not in (build.notebook_folder(study) / f"{name}.ipynb").read_text()


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
    meant = re.findall(r"\]\(#([^)]+)\)", (ROOT / "report" / "map.md").read_text())  # one that leads nowhere is plain text
    assert len(meant) > 10 and set(meant) <= {re.sub(r"^a\d+-", "", link) for link in inside}
    to_cells = [link for link in found.links if "ipynb#cell-id=" in link]
    assert all(link.startswith(("#", "https://", "data:text/csv;")) for link in found.links if link not in to_cells)
    for link in to_cells:
        path, _, cell = link.partition("#cell-id=")
        assert cell in {cell.id for cell in notebook(smoke[1] / path).cells}
    assert len(to_cells) > 20
    assert "<math" in html and "$$" not in html  # math is MathML, not something a script has to turn into it


def test_figures_and_tables_are_numbered_alike_in_both(smoke):
    html = (smoke[1] / "report.html").read_text()
    text = "\n".join(page.extract_text() for page in PdfReader(smoke[1] / "report.pdf").pages)
    for kind, most in (("Figure", 30), ("Table", 14)):
        for appendix in ("", "A"):
            numbers = [int(n) for n in re.findall(rf"<strong>{kind} {appendix}(\d+)\.</strong>", html)]
            assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= 3
            assert appendix or len(numbers) <= most
            assert {int(n) for n in re.findall(rf"{kind} {appendix}(\d+)\. ", text)} == set(numbers)


def test_prose_names_figures_and_tables_by_their_numbers(smoke, tmp_path):
    def caption(kind):
        return new_output("display_data", {"text/markdown": "*It.*"}, metadata={"caption": kind})

    def words(text):
        return new_output("display_data", {"text/markdown": text})

    plot = new_output("display_data", {"text/plain": "a plot"})
    found = [words("the figure below"), plot, caption("figure"), words("so (figure above); no table above")]
    found += [words("The figure at the top of this section")]
    found += [plot, caption("table"), words("figure below, The table above, figures above")]
    cell = new_code_cell("", outputs=found)
    text = Writer(
        ReportHTMLExporter(exclude_input=True), new_notebook(cells=[new_markdown_cell("a table below"), cell]), tmp_path
    ).text()
    prose = [line for line in text.splitlines() if "igure" in line or "able" in line]
    assert [line for line in prose if ":" not in line and "It." not in line] == [
        "a Table 1", "Figure 1", "so (Figure 1); no table above", "Figure 1", "figure below, Table 1, figures above",
    ]  # fmt: skip
    html = re.sub("<pre.*?</pre>", "", (smoke[1] / "report.html").read_text(), flags=re.S)
    html = " ".join(re.sub("<[^>]+>", "", html).split())
    assert "and climb again (Figure 1)" in html and not re.search(r"(figure|table) (above|below)", html)


def test_what_a_cell_says_in_a_row_is_one_paragraph(tmp_path):
    def said(text, ok):
        return new_output("display_data", {"text/markdown": text}, metadata={"claim": text, "ok": ok})

    found = [
        said("One.", True),
        said("Two.", True),
        said("a: not here", False),
        said("b: not here", False),
        said("Three.", True),
    ]
    text = Writer(
        ReportHTMLExporter(exclude_input=True), new_notebook(cells=[new_code_cell("", outputs=found)]), tmp_path
    ).text()
    assert text.split("\n\n") == ["One. Two.", "::: absent\na: not here; b: not here\n:::", "Three.\n"]


def test_a_section_has_one_grey_line_for_what_does_not_hold(smoke):
    study, target, _ = smoke
    html = " ".join((target / "report.html").read_text().split())
    lines = [unescape(line).replace("’", "'") for line in re.findall(r'<div class="absent">(.*?)</div>', html)]
    claims = pd.read_csv(build.notebook_folder(study) / "claims.csv", index_col=0)
    claims = claims[(claims["verdict"] == "not in these runs") & (claims["section"] != "abstract")]
    assert len(lines) == claims["section"].nunique() > 5
    for name in claims.index:
        assert any(name in line for line in lines), name


def test_the_appendix_has_numbers_of_its_own(tmp_path):
    def captioned(kind):
        words = new_output("display_data", {"text/markdown": "_*: It._"}, metadata={"caption": kind})
        return new_code_cell("", outputs=[new_output("display_data", {"text/plain": "a plot"}), words])

    cells = [captioned("table"), new_markdown_cell("table above"), new_markdown_cell("# Appendix: more")]
    cells += [new_markdown_cell("table below"), captioned("table"), captioned("figure")]
    text = Writer(ReportHTMLExporter(exclude_input=True), new_notebook(cells=cells), tmp_path).text()
    assert [*re.findall(r"\*\*(.*?)\.\*\* \*: It", text)] == ["Table 1", "Table A1", "Figure A1"]
    assert "\nTable 1\n" in text and "\nTable A1\n" in text


def test_columns_of_words_are_left_aligned_in_html_too(smoke):
    html = (smoke[1] / "report.html").read_text()
    row = re.search(r"<tr[^>]*>\s*<td[^>]*>BN raises accuracy</td>.*?</tr>", html, re.S)[0]
    sides = re.findall(r"<td style=\"text-align: (\w+);?\">", row)
    assert sides[0] == sides[1] == sides[3] == "left"  # claim, source, verdict


def test_lines_that_are_no_variant_start_anew_in_every_figure():
    first = [plots.style_of(name) for name in ("Adam", "SGD")]
    assert first[0] != first[1] and first[0] == plots.OTHERS[0] and plots.style_of("Adam") == first[0]
    plots.show(plots.plt.figure(figsize=(1, 1)), "A figure.")
    assert plots.style_of("tanh") == plots.OTHERS[0]
    plots.USED.clear()
    assert plots.style_of("bn") == plots.STYLES["bn"] and plots.style_of("Adam") == plots.OTHERS[0]
    plots.USED.clear()


def test_gates_are_drawn_alike_every_time():
    channels = pd.DataFrame({"layer": ["stem"] * 4 + ["1.0.1"] * 4, "channel": [*range(4)] * 2, "rho": [0.1, 0.5, 1, 1] * 2})
    drawn = []
    for _ in range(2):
        figure = figures.gate_values(channels)
        figure.canvas.draw()
        drawn.append(bytes(figure.canvas.buffer_rgba()))
    assert drawn[0] == drawn[1]


def test_pdf_has_title_map_references_and_no_code(smoke):
    reader = PdfReader(smoke[1] / "report.pdf")
    first = reader.pages[0].extract_text()
    text = "\n".join(page.extract_text() for page in reader.pages)
    assert page.TITLE in first and "How to read the numbers" in first and reader.metadata.title == page.TITLE
    assert "1.2.7" in first  # the map from the assignment's items
    links = [annotation.get_object() for annotation in reader.pages[0].get("/Annots", [])]
    assert len(links) >= 8  # all of which lead to a section
    assert "References" in text and "arXiv:1502.03167" in text
    assert "study.fit" not in text and "import numpy" not in text
    assert len(reader.outline) >= 8
    assert b"<pdfuaid:part>1</pdfuaid:part>" in reader.trailer["/Root"]["/Metadata"].get_data()  # it is accessible: PDF/UA-1


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
        [sys.executable, "-m", "nbconvert", "--to", "typst_pdf", "--no-input", "some.ipynb"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
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
        page.set_default_timeout(120_000)
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
            links.nth(i).evaluate("link => link.click()")  # a mark beside the place that is read moves the links
            target = links.nth(i).get_attribute("href")[1:]
            top = f"document.getElementById({target!r}).getBoundingClientRect().top"
            page.wait_for_function(f"-5 <= {top} && {top} < 900")  # the page may still be moving
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


@pytest.mark.skipif(not BROWSER, reason="no Chromium or Chrome is installed on this machine")
def test_figures_show_in_jupyterlab(smoke, tmp_path):
    """Of an executed notebook that it does not trust, and prose shows with its code folded."""
    from playwright.sync_api import sync_playwright

    study, _, _ = smoke
    (tmp_path / "here").mkdir()
    shutil.copy(build.notebook_folder(study) / "05_feature_quantiles.ipynb", tmp_path / "here")
    own = {f"JUPYTER_{name}_DIR": str(tmp_path / name.lower()) for name in ("DATA", "RUNTIME", "CONFIG")}
    command = [
        sys.executable,
        "-m",
        "jupyter",
        "lab",
        "--no-browser",
        "--allow-root",
        "--ServerApp.port=0",
        "--IdentityProvider.token=",
    ]
    own |= {"IPYTHONDIR": str(tmp_path / "ipython")}
    command.append(f"--ServerApp.root_dir={tmp_path / 'here'}")
    server = subprocess.Popen(command, env=os.environ | own, stderr=subprocess.DEVNULL, cwd=tmp_path)
    try:
        for _ in range(900):
            if found := [*tmp_path.glob("runtime/jpserver-*.json")]:
                break
            time.sleep(0.2)
        url = json.loads(found[0].read_text())["url"]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1300, "height": 6000})
            page.goto(f"{url}lab/tree/05_feature_quantiles.ipynb", timeout=120_000)
            page.wait_for_selector(".jp-OutputArea img[src^='data:image/png']", timeout=120_000)
            assert page.locator(".jp-OutputArea img[src^='data:image/png']").count() >= 1
            assert page.locator("text=<Figure size").count() == 0
            page.wait_for_selector(".jp-CodeCell .jp-Placeholder", timeout=120_000)  # a cell whose code is folded
            browser.close()
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:  # a kernel that has just begun can hold it back; it ends with its server
            server.kill()
            server.wait()


def test_readme_says_what_the_committed_runs_say():
    from report import readme

    for file, text in readme.pages().items():
        assert file.read_text() == text, "run python -m report.readme"
    text = readme.README.read_text()
    assert len(text.split()) <= 1800
    for name in NOTEBOOKS:
        assert f"(notebooks/{name}.ipynb)" in text


def test_what_is_handed_in_is_one_file(smoke, tmp_path):
    study, folder, _ = smoke
    file = bundle.bundle(study, folder)
    with zipfile.ZipFile(file) as opened:
        names = {name.removeprefix("normalization/") for name in opened.namelist()}
        runs = pd.read_csv(opened.open("normalization/runs.csv"))
        assert opened.read("normalization/report.pdf") == (folder / "report.pdf").read_bytes()
        linked = set(re.findall(rb'href="([^"#]+\.ipynb)#', opened.read("normalization/report.html")))
        assert linked and {link.decode() for link in linked} <= names
    assert {"report.html", "report.pdf", "runs.csv", "notebooks/claims.csv"} <= names
    assert {
        f"notebooks/{name}.ipynb" for name in NOTEBOOKS
    } <= names and "notebooks/facts/03_six_variants/trainings.csv" in names
    own = runs[runs["run"] == study.runs("bn")[0].id].set_index("file")["sha256"]
    for name, digest in own.items():
        assert hashlib.sha256((Folder(study.runs("bn")[0], study.outputs).path / name).read_bytes()).hexdigest() == digest
    assert len(own) >= 5
    first = file.read_bytes()
    assert bundle.bundle(study, folder).read_bytes() == first
    with pytest.raises(FileNotFoundError, match=r"report\.html is not there; make report builds it"):
        bundle.bundle(study, tmp_path)
