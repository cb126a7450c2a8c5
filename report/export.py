"""nbconvert exporters that need neither LaTeX nor a browser: notebook → Markdown → pandoc → HTML, or Typst → PDF.

    jupyter nbconvert --to typst_pdf any.ipynb
    jupyter nbconvert --to report_html any.ipynb

They are registered under nbconvert's entry point by this project's pyproject.toml and take the options of nbconvert's own
exporters (`--no-input`, `--no-prompt`, `TagRemovePreprocessor`). Code is folded in the HTML; where JupyterLab hides it there is
none. What cannot be printed leaves a note that says so. A Markdown output with metadata {"caption": "figure"} or
{"caption": "table"} is the caption of the output before it and gets the next number, by which prose that says "figure above" or
"the table below" then names it. Below a heading "# Appendix" the numbers are A1, A2, …
"""

import base64
import copy
import functools
import io
import json
import os
import re
import tempfile
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import pypandoc
import tinycss2.color4
import typst
from nbconvert.exporters import Exporter, TemplateExporter
from nbconvert.filters import strip_ansi
from nbformat import NotebookNode
from PIL import Image

HERE = Path(__file__).resolve().parent
#: MIME types of images, the first that an output has is shown.
IMAGES = ("image/svg+xml", "image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf")
SUFFIXES = {"PNG": "png", "JPEG": "jpg", "GIF": "gif", "WEBP": "webp"}  # by PIL's name of the format that it finds
LINES = 200  # that paper shows of what a cell prints
WIDGET = "application/vnd.jupyter.widget-view+json"  # a progress bar: nothing to read on paper
# What Jupyter renders: CommonMark with $math$.
READER = "commonmark_x+raw_html+raw_attribute-smart-implicit_figures-yaml_metadata_block-emoji"
#: What a browser does not show, or shows as controls of scripts.
HIDDEN = re.compile(r"<(style|script|form|button|select)\b.*?</\1>|<input\b[^>]*>|<!--.*?-->", re.S)
#: Mathematics as Jupyter finds it, after the code and the escaped signs that hold none. Of "$5 and $6" none is meant. And
#: line breaks that begin a line, for pandoc the beginning of a block of HTML.
MATHEMATICS = re.compile(
    r"(?:^ {0,3}(?P<fence>```+|~~~+).*?(?:^ {0,3}(?P=fence)|\Z))|(?<!`)(?P<code>`+)(?!`).*?(?<!`)(?P=code)(?!`)|\\\$"
    r"|(?P<before>\S)[ \t]*\n[ \t]*(?=<br\s*/?>)"
    r"|\$\$(?P<display>(?:[^$\\]|\\.|\$(?!\$))+?)\$\$"
    r"|\$(?!\d[^$\\^_=]*\s\$)(?P<inline>(?:[^$\\`\n]|\\.|\n(?!\s*\n))+?)\$"
    r"|(?P<environment>\\begin\{(?P<name>(?:align|equation|gather|multline|eqnarray|alignat|flalign|displaymath|math|split|array"
    r"|cases|[bBpvV]?matrix|aligned|gathered)\*?)\}.*?\\end\{(?P=name)\})",
    re.M | re.S,
)
#: The repr of an object that says nothing to a reader.
REPR = r"<.* at 0x[0-9a-f]+>|<Figure size .*>|<IPython\.\S+ object>"


class PandocExporter(TemplateExporter):
    """What the two share: the notebook as pandoc's Markdown, its images as files in a folder.

    `resources["report"]`, a dict of pandoc metadata (title, subtitle, abstract, date, numbersections), makes it a report
    with a title page; without it there is no title page, only the notebook.
    """

    export_from_notebook = None
    paper = False  # which nothing unfolds on

    def from_notebook_node(self, nb, resources=None, **kwargs):
        nb, resources = Exporter.from_notebook_node(self, nb, resources, **kwargs)  # no template of nbconvert's
        with tempfile.TemporaryDirectory() as folder:
            text = Writer(self, nb, Path(folder), resources.get("report", {}).get("notebooks", "")).text()
            self.source = Path(resources.get("metadata", {}).get("path") or ".").resolve()
            metadata = {"pagetitle": first_heading(nb) or resources.get("metadata", {}).get("name", "Notebook")}
            metadata |= {"lang": "en"} | resources.get("report", {})
            result = self.convert(text, Path(folder), metadata)
        resources["output_extension"] = self.file_extension
        return result, resources

    def pandoc(self, text: str, folder: Path, metadata: dict, to: str, *args: str) -> str:
        file = folder / "metadata.json"
        file.write_text(json.dumps(metadata, ensure_ascii=False), encoding="utf-8")
        paths = os.pathsep.join(map(str, (folder, self.source)))
        shared = [f"--metadata-file={file}", f"--resource-path={paths}", f"--lua-filter={HERE / 'filter.lua'}", "--standalone"]
        return pypandoc.convert_text(text, to, READER, [*shared, *args], sandbox=False, cworkdir=str(folder))


