"""Executes the notebooks with papermill and builds report.html and report.pdf from what they say.

    python -m report.build --profile quick --dataset digits

The report of the paper profile on CIFAR-10 is report/report.html and report/report.pdf; that of any other setting has a folder
of its own, as report/quick-digits/, so that none poses as another. So have, in outputs/notebooks/, the executed notebooks and
results.csv, which has a row for each of the report's runs and splits.

A notebook is executed again only if its source, the code, its parameters or the runs changed. A notebook that fails does not
take the others with it: the report shows where it failed, and the exit code is 1.

With --finished nothing is trained: a section of which a run is missing stands with its title only, and says how many are there.
"""

import datetime
import os
import socket
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import active_children, get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import pandas as pd
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from traitlets.config import Config

from lib import runs, tables
from lib.jobs import end_with_parent
from lib.plots import table_html
from lib.study import EVERYTHING, LABELS, NOTEBOOKS, PRECISION_SEEDS, Study
from lib.train import Parser, command

HERE = Path(__file__).resolve().parent
SOURCES = runs.ROOT / "notebooks"
TITLE = "Normalization in deep residual networks"
PART_TWO, AFTER_PART_TWO = "06_training_recipe", "10_discussion"  # the first section of part II, and the one after it
#: The groups of runs as the appendix names them.
GROUPS = {
    "sweep": "batch sizes (sweep)",
    "recipes": "training recipes",
    "cnn": "plain CNN",
    "transfer": "transfer",
    "precision": "bf16 against float32",
}


def setting(study: Study) -> str:
    """The name of what is reported, for folders: profile and data set."""
    return f"{study.profile}-{study.runs('bn')[0].data_slug}"


def report_folder(study: Study) -> Path:
    return HERE if (study.profile, study.dataset) == ("paper", "cifar10") else HERE / setting(study)


def notebook_folder(study: Study) -> Path:
    return study.outputs / "notebooks" / setting(study)


def portable(path: str | Path) -> str:
    """As the notebooks understand it: relative to the project's top folder if it lies there."""
    path = Path(path).resolve()
    return str(path.relative_to(runs.ROOT) if path.is_relative_to(runs.ROOT) else path)


def code_of(source: Path) -> str:
    """Changes with the notebook or the code that it runs."""
    files = [source, *sorted((runs.ROOT / "lib").glob("*.py"))]
    return runs.sha256(b"".join(runs.sha256(file.read_bytes()).encode() for file in files))


def fingerprint(source: Path, study: Study, parameters: dict) -> str:
    """Changes with anything an execution depends on: the notebook, the code, the parameters, its runs' results and which of
    their models are kept."""
    needed = study.runs_of(NOTEBOOKS[source.stem])
    if source.stem == "01_resnet_bn":  # which shows what was tried for the recipe
        needed += [run for planned in Study("paper", "cifar10", outputs=study.outputs).probes().values() for run in planned]
    paths = [runs.Folder(run, study.outputs).path for run in needed]
    sums = [
        ((path / runs.SUMS).read_text(), (path / runs.MODEL).is_file()) if (path / runs.SUMS).is_file() else "missing"
        for path in paths
    ]
    return runs.sha256(repr((sorted(parameters.items()), code_of(source), sums)).encode())


def content_of(notebook) -> str:
    """Changes with any cell or output."""
    return runs.sha256(nbformat.writes(new_notebook(cells=notebook.cells)).encode())


def waiting(study: Study) -> dict[str, str]:
    """notebook -> how many of its runs are finished, for those of which not all are."""
    counts = {}
    for name, needed in NOTEBOOKS.items():
        planned = study.runs_of(needed)
        there = sum(runs.Folder(run, study.outputs).sound for run in planned)
        if there < len(planned):
            counts[name] = f"{there} of {len(planned)}"
    return counts


def execute(source: Path, study: Study, parameters: dict, folder: Path) -> str:
    """Run one notebook into `folder`: "" if it went well, "kept" if nothing had changed, or the error."""
    target = folder / source.name
    if target.is_file() and key_of(target) == fingerprint(source, study, parameters):
        return "kept"
    import papermill
    from papermill.exceptions import PapermillExecutionError

    target.unlink(missing_ok=True)
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
        notebook.metadata["content"] = content_of(notebook)
    write(target, nbformat.writes(notebook))
    return ""


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


def key_of(target: Path) -> str:
    """The fingerprint of an executed notebook; none of one that was changed or damaged since, which is then made anew."""
    try:
        notebook = nbformat.read(target, as_version=4)
        return notebook.metadata["fingerprint"] if notebook.metadata["content"] == content_of(notebook) else ""
    except Exception:  # nbformat raises many kinds
        return ""


def write(file: Path, content: str | bytes) -> None:
    """The file with this content; it is left alone if it has that already."""
    content = content.encode() if isinstance(content, str) else content
    if not file.is_file() or file.read_bytes() != content:
        runs.write_file(file, content)


