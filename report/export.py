"""nbconvert exporters that need neither LaTeX nor a browser: notebook → Markdown → pandoc → HTML, or Typst → PDF.

    jupyter nbconvert --to typst_pdf any.ipynb
    jupyter nbconvert --to report_html any.ipynb

They are registered under nbconvert's entry point by this project's pyproject.toml. Code is hidden in the PDF and folded in the
HTML, but for cells whose code JupyterLab hides, which stay without. A Markdown output with metadata {"caption": "figure"} or
{"caption": "table"} is the caption of the output before it and gets the next number, by which prose that says "figure above" or
"the table below" then names it. Below a heading "# Appendix" the numbers are A1, A2, …
"""

import base64
import copy
import json
import os
import re
import tempfile
from pathlib import Path

import pypandoc
import typst
from nbconvert.exporters import Exporter
from nbconvert.filters import strip_ansi
from nbformat import NotebookNode
from traitlets import Bool, Unicode

HERE = Path(__file__).resolve().parent
IMAGES = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}
WIDGET = "application/vnd.jupyter.widget-view+json"  # a progress bar: nothing to read on paper
# What Jupyter renders: CommonMark with $math$.
READER = "commonmark_x+raw_html+raw_attribute-smart-implicit_figures-yaml_metadata_block"


class PandocExporter(Exporter):
    """What the two share: the notebook as pandoc's Markdown, its images as files in a folder.

    `resources["report"]`, a dict of pandoc metadata (title, subtitle, abstract, date, numbersections), makes it a report
    with a title page; without it there is no title page, only the notebook.
    """

    exclude_input = Bool(True, help="Leave the code out.").tag(config=True)
    export_from_notebook = None
    to = Unicode()

    def from_notebook_node(self, nb, resources=None, **kwargs):
        nb, resources = super().from_notebook_node(nb, resources, **kwargs)
        with tempfile.TemporaryDirectory() as folder:
            text = to_markdown(nb, Path(folder), code=not self.exclude_input)
            self.source = Path(resources.get("metadata", {}).get("path") or ".").resolve()
            metadata = {"pagetitle": first_heading(nb) or resources.get("metadata", {}).get("name", "Notebook")}
            metadata |= {"lang": "en"} | resources.get("report", {})
            result = self.convert(text, Path(folder), metadata)
        resources["output_extension"] = self.file_extension
        return result, resources

    def pandoc(self, text: str, folder: Path, metadata: dict, to: str, *args: str) -> str:
        file = folder / "metadata.json"
        file.write_text(json.dumps(metadata))
        paths = os.pathsep.join(map(str, (folder, self.source)))
        shared = [f"--metadata-file={file}", f"--resource-path={paths}", f"--lua-filter={HERE / 'filter.lua'}", "--standalone"]
        return pypandoc.convert_text(text, to, READER, [*shared, *args], sandbox=False, cworkdir=str(folder))


class ReportHTMLExporter(PandocExporter):
    """One HTML file that needs no network: images and styles inside, math as MathML, code in folds."""

    exclude_input = Bool(False, help="Leave the code out.").tag(config=True)
    export_from_notebook = "Report (one HTML file)"
    output_mimetype = "text/html"

    def _file_extension_default(self):
        return ".html"

    def convert(self, text, folder, metadata):
        args = [f"--template={HERE / 'template.html'}", "--embed-resources", "--mathml", "--toc", "--toc-depth=2"]
        args.append(f"--variable=styles={(HERE / 'template.css').read_text()}")
        return self.pandoc(text, folder, metadata, "html5", *args, *numbered(metadata))


class TypstPDFExporter(PandocExporter):
    """PDF by Typst, which comes as a wheel with its fonts. RuntimeError with Typst's message if it cannot be set."""

    export_from_notebook = "PDF via Typst"
    output_mimetype = "application/pdf"

    def _file_extension_default(self):
        return ".pdf"

    def convert(self, text, folder, metadata):
        source = folder / "notebook.typ"
        args = [f"--template={HERE / 'template.typ'}", "--extract-media=.", *numbered(metadata)]
        source.write_text(self.pandoc(text, folder, metadata, "typst", *args), encoding="utf-8")
        if kept := os.environ.get("REPORT_KEEP_TYPST"):  # to look at what Typst was given
            Path(kept).write_text(source.read_text())
        return typst.compile(str(source), root=str(folder))