class ReportHTMLExporter(PandocExporter):
    """One HTML file that needs no network: images and styles inside, math as MathML, code in folds."""

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
    paper = True

    def _file_extension_default(self):
        return ".pdf"

    def convert(self, text, folder, metadata):
        source = folder / "notebook.typ"
        args = [f"--template={HERE / 'template.typ'}", "--extract-media=.", *numbered(metadata)]
        text = self.pandoc(with_signs(text), folder, metadata, "typst", *args)
        # Columns whose width pandoc gives as shares of the text's share what the others leave.
        text = re.sub(r"#table\(\s*columns: \([^)]*%[^)]*\)", lambda found: found[0].replace("%", "fr"), text)
        source.write_text(text, encoding="utf-8")
        if kept := os.environ.get("REPORT_KEEP_TYPST"):  # to look at what Typst was given
            Path(kept).write_text(text)
        try:
            return typst.compile(str(source), root=str(folder), pdf_standards=["ua-1"])
        except typst.TypstError as error:
            source.write_text(without_broken_images(text, folder), encoding="utf-8")
            made = typst.compile(str(source), root=str(folder))
            self.log.warning("the PDF is not accessible as PDF/UA-1 asks: %s", error)
            return made


def numbered(metadata: dict) -> list[str]:
    return ["--number-sections"] if metadata.get("numbersections") else []


def without_broken_images(text: str, folder: Path) -> str:
    """The Typst source with a note for each image, as people's HTML and Markdown hold them, that Typst cannot read."""

    def kept_or_said(match):
        try:
            typst.compile(f'#image("{match[1]}")'.encode(), root=str(folder))
        except typst.TypstError:
            return f'#text(fill: rgb("#767676"), size: 9pt)[\\[#"{match[2]}", which cannot be read as an image\\]]'
        return match[0]

    return re.sub(r'#box\(image\("([^"]+)"[^"]*, alt: "((?:[^"\\]|\\.)*)"\)\)', kept_or_said, text)


def with_signs(text: str) -> str:
    """The text with the names of signs, as in [fire], for those that no font here has: Typst would leave them blank."""
    odd = sorted({sign for sign in text if ord(sign) > 0x2BF and re.match("So|Lo|Lm|Co|P|N", unicodedata.category(sign))})
    missing = [sign for sign in odd if blank(sign)]
    for sign in missing:
        text = text.replace(sign, f"[{unicodedata.name(sign, f'U+{ord(sign):04X}').lower()}]")
    return text.translate(dict.fromkeys((0xFE0E, 0xFE0F, 0x200D))) if missing else text  # which join and vary such signs


@functools.cache
def blank(sign: str) -> bool:
    """Whether no font that Typst finds has a sign: it is set as U+FFFF is, which is none."""
    return drawn(sign) == drawn("\uffff")


def drawn(sign: str) -> str:
    text = f'#set page(width: 1cm, height: 1cm)\n#"\\u{{{ord(sign):x}}}"'
    return typst.compile(text.encode(), format="svg").decode()


def first_heading(nb: NotebookNode) -> str | None:
    for cell in nb.cells:
        match = re.search(r"^#\s+(.+)$", cell.source, re.M) if cell.cell_type == "markdown" else None
        if match:
            return match[1].strip()
    return None


