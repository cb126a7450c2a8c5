"""Executes the notebooks with papermill and builds report.html and report.pdf from what they say.

    python -m report.build --profile quick --dataset digits

The report of the paper profile on CIFAR-10 is report/report.html and report/report.pdf; that of any other setting has a folder
of its own, as report/quick-digits/, so that none poses as another. So have, in outputs/notebooks/, the executed notebooks and
results.csv, which has a row for each of the report's runs and splits.

A notebook is executed again only if its source, the code, its parameters or the runs changed. A notebook that fails does not
take the others with it: the report shows where it failed, and the exit code is 1.

With --finished nothing is trained: a section of which a run is missing stands with its title only, and says how many are there.
"""

import ast
import html
import itertools
import os
import shutil
import socket
import sys
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import active_children, get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import numpy as np
import pandas as pd
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from tqdm.auto import tqdm
from traitlets.config import Config

from benchmarks import precision
from lib.data import ROOT
from lib.engine import store
from lib.engine.commands import OPTIONS, Parser, command
from lib.engine.files import sha256, write_file
from lib.engine.jobs import end_with_parent
from lib.plots import table_html
from lib.run import Run
from lib.study import EVERYTHING, NAMES, NOTEBOOKS, Study
from report import landscape, probes, saved
from report.page import first_page

HERE = Path(__file__).resolve().parent
SOURCES = ROOT / "notebooks"
SCORED = ("10_shifted_images", "11_calibration")  # which score stored models anew
PART_TWO, LAST = "06_training_recipe", "14_discussion"  # the first section of part II, and the one that reads the others' facts
#: section -> what was tried, before the study and after, and is shown there as far as it is there
TRIED = {"01_resnet_bn": probes.plan, "12_norm_or_recipe": probes.tried_later, "13_why": probes.tried_later}
#: The groups of runs as the appendix names them.
GROUPS = {
    "sweep": "batch sizes (sweep)",
    "recipes": "training recipes",
    "cnn": "plain CNN",
    "transfer": "transfer",
    "precision": "bf16 against float32",
}


def notebook_folder(study: Study) -> Path:
    """Where the executed notebooks lie, in a folder named by profile and data set."""
    return saved.folder(study).parent


def report_folder(study: Study) -> Path:
    """Where the report lies: this folder if it is the committed one, else one beneath it."""
    return HERE if (study.profile, study.dataset) == ("paper", "cifar10") else HERE / notebook_folder(study).name


def portable(path: str | Path) -> str:
    """As the notebooks understand it: relative to the project's top folder if it lies there."""
    path = Path(path).resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def code_of(source: Path) -> str:
    """Changes with the notebook or what the code that it runs does."""
    files = [
        *(HERE / f"{name}.py" for name in ("say", "figures", "landscape", "probes", "saved", "transfer")),
        *sorted((ROOT / "lib").rglob("*.py")),
    ]
    meant = [file.read_text() if "getsource" in source.read_text() else meaning(file) for file in files]
    return sha256("\0".join([source.read_text(), *meant]).encode())