def numbered(metadata: dict) -> list[str]:
    return ["--number-sections"] if metadata.get("numbersections") else []


def first_heading(nb: NotebookNode) -> str | None:
    for cell in nb.cells:
        match = re.search(r"^#\s+(.+)$", cell.source, re.M) if cell.cell_type == "markdown" else None
        if match:
            return match[1].strip()
    return None


def to_markdown(nb: NotebookNode, folder: Path, code: bool) -> str:
    """The notebook as pandoc's Markdown. Images are written into `folder`."""
    cells = hoisted(nb.cells)
    captions = Captions(cells)
    parts = []
    for number, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            if cell.source.startswith("# "):
                captions.begin_section()
            parts.append(captions.named(latex_environments(with_attachments(cell, folder, number))))
        elif cell.cell_type == "raw":
            continue
        else:
            if code and cell.source.strip() and not cell.metadata.get("jupyter", {}).get("source_hidden"):
                parts.append(f"```{{=html}}\n<details class='code'><summary>code</summary>\n```\n{fence(cell.source, 'python')}"
                             "\n```{=html}\n</details>\n```")  # fmt: skip
            parts += outputs(cell.outputs, folder, f"{number:03d}", captions)
    return "\n\n".join(parts) + "\n"


class Captions:
    """The numbers of a notebook's figures and tables: 1, 2, … and, below a heading "# Appendix", A1, A2, …"""

    def __init__(self, cells: list[NotebookNode]):
        self.labels = {"figure": [], "table": []}
        self.shown, self.top = {"figure": 0, "table": 0}, 0  # captions so far, and figures before this section
        prefix, first = "", {"figure": 0, "table": 0}
        for cell in cells:
            if cell.cell_type == "markdown" and cell.source.startswith("# Appendix"):
                prefix, first = "A", {kind: len(found) for kind, found in self.labels.items()}
            for output in cell.get("outputs", []):
                kind = output.get("metadata", {}).get("caption")
                if kind in self.labels:
                    label = f"{kind.capitalize()} {prefix}{len(self.labels[kind]) - first[kind] + 1}"
                    self.labels[kind].append(label)

    def begin_section(self) -> None:
        self.top = self.shown["figure"]

    def next(self, kind: str) -> str:
        self.shown[kind] += 1
        return self.labels[kind][self.shown[kind] - 1]

    def named(self, text: str) -> str:
        """With "(the) figure above", "table below", "figure at the top of this section" by their numbers."""

        def number(match):
            kind, where = match[1].lower(), match[2]
            index = self.top if where.startswith("at") else self.shown[kind] - (where == "above")
            known = 0 <= index < len(self.labels[kind]) and not (kind == "table" and where.startswith("at"))
            return self.labels[kind][index] if known else match[0]

        return re.sub(r"\b(?:[Tt]he )?([Ff]igure|[Tt]able) (above|below|at the top of this section)\b", number, text)


def hoisted(cells: list[NotebookNode]) -> list[NotebookNode]:
    """Each section's cells, its code tagged `answer` right below its question; what heads it in a notebook is left out."""
    ordered, top = [], 0
    for cell in cells:
        if "answer" in cell.metadata.get("tags", []):
            if cell.cell_type == "code":
                ordered.insert(top, cell)
                top += 1
            continue
        ordered.append(cell)
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            top = len(ordered)
    return ordered


def with_attachments(cell: NotebookNode, folder: Path, number: int) -> str:
    text = cell.source
    for name, bundle in cell.get("attachments", {}).items():
        mime, content = next(iter(bundle.items()))
        file = folder / f"attachment{number:03d}-{re.sub('[^A-Za-z0-9.]', '_', name)}"
        file.write_bytes(image_bytes(mime, content))
        text = text.replace(f"attachment:{name}", file.name)
    return text