class Writer:
    """Writes a notebook as pandoc's Markdown, with what its exporter leaves in, and its images into a folder."""

    def __init__(self, exporter: PandocExporter, nb: NotebookNode, folder: Path, notebooks: str = ""):
        self.exporter, self.paper, self.folder, self.notebooks = exporter, exporter.paper, folder, notebooks
        self.cells = hoisted(nb.cells)
        self.captions = Captions(self.cells)

    def text(self) -> str:
        parts = []
        for number, cell in enumerate(self.cells):
            if cell.cell_type == "markdown" and not self.exporter.exclude_markdown:
                if cell.source.startswith("# "):
                    self.captions.begin_section()
                text = with_attachments(cell, self.folder, number)
                parts.append(self.captions.named(with_mathematics(text)))
            elif cell.cell_type == "code" and not self.exporter.exclude_code_cell:
                parts += [*self.code(cell), *([] if self.exporter.exclude_output else self.outputs(cell, number))]
        return "\n\n".join(parts) + "\n"

    def code(self, cell: NotebookNode) -> list[str]:
        hidden = cell.metadata.get("jupyter", {}).get("source_hidden") or cell.metadata.get("transient", {}).get(
            "remove_source"
        )
        if self.exporter.exclude_input or hidden or not cell.source.strip():
            return []
        fenced = fence(cell.source, "python")
        if self.paper:
            number = cell.execution_count
            prompt = not self.exporter.exclude_input_prompt and number is not None
            return [*([f"::: prompt\nIn [{number}]:\n:::"] if prompt else []), fenced]
        return [f"```{{=html}}\n<details class='code'><summary>code</summary>\n```\n{fenced}\n```{{=html}}\n</details>\n```"]

    def outputs(self, cell: NotebookNode, number: int) -> list[str]:
        parts, previous, captions = [], None, self.captions
        for index, output in enumerate(in_paragraphs(cell.outputs)):
            kind = output.get("metadata", {}).get("caption")
            if kind in captions.shown and previous is not None:
                label = captions.next(kind)
                caption = captions.named(emphasized(output.data["text/markdown"]))
                name = label.lower().replace(" ", "-")
                whole = f"**{label}.** {caption}"
                if not self.paper:
                    whole += "".join(f" `{link}`{{=html}}" for link in self.sources(output, cell, name))
                parts[-1] = f"::::: {{#{name} .captioned .{kind}}}\n{parts[-1]}\n\n:::: caption\n{whole}\n::::\n:::::"
                previous = None
                continue
            text = self.output(output, f"{number:03d}-{index:02d}", f"output {index + 1} of cell {number + 1}")
            if text and "text/markdown" in output.get("data", {}):
                text = captions.named(text)
            if output.get("metadata", {}).get("ok") is False:
                text = f"::: absent\n{text}\n:::"
            previous = text
            if text and self.paper and output.get("execution_count") and not self.exporter.exclude_output_prompt:
                text = f"::: prompt\nOut[{output.execution_count}]:\n:::\n\n{text}"
            if text:
                parts.append(text)
        return parts

    def sources(self, caption: NotebookNode, cell: NotebookNode, name: str) -> list[str]:
        """Links below a figure or a table: its data, and the cell that makes it, in the folder `notebooks` from the page."""
        links = []
        if data := caption.metadata.get("data"):
            content = base64.b64encode(data.encode()).decode()
            links.append(f'<a class="data" download="{name}.csv" href="data:text/csv;base64,{content}">data as CSV</a>')
        if self.notebooks and (made_in := cell.metadata.get("made_in")):
            links.append(f'<a class="data" href="{self.notebooks}/{made_in}">the cell that makes it</a>')
        return links

    def output(self, output: NotebookNode, name: str, place: str) -> str | None:
        """One output as Markdown; None for what does not belong on paper (progress bars, messages on stderr)."""
        if output.output_type == "stream":
            text = overwritten(strip_ansi(output.text)) if output.name == "stdout" else ""
            return self.printed(text) if text.strip() else None
        if output.output_type == "error":
            trace = strip_ansi("\n".join(output.traceback)) or f"{output.ename}: {output.evalue}"
            return f"::: failed\n**This cell failed: {escape(output.ename)}**\n\n{fence(trace)}\n:::"
        data = output.data
        if WIDGET in data or (self.paper and output.get("metadata", {}).get("screen")):
            return None
        if "text/latex" in data and (formula := mathematics(data["text/latex"])):
            return formula
        if mime := next((mime for mime in IMAGES if mime in data), None):
            return self.image(mime, data[mime], output.get("metadata", {}), name, place)
        if "text/markdown" in data:
            return with_mathematics(data["text/markdown"]) or None
        html, text = data.get("text/html", ""), data.get("text/plain", "")
        telling = text.strip() and not re.fullmatch(REPR, text.strip())
        bare = HIDDEN.sub("", html)
        if re.search(r"<(svg|video|audio|iframe|hr)\b|<img\b[^>]*\bsrc\s*=", bare) or re.sub(r"<[^>]*>|&nbsp;|\s", "", bare):
            unfolds = re.search(r"<[^>]*(\shidden\b|display:\s*none)[^>]*>", bare)  # what only a browser can
            return self.printed(text) if self.paper and unfolds and telling else fence(self.html(html), "{=html}")
        if frame := re.search(r"data:(image/\w+);base64,([\w+/=\\\s]+)", html):
            first = self.image(frame[1], frame[2].replace("\\", ""), output.get("metadata", {}), name, place)
            return f"{first}\n\n{note(f'{place} moves: its first picture')}"
        if "text/latex" in data:
            said = note(f"{place} is LaTeX beyond mathematics, shown as its source")
            return f"{fence(data['text/latex'], 'latex')}\n\n{said}"
        if telling and not bare.strip():
            return self.printed(text)
        script = data.get("application/javascript", "")  # which shows something only in Jupyter's `element`
        said = {"text/html": "<script" in html, "application/javascript": re.search(r"\belement\b", script)}
        others = [mime for mime in data if mime != "text/plain" and said.get(mime, True)]
        return note(f"{place} is {others[0]}, which cannot be printed") if others else None

    def html(self, html: str) -> str:
        """HTML without its scripts: for a browser with its styles, which reach no further; on paper with its cells' colours."""
        if self.paper:
            return without_nested_drawings(HIDDEN.sub("", with_colours(html)))
        text = re.sub(r"<script\b.*?</script>", "", html, flags=re.S)
        scoped = re.sub(r"(<style\b[^>]*>)(.*?)(</style>)", r"\1@scope {\2}\3", text, flags=re.S).replace(":root", ":scope")
        return f"<div>\n{scoped}\n</div>" if scoped != text else text

    def printed(self, text: str) -> str:
        """What a cell prints; of very much the first and last lines, and all of it in a fold where one can be opened."""
        lines = text.rstrip().split("\n")
        if len(lines) <= LINES:
            return fence(text)
        half = LINES // 2
        left_out = f"… {len(lines) - LINES:,} of {len(lines):,} lines are left out …"
        short = fence("\n".join([*lines[:half], left_out, *lines[-half:]]))
        if self.paper:
            return short
        opened = f"```{{=html}}\n<details class='code'><summary>all {len(lines):,} lines</summary>\n```\n"
        return f"{short}\n\n{opened}{fence(text)}\n```{{=html}}\n</details>\n```"

    def image(self, mime: str, content, metadata: NotebookNode, name: str, place: str) -> str:
        """An image by the format that its bytes have, at its natural size: 96 pixels an inch, as a browser shows it."""
        try:
            suffix, written, width = readable(mime, image_bytes(mime, content), self.paper)
        except Exception as error:  # PIL and the XML parser raise many kinds
            return note(f"{place}, {mime}, cannot be read as an image ({str(error).strip() or type(error).__name__})")
        file = self.folder / f"output{name}.{suffix}"
        file.write_bytes(written)
        if suffix == "pdf" and not self.paper:
            link = f"data:{mime};base64,{base64.b64encode(written).decode()}"
            return fence(f'<p class="note"><a download="{file.name}" href="{link}">{place}: a PDF figure</a></p>', "{=html}")
        width = (metadata.get(mime) or {}).get("width") or width
        alt = escape(" ".join(metadata.get("alt", "").split()) or f"picture: {place}")
        return f"![{alt}]({file.name})" + (f"{{width={width}px}}" if width else "")