def meaning(file: Path) -> str:
    """Python code without what changes nothing that it does: docstrings, comments and layout."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def fingerprint(source: Path, study: Study, parameters: dict) -> str:
    """Changes with anything an execution depends on: the notebook, the code, the parameters, its runs' results and which of
    their models are kept."""
    needed = study.runs_of(NOTEBOOKS[source.stem])
    if source.stem in TRIED:
        needed += [run for planned in TRIED[source.stem]().values() for run in planned]
    paths = [store.Folder(run, study.outputs).path for run in needed]
    sums = [
        ((path / store.SUMS).read_text(), (path / store.MODEL).is_file()) if (path / store.SUMS).is_file() else "missing"
        for path in paths
    ]
    read = [facts_of(study, name) for name in NOTEBOOKS if name != LAST and source.stem == LAST]
    read += [(path / landscape.FILE).is_file() for path in paths if source.stem in TRIED]
    return sha256(repr((sorted(parameters.items()), code_of(source), sums, read)).encode())


def facts_of(study: Study, section: str) -> str:
    """Changes with any fact that a section saved."""
    files = sorted((saved.folder(study) / section).glob("*.csv"))
    return sha256(b"".join(sha256(file.read_bytes()).encode() for file in files))


def content_of(notebook, study: Study, section: str) -> str:
    """Changes with any cell, output or saved fact."""
    return sha256((nbformat.writes(new_notebook(cells=notebook.cells)) + facts_of(study, section)).encode())


def waiting(study: Study) -> dict[str, str]:
    """notebook -> how many of its runs are finished, for those of which not all are."""
    counts = {}
    for name, needed in NOTEBOOKS.items():
        planned = study.runs_of(needed)
        there = sum(store.Folder(run, study.outputs).sound for run in planned)
        if there < len(planned):
            counts[name] = f"{there} of {len(planned)}"
    return counts


def execute(source: Path, study: Study, parameters: dict, folder: Path) -> str:
    """Run one notebook into `folder`: "" if it went well, or the error."""
    target = folder / source.name
    import papermill
    from papermill.exceptions import PapermillExecutionError

    target.unlink(missing_ok=True)
    shutil.rmtree(saved.folder(study) / source.stem, ignore_errors=True)  # of no other execution
    try:
        code = code_of(source)
        with TemporaryDirectory(prefix="kernel-") as sockets:
            papermill.execute_notebook(
                source,
                target,
                parameters,
                kernel_name="python3",
                cwd=source.parent,
                progress_bar=False,
                start_timeout=300,  # s, for a machine that trains beside it
                config=connection(sockets),
                # what is wrong shows in the notebook; shutdown logs an error too
                extra_arguments=["--IPKernelApp.log_level=50"],
            )
    except PapermillExecutionError as error:
        return f"{error.ename}: {error.evalue}"
    except Exception as error:  # a kernel that was killed, a notebook that is none, a disk that is full
        return show_failure(target, error)
    notebook = nbformat.read(target, as_version=4)
    for name in ("input_path", "output_path"):
        notebook.metadata["papermill"][name] = portable(notebook.metadata["papermill"][name])
    if code == code_of(source):  # else it was edited meanwhile, and is to be executed again
        notebook.metadata["fingerprint"] = fingerprint(source, study, parameters)
        notebook.metadata["content"] = content_of(notebook, study, source.stem)
    write(target, nbformat.writes(notebook))
    return ""


def own_kernel() -> None:
    """From now on notebooks run in this Python, and not in another whose kernel Jupyter finds first under the same name."""
    own = Path(sys.prefix) / "share" / "jupyter"
    known = os.environ.get("JUPYTER_PATH", "").split(os.pathsep)
    if (own / "kernels" / "python3").is_dir() and str(own) != known[0]:
        os.environ["JUPYTER_PATH"] = os.pathsep.join([str(own), *filter(None, known)])


def score(run: Run, study: Study) -> None:
    """Leave beside a finished run what SCORED would else score run by run, and twice where they are executed at once."""
    from lib import scoring  # slow to import, and seldom needed

    if (result := store.find(run, study.outputs)) and not result.failed:
        loaded = study.data(run)
        scoring.shifted(result, loaded)
        scoring.reliability(result, loaded)


def connection(folder: str) -> Config:
    """How to talk with a kernel: by sockets in a folder of its own. A TCP port is chosen before the kernel takes it, and may be
    another's by then (https://github.com/jupyter/jupyter_client/issues/487); it is the way where there are no such sockets."""
    file = f"{folder}/kernel.json"
    local = hasattr(socket, "AF_UNIX") and len(file) < 90  # a socket's path has 104 bytes on macOS, 108 on Linux
    return Config(KernelManager={"transport": "ipc" if local else "tcp", "connection_file": file})


def show_failure(target: Path, error: Exception) -> str:
    """Put an error that no cell shows at the end of what was executed; the error as a sentence."""
    try:
        notebook = nbformat.read(target, as_version=4)
    except Exception:
        notebook = new_notebook(cells=[new_markdown_cell(f"# {target.stem}")])
    name, words = type(error).__name__, str(error).strip() or "no more is known"
    notebook.cells.append(new_code_cell("", outputs=[new_output("error", ename=name, evalue=words, traceback=[])]))
    write(target, nbformat.writes(notebook))
    return f"{name}: {words}"