def latex_environments(text: str) -> str:
    """A LaTeX environment on its own, which Jupyter sets as mathematics, as $$mathematics$$."""
    inner = {"align": "aligned", "equation": "", "gather": "gathered", "multline": "gathered", "eqnarray": "aligned"}

    def replaced(match):
        name = inner[match[1]]
        body = f"\\begin{{{name}}}{match[2]}\\end{{{name}}}" if name else match[2].strip()
        return f"$$ {body} $$"

    return re.sub(rf"^\\begin\{{({'|'.join(inner)})\*?\}}(.*?)\\end\{{\1\*?\}}", replaced, text, flags=re.M | re.S)


def outputs(found: list[NotebookNode], folder: Path, name: str, captions: Captions) -> list[str]:
    parts, previous = [], None
    for index, output in enumerate(in_paragraphs(found)):
        kind = output.get("metadata", {}).get("caption")
        if kind in captions.shown and previous is not None:
            label = captions.next(kind)
            caption = captions.named(emphasized(output.data["text/markdown"]))
            parts[-1] = f"::::: {{.captioned .{kind}}}\n{parts[-1]}\n\n:::: caption\n**{label}.** {caption}\n::::\n:::::"
            previous = None
            continue
        text = render(output, folder, f"{name}-{index:02d}")
        if text and "text/markdown" in output.get("data", {}):
            text = captions.named(text)
        if output.get("metadata", {}).get("ok") is False:
            text = f"::: absent\n{text}\n:::"
        previous = text
        if text:
            parts.append(text)
    return parts


def in_paragraphs(found: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs of a cell, with what it says in a row as one: its sentences, or the claims that do not hold."""
    joined = []
    for output in found:
        ok = output.get("metadata", {}).get("ok")
        if ok is not None and joined and joined[-1].get("metadata", {}).get("ok") is ok:
            joined[-1].data["text/markdown"] += (" " if ok else "; ") + output.data["text/markdown"]
        else:
            joined.append(copy.deepcopy(output))
    return joined


def emphasized(caption: str) -> str:
    """The words of a caption that a notebook shows in italics."""
    text = caption.strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] and text[0] in "*_" else text


def render(output: NotebookNode, folder: Path, name: str) -> str | None:
    """One output as Markdown; None for what does not belong on paper (progress bars, messages on stderr)."""
    if output.output_type == "stream":
        return fence(strip_ansi(output.text)) if output.name == "stdout" and output.text.strip() else None
    if output.output_type == "error":
        trace = strip_ansi("\n".join(output.traceback)) or f"{output.ename}: {output.evalue}"
        return f"::: failed\n**This cell failed: {escape(output.ename)}**\n\n{fence(trace)}\n:::"
    data = output.data
    if WIDGET in data:
        return None
    for mime, suffix in IMAGES.items():
        if mime in data:
            file = folder / f"output{name}.{suffix}"
            file.write_bytes(image_bytes(mime, data[mime]))
            width = output.get("metadata", {}).get(mime, {}).get("width") if isinstance(output.get("metadata"), dict) else None
            alt = escape(" ".join(output.get("metadata", {}).get("alt", "").split()))
            return f"![{alt}]({file.name})" + (f"{{width={width}px}}" if width else "")
    if "text/markdown" in data:
        return data["text/markdown"] or None
    if "text/latex" in data:
        return data["text/latex"]
    if "text/html" in data:
        html = re.sub(r"<(style|script)\b.*?</\1>", "", data["text/html"], flags=re.S)
        return fence(html, "{=html}")
    text = data.get("text/plain", "")
    return fence(text) if text and not re.fullmatch(r"<.* at 0x[0-9a-f]+>|<Figure size .*>", text) else None


def image_bytes(mime: str, content) -> bytes:
    content = content if isinstance(content, str) else "".join(content)
    return content.encode() if mime == "image/svg+xml" else base64.b64decode(content)


def fence(text: str, kind: str = "") -> str:
    """A fenced block whose fence is longer than any inside."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{ticks}{kind}\n{text.rstrip()}\n{ticks}"


def escape(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#$])", r"\\\1", text)