def combine(
    folder: Path, study: Study, left_out: dict[str, str], sources: Path, used: dict[str, list[runs.Result]]
) -> tuple[nbformat.NotebookNode, dict]:
    """The executed notebooks as one, with introduction, references and appendix (of the runs `used`), and the title page's
    metadata. `left_out` is as of `waiting`."""
    cells = [new_markdown_cell((HERE / "introduction.md").read_text())]
    headlines, said = [], set()
    for name in NOTEBOOKS:
        if name == PART_TWO:
            cells.append(new_markdown_cell((HERE / "part_two.md").read_text()))
        target = folder / f"{name}.ipynb"
        if name in left_out:
            title = nbformat.read(sources / target.name, as_version=4).cells[0].source.splitlines()[0]
            cells.append(new_markdown_cell(f"{title}\n\nThis section waits for its runs: {left_out[name]} are finished."))
            continue
        if not target.is_file():
            cells.append(new_markdown_cell(f"# {name}\n\n**This notebook was not executed.**"))
            continue
        notebook = nbformat.read(target, as_version=4)
        shown = [cell for cell in notebook.cells if not generated_by_papermill(cell)]
        for cell in shown:
            say_once(cell, said)
        cells += without_empty_sections(shown)
        found = [
            o.metadata["headline"] for c in notebook.cells for o in c.get("outputs", []) if "headline" in o.get("metadata", {})
        ]
        headlines += [(name, headline) for headline in found]
    cells += [*appendix(used), new_markdown_cell((HERE / "references.md").read_text())]
    report = {
        "title": TITLE,
        "subtitle": f"What the normalization layer does to a ResNet: {study.dataset_title()}"
        + ", interim report" * bool(left_out),
        "date": datetime.date.today().isoformat(),
        "abstract": abstract(study, headlines, len(left_out)),
        "numbersections": True,
    }
    return new_notebook(cells=cells), report


def generated_by_papermill(cell) -> bool:
    return "papermill-error-cell-tag" in cell.metadata.get("tags", [])


def say_once(cell, said: set[str]) -> None:
    """Take the setting, and outputs with "once" in their metadata, out of a cell where an earlier section has shown them, word
    for word: every notebook has them, for those who read it alone."""

    def words(outputs):
        return "".join(output.get("data", {}).get("text/markdown", "") for output in outputs)

    parts = [cell.outputs] if "setting" in cell.metadata.get("tags", []) else []
    parts += [[output] for output in cell.get("outputs", []) if output.get("metadata", {}).get("once")]
    for part in parts:
        if words(part) in said:
            cell.outputs = [output for output in cell.outputs if output not in part]
        said.add(words(part))


def without_empty_sections(cells: list) -> list:
    """Without headings of the second level under which nothing is left to read before the next heading."""
    kept = []
    for i, cell in enumerate(cells):
        following = next((c for c in cells[i + 1 :] if c.cell_type == "markdown" or c.get("outputs")), None)
        alone = cell.cell_type == "markdown" and cell.source.startswith("## ") and "\n" not in cell.source.strip()
        if not (alone and following is not None and following.cell_type == "markdown" and following.source.startswith("#")):
            kept.append(cell)
    return kept


def abstract(study: Study, headlines: list[tuple[str, str]], left_out: int) -> str:
    """The setting, what part I found, and what part II asks; how many sections are `left_out`, and how many failed."""
    start = (
        "A small residual network is trained with batch (BN), instance (IN), batch-instance (BIN), layer (LN) and group "
        f"normalization (GN), each written from scratch, and with none (NN). Setting: {study.describe()}."
    )
    end = (
        "Part II asks what the training recipe does beside the norm, where the networks look, what the same choices do to a "
        f"plain CNN, and what the features are worth for another task. {tables.intervals(study)}"
    )
    missing = len(NOTEBOOKS) - len(headlines) - left_out
    if left_out:
        end += f" {left_out} of {len(NOTEBOOKS)} sections wait for runs that are not finished."
    if missing:
        end += f" {missing} of {len(NOTEBOOKS)} sections have no result, because their notebook failed."
    findings = "\n".join(f"- {headline}" for name, headline in headlines if not PART_TWO <= name < AFTER_PART_TWO)
    return "\n\n".join([start, findings, end]) + "\n"  # pandoc reads blocks only where a line ends


def reported(study: Study) -> dict[str, list[runs.Result]]:
    """Group of the appendix -> its finished runs. A run of several groups is in the first of them."""
    found, listed = {}, set()
    probes = study.probes() if (study.profile, study.dataset) == ("paper", "cifar10") else {}
    variants = study.plan(EVERYTHING)  # with further seeds
    groups = {name: variants.get(name, []) if name in LABELS else study.runs_of([name]) for name in EVERYTHING}
    tried = {run.id: run for planned in probes.values() for run in planned}  # a run may be a recipe's and a border's
    groups["what was tried for the recipe"] = list(tried.values())
    if probes:
        precisions = replace(study, seeds=PRECISION_SEEDS).precisions()
        groups["precision"] = [run for planned in precisions.values() for run in planned]
    for name, planned in groups.items():
        own = [run for run in planned if run.id not in listed and runs.Folder(run, study.outputs).sound]
        listed |= {run.id for run in own}
        found[name] = [runs.Result(run, study.outputs) for run in own]
    return found