def key_of(target: Path, study: Study) -> str:
    """The fingerprint of an executed notebook; none of one that was changed or damaged since, or whose facts were, which is
    then made anew."""
    try:
        notebook = nbformat.read(target, as_version=4)
        known = notebook.metadata["content"] == content_of(notebook, study, target.stem)
        return notebook.metadata["fingerprint"] if known else ""
    except Exception:  # nbformat raises many kinds
        return ""


def write(file: Path, content: str | bytes) -> None:
    """The file with this content; it is left alone if it has that already."""
    content = content.encode() if isinstance(content, str) else content
    if not file.is_file() or file.read_bytes() != content:
        write_file(file, content)


def combine(
    folder: Path, study: Study, left_out: dict[str, str], sources: Path, used: dict[str, list[store.Result]]
) -> list[nbformat.NotebookNode]:
    """The cells of the executed notebooks in two parts and an appendix (of what they tag so, and of the runs `used`), and the
    references. A section ends with one grey line for all its claims that do not hold. `left_out` is as of `waiting`."""
    cells, appended = [], []
    for name in NOTEBOOKS:
        if name == PART_TWO:
            cells.append(page_cell("part_two.md"))
        target = folder / f"{name}.ipynb"
        if name in left_out:
            title = nbformat.read(sources / target.name, as_version=4).cells[0].source.splitlines()[0]
            cells.append(new_markdown_cell(f"{title}\n\nThis section waits for its runs: {left_out[name]} are finished."))
            continue
        if not target.is_file():
            cells.append(new_markdown_cell(f"# {name}\n\n**This notebook was not executed.**"))
            continue
        section = [c for c in nbformat.read(target, as_version=4).cells if not tagged(c, "papermill-error-cell-tag")]
        for cell in section:  # where a figure or a table is made
            cell.metadata["made_in"] = f"{name}.ipynb#cell-id={cell.id}"
        absent = without_absent(section)
        cells += [cell for cell in section if not tagged(cell, "appendix")]
        appended += [cell for cell in section if tagged(cell, "appendix")]
        if absent:
            listed = "; ".join(dict.fromkeys(absent))
            cells.append(new_markdown_cell(f"::: absent\nNot in these runs (their facts are in claims.csv): {listed}.\n:::"))
    appended = [page_cell("appendix.md"), *appended, *appendix(used)]
    return [*cells, *numbered(appended), page_cell("references.md")]


def without_absent(cells: list) -> list[str]:
    """Take the grey lines out of a section's cells; the names of their claims, for one line at its end."""
    names = []
    for cell in cells:
        if cell.cell_type == "code":
            absent = [output for output in cell.outputs if output.get("metadata", {}).get("ok") is False]
            names += [output.metadata["claim"] for output in absent]
            cell.outputs = [output for output in cell.outputs if output not in absent]
    return names


def page_cell(name: str) -> nbformat.NotebookNode:
    return new_markdown_cell((HERE / name).read_text())