def note(text: str) -> str:
    return f"::: absent\n{escape(f'[{text}]')}\n:::"


def readable(mime: str, content: bytes, paper: bool) -> tuple[str, bytes, int | None]:
    """Suffix, bytes and width in pixels of an image as the formats that a browser or Typst knows. What is no image raises."""
    if mime == "application/pdf":
        if not content.startswith(b"%PDF-"):
            raise ValueError("no PDF")
        return "pdf", content, None
    if mime == "image/svg+xml":
        root = ElementTree.fromstring(content)
        length = re.fullmatch(r"([\d.]+)(pt|px|in|cm|mm)?", root.get("width", ""))
        per_inch = {"pt": 72, "in": 1, "cm": 2.54, "mm": 25.4}
        return "svg", content, round(96 * float(length[1]) / per_inch.get(length[2], 96)) if length else None
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        suffix = SUFFIXES.get(image.format)
        if suffix in (None, *(("gif", "webp") if paper else ())):  # of a moving picture its first frame
            image.convert("RGBA").save(buffer := io.BytesIO(), "png")
            suffix, content = "png", buffer.getvalue()
        return suffix, content, image.width


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


def with_mathematics(text: str) -> str:
    """Markdown with its mathematics as pandoc knows it: Jupyter's may begin with a blank, take lines and be an environment."""

    def replaced(match):
        if match["before"]:
            return match["before"]
        formula = match["display"] or match["environment"] or match["inline"]
        if not formula or re.search(r"^\s*>", formula, re.M):
            return match[0]
        line = " ".join(environments(formula).split())
        return f"${line}$" if match["inline"] and not line.startswith(r"\begin") else f"$$ {line} $$"

    return MATHEMATICS.sub(replaced, text)