def of_precision(tried: list[runs.Result]) -> str:
    """What the runs in both precisions say of bf16; "" where not all of them are finished or one diverged."""
    found = {kind: [result for result in tried if result.run.precision == kind] for kind in ("bf16", "float32")}
    if len(tried) < 2 * len(PRECISION_SEEDS) or any(result.diverged for result in tried):
        return ""
    epochs, said = tried[0].run.epochs, tables.precision_sentence(found)
    return f" bf16 is a choice of speed: of test accuracies of our BN after {epochs} epochs, {said}."


def appendix(found: dict[str, list[runs.Result]]) -> list:
    """How the results were made: every run of `reported`, its cost and where it ran."""
    rows, environments = [], []
    for name, results in found.items():
        environments += [result.env for result in results]
        # A variant has a row for each run; a group of many runs one for all of them.
        for part in [[result] for result in results] if name in LABELS else [results] if results else []:
            title = LABELS.get(name, GROUPS.get(name, name)) + " (diverged)" * all(result.diverged for result in part)
            epochs = sorted({result.metrics["epochs_run"] for result in part})
            rows.append(
                {
                    "variant": title,
                    "run": part[0].run.id if name in LABELS else f"{len(part)} run{'s' * (len(part) > 1)}",
                    "epochs": " to ".join(str(n) for n in dict.fromkeys((epochs[0], epochs[-1]))),
                    "minutes": sum(result.metrics["train_seconds"] for result in part) / 60,
                    "runs": len(part),
                }
            )
    text = "# Appendix: how the results were made {.unnumbered}\n\n"
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
    ) + of_precision(found.get("precision", []))
    data = {"text/html": table_html(pd.DataFrame(rows), digits=1)}
    caption = {"text/markdown": "*The runs of this report.*"}
    shown = [
        new_output("display_data", data=data),
        new_output("display_data", data=caption, metadata={"caption": "table"}),
    ]
    return [new_markdown_cell(text), new_code_cell("", outputs=shown)]


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
    left_out = waiting(study) if finished else {}
    shown = [name for name in NOTEBOOKS if name not in left_out]
    if not shown:
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
    with workers(jobs) as pool:
        futures = {name: pool.submit(execute, sources / f"{name}.ipynb", study, parameters, folder) for name in shown}
        for name, future in futures.items():
            try:
                said = future.result()
            except Exception as error:  # its process was killed
                said = show_failure(folder / f"{name}.ipynb", error)
            print(f"{name}: {'unchanged' if said == 'kept' else said or 'executed'}", flush=True)
            if said not in ("", "kept"):
                failures[name] = said
    for name, count in left_out.items():
        print(f"{name}: waits for its runs, {count} are finished", flush=True)
    found = reported(study)
    table = runs.results([result for results in found.values() for result in results])
    write(folder / "results.csv", table.to_csv(index=False))
    notebook, report = combine(folder, study, left_out, sources, found)
    for exporter, name in ((ReportHTMLExporter(), "report.html"), (TypstPDFExporter(), "report.pdf")):
        content, _ = exporter.from_notebook_node(notebook, {"report": report})
        write(target / name, content)
        print(f"{target / name}: {len(content) / 2**20:.1f} MiB", flush=True)
    return failures


def main(argv=None) -> int:
    parser = Parser(prog="python -m report.build", description=__doc__.split("\n")[0])
    for name, default in (
        ("profile", "quick"),
        ("dataset", "digits"),
        ("data-dir", "data"),
        ("seeds", "0"),
        ("outputs", "outputs"),
    ):
        parser.add_argument(f"--{name}", default=default, help=f"as of lib.study (default: {default})")
    parser.add_argument("--report", type=Path, help="folder of report.html and report.pdf (default: by the setting, see above)")
    parser.add_argument("--finished", action="store_true", help="train nothing: leave out the sections that wait for a run")
    parser.add_argument("--jobs", default=2, type=int, help="notebooks at a time (default: 2)")
    args = parser.parse_args(argv)

    def work() -> int:
        if args.jobs < 1:
            raise ValueError(f"jobs is {args.jobs}; it must be an integer of at least 1")
        if args.report and args.report.exists() and not args.report.is_dir():
            raise ValueError(f"report is {args.report}, which is a file; it must be the path of a folder")
        study = Study(args.profile, args.dataset, args.data_dir, args.seeds, args.outputs)
        failures = build(study, args.report or report_folder(study), args.jobs, finished=args.finished)
        for name, error in failures.items():
            print(f"{name} failed: {error}", file=sys.stderr)
        return 1 if failures else 0

    return command(work)


if __name__ == "__main__":
    sys.exit(main())