def tagged(cell, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def numbered(cells: list) -> list:
    """The appendix' sections by A1, A2, …"""
    count = 0
    for cell in cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            count += 1
            title, *rest = cell.source.splitlines()
            cell.source = "\n".join([f"## A{count} {title[3:]} {{.unnumbered}}", *rest])
    return cells


def reported(study: Study) -> dict[str, list[store.Result]]:
    """Group of the appendix -> its finished runs. A run of several groups is in the first of them."""
    found, listed = {}, set()
    variants = study.plan(EVERYTHING)  # with further seeds
    groups = {name: variants.get(name, []) if name in NAMES else study.runs_of([name]) for name in EVERYTHING}
    if report_folder(study) == HERE:
        groups["what was tried for the recipe"] = itertools.chain(*probes.plan(study.seeds).values())
        groups["what was tried for each norm"] = itertools.chain(*probes.tried_later().values())
        groups["precision"] = itertools.chain(*precision.plan(replace(study, seeds=precision.SEEDS)).values())
    for name, planned in groups.items():
        own = {run.id: run for run in planned if run.id not in listed}
        listed |= own.keys()
        found[name] = [result for run in own.values() if (result := store.find(run, study.outputs))]
    return found


def appendix(found: dict[str, list[store.Result]]) -> list:
    """How the results were made: every run of `reported`, its cost and where it ran."""
    rows, environments = [], []
    for name, results in found.items():
        environments += [result.env for result in results]
        # A variant has a row for each run; a group of many runs one for all of them.
        for part in [[result] for result in results] if name in NAMES else [results] if results else []:
            title = NAMES.get(name, GROUPS.get(name, name)) + " (diverged)" * all(result.diverged for result in part)
            epochs = sorted({result.metrics["epochs_run"] for result in part})
            rows.append(
                {
                    "variant": title,
                    "run": part[0].run.id if name in NAMES else f"{len(part)} run{'s' * (len(part) > 1)}",
                    "epochs": " to ".join(str(n) for n in dict.fromkeys((epochs[0], epochs[-1]))),
                    "minutes": sum(result.metrics["train_seconds"] for result in part) / 60,
                    "runs": len(part),
                }
            )
    text = "## Every run\n\n"
    if not rows:
        return [new_markdown_cell(text + "No run is finished.")]
    count, frame = sum(row.pop("runs") for row in rows), pd.DataFrame(environments)
    devices, threads, pythons = (
        "; ".join(sorted(set("; ".join(map(str, frame[name])).split("; ")))) for name in ("device", "threads", "python")
    )
    versions = ", ".join(
        sorted({f"{package} {version}" for env in environments for package, version in env["versions"].items()})
    )
    text += (
        f"{count} runs, {sum(row['minutes'] for row in rows):.0f} minutes of training in all, on {devices} (threads: "
        f"{threads}) with Python {pythons}, {versions}. Every run's settings, history, predictions and weights are in "
        "`outputs/runs/` under its id; the plain CNN's weights are too large to be kept in git."
    )
    data = {"text/html": table_html(pd.DataFrame(rows), digits=1)}
    caption = {"text/markdown": "_The runs of this report._"}
    shown = [
        new_output("display_data", data=data),
        new_output("display_data", data=caption, metadata={"caption": "table"}),
        new_output("display_data", data={"text/html": every_run(found)}, metadata={"screen": True}),
    ]
    return [new_markdown_cell(text), new_code_cell("", outputs=shown)]


def every_run(found: dict[str, list[store.Result]]) -> str:
    """A table of all runs of `reported` that a browser sorts, each with its validation accuracy by epoch as a small curve."""
    rows = []
    for name, results in found.items():
        for result in results:
            curve = result.history["val_accuracy"].fillna(0.0).to_numpy()
            at = np.unique(np.linspace(0, len(curve) - 1, 50).astype(int))
            points = " ".join(f"{100 * i / max(len(curve) - 1, 1):.0f},{30 - 30 * curve[i]:.1f}" for i in at)
            label = f"validation accuracy by epoch, from {curve[0]:.3f} to {curve[-1]:.3f}"
            cells = [
                html.escape(NAMES.get(name, GROUPS.get(name, name))),
                html.escape(result.run.id),
                f'<svg role="img" viewBox="0 -1 100 32" aria-label="{label}"><polyline points="{points}"/></svg>',
                f"{100 * curve.max():.2f}",
                str(result.metrics["epochs_run"]),
                f"{result.metrics['train_seconds'] / 60:.1f}",
            ]
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    titles = ("variant", "run", "validation accuracy by epoch", "best (%)", "epochs", "minutes")
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    summary = f"<summary>all {len(rows)} runs, to be sorted by a click on a column's title</summary>"
    table = f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<details class="runs">{summary}\n{table}</details>'


@contextmanager
def workers(count: int):
    """A pool of processes that end at once when this one is interrupted or killed, and their kernels with them."""
    pool = ProcessPoolExecutor(count, get_context("spawn"), end_with_parent, (os.getpid(),))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in active_children():
            process.terminate()
        raise
    pool.shutdown()


def build(study: Study, target: Path, jobs: int, sources: Path = SOURCES, finished: bool = False) -> dict[str, str]:
    """Execute what changed, then write target/report.html and target/report.pdf. Returns the failures by notebook.
    With `finished`, only the notebooks of which all runs are finished; ValueError if none is."""
    from report.export import ReportHTMLExporter, TypstPDFExporter

    study.plan(EVERYTHING)  # names what is wrong with the data folder, before anything is made
    own_kernel()
    left_out = waiting(study) if finished else {}
    shown = [name for name in NOTEBOOKS if name not in left_out]
    if not any(NOTEBOOKS[name] for name in shown):  # some need none of the study's runs
        raise ValueError(f"finished is given, but no section has all its runs in {study.outputs}; train them, or leave it out")
    folder = notebook_folder(study)
    if folder.parent.resolve() == sources.resolve():
        raise ValueError(f"outputs is {study.outputs}, whose notebooks/ are the sources; give another folder, as outputs/")
    for path in (folder, target):
        path.mkdir(parents=True, exist_ok=True)
    parameters = {
        "profile": study.profile,
        "dataset": study.dataset,
        "data_dir": portable(study.data_dir),
        "seeds": list(study.seeds),
        "outputs": portable(study.outputs),
    }
    failures = {}
    for name in left_out:  # what an earlier execution said is not of this report
        shutil.rmtree(saved.folder(study) / name, ignore_errors=True)
    with workers(jobs) as pool, tqdm(total=len(shown), desc="notebooks", unit="notebook") as bar:
        for part in ([name for name in shown if name != LAST], [name for name in shown if name == LAST]):
            files = {name: sources / f"{name}.ipynb" for name in part}
            changed = [
                name
                for name, file in files.items()
                if key_of(folder / file.name, study) != fingerprint(file, study, parameters)
            ]
            if of_scores := [needed for name in SCORED if name in changed for needed in NOTEBOOKS[name]]:
                # What cannot be scored here, the notebook tries again, and shows why not.
                wait([pool.submit(score, run, study) for run in study.runs_of(of_scores)])
            futures = {name: pool.submit(execute, files[name], study, parameters, folder) for name in changed}
            for name in part:
                try:
                    said = futures[name].result() if name in futures else "kept"
                except Exception as error:  # its process was killed
                    said = show_failure(folder / f"{name}.ipynb", error)
                tqdm.write(f"{name}: {'unchanged' if said == 'kept' else said or 'executed'}")
                bar.update()
                if said not in ("", "kept"):
                    failures[name] = said
    for name, count in left_out.items():
        print(f"{name}: waits for its runs, {count} are finished", flush=True)
    found = reported(study)
    table = store.results([result for results in found.values() for result in results], study.outputs)
    write(folder / "results.csv", table.to_csv(index=False))
    missing = {name: "waits for its runs" for name in left_out} | {name: "failed" for name in failures}
    with TemporaryDirectory(prefix="page-") as pictures:
        page, claims = first_page(study, missing, Path(pictures))
        write(folder / "claims.csv", claims.to_csv(index_label="claim"))
        notebook = new_notebook(cells=combine(folder, study, left_out, sources, found))
        exporters = {"report.html": ReportHTMLExporter(), "report.pdf": TypstPDFExporter(exclude_input=True)}
        page["notebooks"] = os.path.relpath(sources, target)
        made = {name: exporter.from_notebook_node(notebook, {"report": page})[0] for name, exporter in exporters.items()}
        for name, content in made.items():  # both, or neither
            write(target / name, content)
            print(f"{target / name}: {len(content) / 2**20:.1f} MiB", flush=True)
    absent = claims[claims["verdict"] == "not in these runs"]
    for name, row in absent.iterrows():
        print(f"{row['section']}: the claim {name!r} does not hold in these runs", flush=True)
    if len(absent) and report_folder(study) == HERE:  # the report that is committed says what it was written for
        failures["claims"] = f"{len(absent)} of {len(claims)} do not hold at the setting that the prose was written for"
    return failures


@command
def main(argv=None) -> int:
    parser = Parser("report.build", __doc__, *OPTIONS)
    parser.add_argument("--report", type=Path, help="folder of report.html and report.pdf (default: by the setting, see above)")
    parser.add_argument("--finished", action="store_true", help="train nothing: leave out the sections that wait for a run")
    parser.add_argument("--jobs", default=2, type=int, help="notebooks at a time (default: 2)")
    args = parser.parse_args(argv)
    if args.jobs < 1:
        raise ValueError(f"jobs is {args.jobs}; it must be an integer of at least 1")
    if args.report and args.report.exists() and not args.report.is_dir():
        raise ValueError(f"report is {args.report}, which is a file; it must be the path of a folder")
    study = Study(args.profile, args.dataset, args.data_dir, args.seeds, args.outputs)
    failures = build(study, args.report or report_folder(study), args.jobs, finished=args.finished)
    for name, error in failures.items():
        print(f"{name} failed: {error}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