def mathematics(latex: str) -> str | None:
    """A LaTeX output as Markdown's mathematics, None where it holds none."""
    text = with_mathematics(latex.strip())
    if text.startswith("$") or re.search(r"\\[(\[]", text):
        inline = re.sub(r"\\\((.*?)\\\)", lambda found: f"${found[1].strip()}$", text, flags=re.S)
        return re.sub(r"\\[\[\]]", "$$", inline)
    return None


def environments(text: str) -> str:
    """A formula with the LaTeX environments that stand on their own as those within mathematics, and without comments."""
    text = re.sub(r"(?<!\\)%.*", "", text)
    for name, inner in {"align": "aligned", "gather": "gathered", "multline": "gathered", "eqnarray": "aligned"}.items():
        text = re.sub(rf"\\(begin|end)\{{{name}\*?\}}", rf"\\\1{{{inner}}}", text)
    return re.sub(r"\\(begin|end)\{(equation|displaymath|math)\*?\}", "", text)


def without_nested_drawings(html: str) -> str:
    """HTML with a note for its drawings where some are made of others, which only a browser puts together."""
    innermost = re.compile(r"<svg\b(?:(?!</?svg\b).)*</svg>", re.S)
    if "<svg" not in innermost.sub("", html):
        return html
    while (fewer := innermost.sub("", html)) != html:
        html = fewer
    return f'<div class="absent">[a drawing, which cannot be printed]</div>{html}'


def with_colours(html: str) -> str:
    """HTML whose elements have the styles themselves that a style sheet gives them by id, with colours as #rrggbbaa."""
    rules: dict[str, str] = {}
    for style in re.findall(r"<style\b[^>]*>(.*?)</style>", html, re.S):
        for selectors, body in re.findall(r"([^{}]+)\{([^{}]*)\}", style):
            for selector in re.findall(r"(?:^|,)\s*#([\w-]+)\s*(?=,|$)", selectors):
                own = " ".join(body.replace('"', "'").split()).strip("; ")
                rules[selector] = f"{rules[selector]}; {own}" if selector in rules else own

    def hexadecimal(match):
        colour = tinycss2.color4.parse_color(match[2])
        if not isinstance(colour, tinycss2.color4.Color):
            return match[0]
        parts = *colour.to("srgb").coordinates, colour.alpha
        return f"{match[1]}#" + "".join(f"{round(255 * min(max(part, 0), 1)):02x}" for part in parts)

    styled = re.sub(r'\bid="([^"]+)"', lambda id: f'{id[0]} style="{rules[id[1]]}"' if id[1] in rules else id[0], html)
    return re.sub(r"(\b(?:background(?:-color)?|color)\s*:\s*)([^;\"'}]+)", hexadecimal, styled)


def overwritten(text: str) -> str:
    """What stays of a text where a terminal goes back: a backspace takes a sign, a carriage return a line."""
    while (shorter := re.sub(r"[^\n\x08]\x08|^\x08+", "", text, flags=re.M)) != text:
        text = shorter
    lines = re.sub(r"\r+\n", "\n", text).split("\n")
    for index, line in enumerate(lines):
        for part in (parts := line.split("\r"))[1:]:
            parts[0] = part + parts[0][len(part) :]
        lines[index] = parts[0]
    return "\n".join(lines)


def in_paragraphs(found: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs of a cell, with what it says or prints in a row as one: its sentences, or the claims that do not hold."""
    joined, last = [], None  # the last printed output, which what went to stderr does not end
    for output in found:
        printed = output.output_type == "stream" and output.name == "stdout"
        if printed and last is not None:
            last.text += output.text
            joined.append(NotebookNode(output | {"text": ""}))
            continue
        ok = output.get("metadata", {}).get("ok")
        if ok is not None and joined and joined[-1].get("metadata", {}).get("ok") is ok:
            joined[-1].data["text/markdown"] += (" " if ok else "; ") + output.data["text/markdown"]
        else:
            joined.append(copy.deepcopy(output))
        if output.output_type != "stream":
            last = None
        elif printed:
            last = joined[-1]
    return joined


def emphasized(caption: str) -> str:
    """The words of a caption that a notebook shows in italics."""
    text = caption.strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] and text[0] in "*_" else text


def image_bytes(mime: str, content) -> bytes:
    content = content if isinstance(content, str) else "".join(content)
    return content.encode() if mime == "image/svg+xml" else base64.b64decode(content)


def fence(text: str, kind: str = "") -> str:
    """A fenced block whose fence is longer than any inside."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{ticks}{kind}\n{text.rstrip()}\n{ticks}"


def escape(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#$])", r"\\\1", text)
