"""Any notebook on paper and in one HTML file: what people's notebooks hold, and what went wrong with it elsewhere."""

import base64
import io
import re
import subprocess
import sys
from html import unescape

import nbformat
import pytest
import typst
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from pypdf import PdfReader
from pypdf.generic import ContentStream

from lib import plots
from report import export
from report.export import ReportHTMLExporter, TypstPDFExporter


def picture(kind: str, size=(96, 48)) -> bytes:
    Image.new("RGB", size, "teal").save(buffer := io.BytesIO(), kind)
    return buffer.getvalue()


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def shown(mime: str, content, **metadata):
    return new_output("display_data", {mime: content}, metadata=metadata)


def printed(text: str):
    return new_output("stream", name="stdout", text=text)


def cell(*outputs, source="secret = 1", **metadata):
    return new_code_cell(source, outputs=list(outputs), execution_count=7, metadata=metadata)


def pdf(*cells, **options) -> PdfReader:
    content, _ = TypstPDFExporter(**options).from_notebook_node(new_notebook(cells=list(cells)))
    return PdfReader(io.BytesIO(content))


def html(*cells, **options) -> str:
    return ReportHTMLExporter(**options).from_notebook_node(new_notebook(cells=list(cells)))[0]


def words(reader: PdfReader) -> str:
    """What stands on the pages, without their numbers."""
    pages = [re.sub(r"\s*\d+\s*$", "", page.extract_text()) for page in reader.pages]
    return " ".join(" ".join(pages).replace("\u200b", "").split())


def typst_of(monkeypatch, folder, *cells) -> str:
    """What Typst is given of a notebook."""
    monkeypatch.setenv("REPORT_KEEP_TYPST", str(folder / "kept.typ"))
    pdf(*cells)
    return (folder / "kept.typ").read_text()


def images(reader: PdfReader) -> list[tuple[float, float]]:
    """Width and height of every image on the pages, in inches."""
    return [size for page in reader.pages for size in drawn(page.get_contents(), page["/Resources"], reader, (1.0, 1.0))]


def drawn(content, resources, reader: PdfReader, scale: tuple[float, float]) -> list[tuple[float, float]]:
    found, before = [], []
    for operands, operator in content.operations:
        if operator == b"q":
            before.append(scale)
        elif operator == b"Q":
            scale = before.pop()
        elif operator == b"cm":
            scale = (float(operands[0]) * scale[0], float(operands[3]) * scale[1])
        elif operator == b"Do":
            inner = resources["/XObject"][operands[0]].get_object()
            if inner["/Subtype"] == "/Image":
                found.append((abs(scale[0]) / 72, abs(scale[1]) / 72))
            else:
                found += drawn(ContentStream(inner, reader), inner["/Resources"], reader, scale)
    return found


# Images


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("called", ["image/png", "image/jpeg", "image/gif"])
def test_an_image_is_what_its_bytes_are(kind, called):
    reader = pdf(cell(shown(called, encoded(picture(kind)))))
    assert images(reader) == [pytest.approx((1.0, 0.5))] and "cannot be read" not in words(reader)
    assert html(cell(shown(called, encoded(picture(kind))))).count("<img ") == 1


BROKEN = {
    "a cut PNG": ("image/png", encoded(picture("PNG")[:60])),
    "a cut JPEG": ("image/jpeg", encoded(picture("JPEG")[:200])),
    "no image at all": ("image/png", encoded(b"nothing")),
    "bytes that are no base64": ("image/png", "a"),
    "a broken SVG": ("image/svg+xml", "<svg xmlns='http://www.w3.org/2000/svg'><g></svg>"),
    "what is called a PDF": ("application/pdf", encoded(b"nothing")),
}


@pytest.mark.parametrize("mime, content", BROKEN.values(), ids=BROKEN)
def test_an_image_that_cannot_be_read_leaves_its_place_and_name(mime, content):
    cells = new_markdown_cell("before"), cell(printed("printed"), shown(mime, content)), new_markdown_cell("after")
    for text in (words(pdf(*cells)), re.sub(r"<[^>]+>", "", html(*cells))):
        assert "before" in text and "after" in text
        assert f"[output 2 of cell 2, {mime}, cannot be read as an image" in " ".join(text.split()).replace("\\", "")


@pytest.mark.parametrize(
    "size, metadata, wanted",
    [
        ((192, 96), {}, (2.0, 1.0)),
        ((192, 96), {"width": 96}, (1.0, 0.5)),  # as matplotlib's retina pictures have it
        ((4000, 400), {}, (170 / 25.4, 17 / 25.4)),
        ((400, 3000), {}, (215 / 25.4 * 400 / 3000, 215 / 25.4)),
    ],
)
def test_a_picture_has_its_natural_size_and_never_more_than_the_page(size, metadata, wanted):
    caption = shown("text/markdown", "_What to see._", caption="figure")
    reader = pdf(cell(shown("image/png", encoded(picture("PNG", size)), **{"image/png": metadata}), caption))
    assert images(reader) == [pytest.approx(wanted, rel=0.02)] and len(reader.pages) == 1
    assert "Figure 1. What to see." in words(reader)


def test_an_svg_has_its_own_size_in_its_own_unit():
    for width, inches in (("144pt", 2), ("96", 1), ("96px", 1), ("5.08cm", 2)):
        suffix, _, pixels = export.readable("image/svg+xml", f"<svg width='{width}' height='1in'/>".encode(), paper=True)
        assert (suffix, pixels) == ("svg", 96 * inches)


def test_a_pdf_figure_is_embedded_on_paper_and_a_link_in_html():
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(3, 2))
    ax.set_title("a vector figure")
    fig.savefig(buffer := io.BytesIO(), format="pdf")
    plt.close(fig)
    output = shown("application/pdf", encoded(buffer.getvalue()))
    assert "a vector figure" in words(pdf(cell(output)))
    assert re.search(
        r'<a download="[^"]+\.pdf" href="data:application/pdf;base64,[^"]+">output 1 of cell 1', html(cell(output))
    )


# Outputs


PLOTLY = {"application/vnd.plotly.v1+json": {"data": []}}
UNPRINTABLE = {
    "a bundle alone": PLOTLY,
    "with a script": {"text/html": "<div id='a'></div><script>draw()</script>", "text/plain": "Figure({...})"} | PLOTLY,
    "with the repr of an object": {"text/plain": "<Figure at 0x7f001234>"} | PLOTLY,
    "Vega": {"application/vnd.vegalite.v5+json": {}},
}


@pytest.mark.parametrize("data", UNPRINTABLE.values(), ids=UNPRINTABLE)
def test_what_cannot_be_printed_is_said(data):
    text = words(pdf(cell(new_output("display_data", data))))
    assert re.search(r"\[output 1 of cell 1 is \S+, which cannot be printed\]", text) and "Figure(" not in text


def test_a_long_word_breaks_anywhere():
    reader = pdf(cell(printed("x" * 3000), printed("é🙂" * 500)))
    lines = [line for page in reader.pages for line in page.extract_text().splitlines()]
    assert "".join(lines).count("x") == 3000 and max(map(len, lines)) < 150


def test_very_much_output_is_cut_on_paper_and_folded_in_html():
    lines = "\n".join(f"line {i}" for i in range(50_000))
    reader = pdf(cell(printed(lines)))
    text = words(reader)
    assert len(reader.pages) < 6 and "… 49,800 of 50,000 lines are left out …" in text
    assert "line 99 " in text and "line 100 " not in text and "line 49900 " in text
    page = html(cell(printed(lines)))
    assert "all 50,000 lines" in page and "line 25000\n" in page
    assert "left out" not in words(pdf(cell(printed("\n".join(f"line {i}" for i in range(export.LINES))))))


LATEX = {
    "an environment": (r"\begin{align}a &= b\\ c &= d\end{align}", "="),
    "dollars": (r"$\displaystyle x + 1$", "+"),
    "brackets": (r"\[ x + 1 \]", "+"),
    "parentheses": (r"so \( x + 1 \)", "+"),
    "a table": (r"\begin{tabular}{l}cell\end{tabular}", r"\begin{tabular}"),
}


@pytest.mark.parametrize("source, seen", LATEX.values(), ids=LATEX)
def test_latex_is_typeset_or_shown_as_its_source(source, seen):
    text = words(pdf(cell(shown("text/latex", source))))
    assert seen in text
    assert (r"\begin" in text) == ("is LaTeX beyond mathematics, shown as its source" in text) == ("tabular" in source)
    assert ("<math" in html(cell(shown("text/latex", source)))) == ("tabular" not in source)


SOURCE = r"\begin{tabular}{l}cell\end{tabular}"


@pytest.mark.parametrize(
    "latex, others, seen",
    [
        (r"$\displaystyle \sqrt{x}$", {"image/png": encoded(picture("PNG"))}, "√𝑥"),  # sympy's pictures of formulas
        (SOURCE, {"text/html": "<table><tr><td>cell</td></tr></table>"}, "cell"),
        (SOURCE, {"image/png": encoded(picture("PNG"))}, ""),
    ],
)
def test_latex_comes_first_where_it_is_mathematics_and_last_where_not(latex, others, seen):
    text = words(pdf(cell(new_output("display_data", {"text/latex": latex, "text/plain": "x"} | others))))
    assert text == f"In [7]: secret = 1 {seen}".strip()


TERMINAL = {
    "50%\r100%\n": "100%\n",
    "loading\rdone\n": "doneing\n",
    "| \b\b/ \b\b- \b\bdone\n": "done\n",
    "a\r\nb\r\r\n": "a\nb\n",
    "plain\n": "plain\n",
}


@pytest.mark.parametrize("text, stays", TERMINAL.items())
def test_what_a_terminal_overwrites_goes(text, stays):
    assert export.overwritten(text) == stays
    assert " ".join(stays.split()) in words(pdf(cell(printed(text))))


def test_what_is_printed_between_messages_is_one_text(monkeypatch, tmp_path):
    message = new_output("stream", name="stderr", text="a warning")
    source = typst_of(
        monkeypatch, tmp_path, cell(printed("one\n"), message, printed("two\n"), shown("image/png", "a"), printed("3"))
    )
    assert "```\none\ntwo\n```" in source and "warning" not in source and "```\n3\n```" in source


FRAME = encoded(picture("PNG"))
MOVING = f"""<div><img id="_img"><button><i></i></button><form><input type="radio"><label>Loop</label></form></div>
<script>frames[0] = "data:image/png;base64,{FRAME[:40]}\\\n{FRAME[40:]}\\\n"</script>"""


def test_of_what_scripts_move_the_first_picture_is_shown():
    output = new_output("display_data", {"text/html": MOVING, "text/plain": "<Animation at 0x7f01>"})
    reader = pdf(cell(output))
    assert images(reader) == [pytest.approx((1.0, 0.5))] and "[output 1 of cell 1 moves: its first picture]" in words(reader)
    assert "Loop" not in words(reader) and "Loop" not in html(cell(output))


PLAYED = {
    "a video": "<video controls><source src='data:video/mp4;base64,AA'>no video here</video>",
    "sound": "<audio controls src='https://example.org/a.wav'>no audio here</audio>",
    "a page": "<iframe width='400' src='https://example.org/'></iframe>",
}


@pytest.mark.parametrize("kind, source", PLAYED.items(), ids=PLAYED)
def test_what_plays_is_said_on_paper(kind, source):
    for cells in ([cell(shown("text/html", source))], [new_markdown_cell(f"<div>\n{source}\n</div>\n\nafter")]):
        text = words(pdf(*cells))
        assert f"[{kind}, which cannot be printed" in text and " here" not in text
        assert ("https://example.org/" in text) == ("https" in source)


def test_html_that_unfolds_is_its_plain_text_on_paper_and_keeps_its_styles_in_html():
    source = "<style>:root {--c: red} #a {color: var(--c)}</style><div id='a'>rerun<div hidden>Model</div></div>"
    output = new_output("display_data", {"text/html": source, "text/plain": "Model(c=1)"})
    assert words(pdf(cell(output))) == "In [7]: secret = 1 Model(c=1)"
    assert "<style>@scope {:scope {--c: red} #a {color: var(--c)}}</style>" in html(cell(output))


SILENT = {
    "styles alone": {"text/html": "<style>p {color: red}</style>", "text/plain": "<IPython.core.display.HTML object>"},
    "nothing": {"text/html": "<pre></pre>", "text/plain": ""},
    "a script that shows nothing": {
        "application/javascript": "set(1)",
        "text/plain": "<IPython.core.display.Javascript object>",
    },
}


@pytest.mark.parametrize("data", SILENT.values(), ids=SILENT)
def test_what_shows_nothing_leaves_nothing(data):
    assert words(pdf(cell(new_output("display_data", data)))) == "In [7]: secret = 1"
    assert "cannot be printed" in words(pdf(cell(shown("application/javascript", "element.text(1)"))))


def test_cells_have_the_colours_that_a_style_sheet_gives_them(monkeypatch, tmp_path):
    source = """<style type="text/css">#T_r0_c0, #T_r1_c0 {
      background-color: lightgreen; color: rgb(255, 0, 0);
    } #T_r0_c1 {font-weight: bold}</style>
    <table><tr><td id="T_r0_c0">1</td><td id="T_r0_c1">2</td></tr><tr><td id="T_r1_c0">3</td>
    <td style="background: rgba(0, 0, 0, 0)">4</td></tr></table>"""
    text = typst_of(monkeypatch, tmp_path, cell(shown("text/html", source)))
    assert text.count('fill: rgb("#90ee90ff")') == 2 and text.count('#set text(fill: rgb("#ff0000ff"))') == 2
    assert text.count('weight: "bold"') == 1 and "[4]" in text


TABLES = {
    "no end tags": "<table><tr><td>a<td>b<tr><td>c<td>d</table>",
    "some end tags": "<table> <tr><td>a</td><td>b<tr><td>c</td><td>d</td></tr></table>",
    "no rows": "<table><td>a</td><td>b</td></table>",
    "one in another": "<table><tr><td>a<td><table><tr><td>b</table><tr><td>c<td>d</table>",
    "all tags": "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>c</td><td>d</td></tr></tbody></table>",
}


@pytest.mark.parametrize("source", TABLES.values(), ids=TABLES)
def test_html_tables_need_no_end_tags(monkeypatch, tmp_path, source):
    for cells in ([cell(shown("text/html", source))], [new_markdown_cell(source)]):
        text = typst_of(monkeypatch, tmp_path, *cells)
        assert text.count("#table(") == source.count("<table") and "columns: 2" in text


def test_long_headings_of_a_wide_table_take_lines(monkeypatch, tmp_path):
    names = [f"the very long name of the column {i}" for i in range(8)]
    rows = f"<tr>{'<td>1.5</td>' * 8}</tr>"
    heading = "".join(f"<th>{name}</th>" for name in names)
    wide = typst_of(monkeypatch, tmp_path, cell(shown("text/html", f"<table><tr>{heading}</tr>{rows}</table>")))
    narrow = typst_of(monkeypatch, tmp_path, cell(shown("text/html", f"<table><tr><th>{names[0]}</th></tr>{rows}</table>")))
    assert re.search(r"the very\s*\\\s", wide) and not re.search(r"the very\s*\\\s", narrow)


def test_blocks_within_a_line_stand_in_it():
    pieces = "".join(
        f"<div style='display: inline; background: #ff000080'>w{i}<div style='display:none'>no</div></div>" for i in range(3)
    )
    assert words(pdf(cell(shown("text/html", f"<div>{pieces}</div>")))).endswith("w0 w1 w2")


def test_drawings_made_of_drawings_are_said():
    source = "<div><svg width='100%'><line/><svg x='1'><text>a</svg></svg><p>words</p></div>"
    assert words(pdf(cell(shown("text/html", source)))).endswith("[a drawing, which cannot be printed] words")


# Markdown

FORMULAS = [
    r"so $ \alpha $.",
    "$ \\alpha\n+ 1 $",
    r"$x $ and $ \alpha$",
    "$\n\\begin{align*}\nf &= \\alpha \\\\\n&= 2\n\\end{align*}\n$",
    "$$\nf\n= \\alpha\n$$",
    "$$\n\\begin{equation}\n\\alpha % why\n\\end{equation}\n$$",
    "so\n\\begin{aligned}\nf &= \\alpha\n\\end{aligned}\n",
    "  \\begin{bmatrix} \\alpha \\end{bmatrix}",
    r"$$ \alpha \\ \beta $$",
    r"$\LaTeX$ and ${\rm x} \alpha \nonumber$",
    r"$$\text{for $x$} \alpha \cfrac{1}{2}$$",
]


@pytest.mark.parametrize("source", FORMULAS)
def test_mathematics_is_found_where_jupyter_finds_it(source):
    text = words(pdf(new_markdown_cell(source)))
    assert re.search("[α𝛼]", text) and not re.search(r"\\|begin|\$|LATEX", text)
    assert "<math" in html(new_markdown_cell(source))


@pytest.mark.parametrize(
    "source", ["$5 and $6 each", r"\$5 or \$ 6", "`$ a $` and ``$ `b` $``", "```\n$ a $\n$$\n= b\n$$\n```", ":label:`a` :fire:"]
)
def test_what_is_no_mathematics_stays(source):
    text = words(pdf(new_markdown_cell(source)))
    assert text.replace(" ", "") == re.sub(r"``?`?|\\|\s", "", source.replace("`b`", "'b'")).replace("'b'", "`b`")


def test_a_formula_beyond_pandoc_is_its_source():
    assert r"\oddity_x^y" in words(pdf(new_markdown_cell(r"So $\oddity_x^y$ it is.")))


def test_a_wide_formula_stays_on_the_page():
    found = []
    reader = pdf(new_markdown_cell("$$ " + " + ".join(f"a_{{{i}}}" for i in range(60)) + " $$"))
    reader.pages[0].extract_text(
        visitor_text=lambda text, cm, tm, *_: found.append(cm[4] + cm[0] * tm[4]) if text.strip() else None
    )
    assert min(found) > 50 and max(found) < 545


def test_a_line_break_that_begins_a_line_ends_no_list():
    page = html(new_markdown_cell("- **one**<br/>\n<br/>\n- **two**"))
    assert page.count("<li>") == 2 and page.count("<strong>") == 2


HEADINGS = {
    "plain": ("# A title", "A title"),
    "a link and quotes": ('# My "best" [tricks](https://example.org/?a=1#b)', 'My "best" tricks'),
    "a sign beyond the basic plane": ("# Ready 🚀 here", "Ready"),
    "Typst's signs": ("# 50% #1 $x_1$ \\ `a]b`", "50% #1"),
}


@pytest.mark.parametrize("source, title", HEADINGS.values(), ids=HEADINGS)
def test_a_first_heading_names_the_file(source, title):
    reader, page = pdf(new_markdown_cell(source)), html(new_markdown_cell(source))
    named = re.search("<title>(.*?)</title>", page, re.S)[1]
    assert re.sub("[“”]", '"', reader.metadata.title).startswith(title) and "<" not in named and title[:2] in named


@pytest.mark.parametrize("levels, wanted", [("2 4 3", "1 2 2"), ("4 1 3 6 3", "1 1 2 3 2"), ("3 3", "1 1"), ("1 2 3", "1 2 3")])
def test_levels_of_headings_leave_none_out(caplog, levels, wanted):
    cells = [new_markdown_cell(f"{'#' * int(level)} Heading") for level in levels.split()]
    with caplog.at_level("WARNING"):
        reader = pdf(*cells)
    assert "not accessible" not in caplog.text

    def depths(outline, depth=1):
        return [found for item in outline for found in (depths(item, depth + 1) if isinstance(item, list) else [depth])]

    assert depths(reader.outline) == [int(level) for level in wanted.split()]


BADGES = {
    "alone": ("[![Open it](https://example.org/badge.svg)](https://example.org/open)", "picture: Open it"),
    "no name": ("[![](https://example.org/a/badge.svg?x=1)](https://example.org/open)", "picture: badge.svg"),
    "beside words": ("[![](https://example.org/badge.svg) Open it](https://example.org/open)", "Open it"),
    "HTML": ("<a href='https://example.org/open'><img src='https://example.org/badge.svg'/> Open it</a>", "Open it"),
}


@pytest.mark.parametrize("source, seen", BADGES.values(), ids=BADGES)
def test_a_badge_leads_where_its_link_does(source, seen):
    reader = pdf(new_markdown_cell(source))
    assert words(reader) == seen
    assert {str(found.get_object()["/A"]["/URI"]) for found in reader.pages[0]["/Annots"]} == {"https://example.org/open"}


def test_a_link_to_nothing_is_its_text():
    assert words(pdf(new_markdown_cell("see [the plot]() here"))) == "see the plot here"


def test_a_picture_in_markdown_that_cannot_be_read_is_said(tmp_path):
    (tmp_path / "bad.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><x:g/>")
    notebook = new_notebook(cells=[new_markdown_cell("before ![a plot](bad.svg) after")])
    content, _ = TypstPDFExporter().from_notebook_node(notebook, {"metadata": {"path": str(tmp_path)}})
    assert words(PdfReader(io.BytesIO(content))) == "before [a plot, which cannot be read as an image] after"


HTML = {
    "10<sup>2</sup> H<sub>2</sub>O": ["<sup>2</sup>", "<sub>2</sub>"],
    "one<br>two<br/>three": ["one<br", "two<br"],
    "<b>bold</b> <i>it</i> <u>u</u> <del>d</del>": ["<strong>bold</strong>", "<em>it</em>", "<u>u</u>", "<del>d</del>"],
    "<a href='https://example.org/'>a link</a>": ['<a href="https://example.org/">a link</a>'],
    "press <kbd>Ctrl</kbd>": ["<code>Ctrl</code>"],
    "<sup>a <b>nested</b> one</sup>": ["<sup>a <strong>nested</strong> one</sup>"],
    "an <b>open one": ["open one"],
}  # fmt: skip


@pytest.mark.parametrize("text, wanted", HTML.items())
def test_html_within_a_line_is_what_a_browser_shows(text, wanted):
    page = html(new_markdown_cell(text))
    assert all(piece in page for piece in wanted)
    plain = re.sub(r"<br/?>", " ", text)
    assert words(pdf(new_markdown_cell(text))).replace(" ", "") == re.sub(r"<[^>]+>| ", "", plain)


def test_what_is_folded_is_open_on_paper():
    text = "<details><summary>More <b>here</b></summary>\n\nhidden **text**\n\n</details>\n\nafter"
    assert words(pdf(new_markdown_cell(text))) == "More here hidden text after"
    assert "<details>" in html(new_markdown_cell(text))


@pytest.mark.parametrize(
    "definition, use",
    [
        (r"$\newcommand{\R}{\mathbb{R}}$", r"$x \in \R$"),
        (r"$$\newcommand{\R}{\mathbb{R}} \newcommand{\E}[1]{\mathbb{E}[#1]}$$", r"$\R$"),
        (r"$\def\R{\mathbb{R}}$", r"$\R^2$"),
        (r"$\newcommand\R{\mathbb{R}}$ and words", r"$$\R$$"),
        (r"$\renewcommand{\R}{\mathbb{R}} x$", r"$\R$"),
    ],
)
def test_commands_of_latex_are_known_in_the_cells_that_follow(definition, use):
    cells = new_markdown_cell(definition), new_markdown_cell("Then " + use)
    text = words(pdf(*cells))
    assert "ℝ" in text and "command" not in text and "\\" not in text
    assert "ℝ" in html(*cells)


def test_a_picture_of_another_host_is_a_link_that_says_so():
    reader = pdf(new_markdown_cell("![a plot](https://example.org/a.png)"))
    (link,) = [annotation.get_object() for annotation in reader.pages[0]["/Annots"]]
    assert link["/A"]["/URI"] == "https://example.org/a.png" and "picture: a plot" in words(reader)


def test_signs_that_no_font_has_are_named(monkeypatch):
    monkeypatch.setattr(export, "blank", lambda sign: sign == "🔥")
    assert "ok ✅ and [fire] here" in export.with_signs("ok ✅ and 🔥\ufe0f here")
    assert export.with_signs("é α ≤ — “a”") == "é α ≤ — “a”"


def test_a_sign_is_blank_where_typst_finds_no_glyph():
    assert export.blank("\U000f0000") and not export.blank("a") and not export.blank("α")


# nbconvert's conventions


def test_code_has_its_prompt_and_no_further_word():
    result = new_output("execute_result", {"text/plain": "42"}, execution_count=7)
    text = words(pdf(cell(result)))
    assert text == "In [7]: secret = 1 Out[7]: 42"
    assert words(pdf(cell(result), exclude_input_prompt=True, exclude_output_prompt=True)) == "secret = 1 42"
    assert words(pdf(cell(result, jupyter={"source_hidden": True}), exclude_output_prompt=True)) == "42"
    assert words(pdf(cell(result, transient={"remove_source": True}), exclude_output_prompt=True)) == "42"


@pytest.mark.parametrize("kind", ["typst_pdf", "report_html"])
def test_nbconverts_options_are_known(tmp_path, kind):
    cells = [cell(printed("gone"), tags=["remove_cell"]), cell(printed("kept"))]
    nbformat.write(new_notebook(cells=cells), tmp_path / "some.ipynb")
    options = ["--no-input", "--TagRemovePreprocessor.remove_cell_tags=remove_cell", "--output-dir=made"]
    command = [sys.executable, "-m", "nbconvert", "--to", kind, "some.ipynb", *options]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    suffix = "pdf" if kind == "typst_pdf" else "html"
    made = tmp_path / "made" / f"some.{suffix}"
    text = words(PdfReader(made)) if suffix == "pdf" else made.read_text()
    assert "kept" in text and "gone" not in text and "secret" not in text


# Those who cannot see


def test_a_notebook_is_accessible_as_pdf_ua_asks(monkeypatch):
    asked = []
    real = typst.compile
    monkeypatch.setattr(
        export.typst, "compile", lambda *args, **kwargs: asked.append(kwargs.get("pdf_standards")) or real(*args, **kwargs)
    )
    table = "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>2</td></tr></tbody></table>"
    figure = shown("image/png", encoded(picture("PNG")), alt='a \\ teal "field"')
    reader = pdf(new_markdown_cell("# Title\n\n$x^2$ and $$\\frac{1}{2}$$"), cell(figure, shown("text/html", table)))
    assert asked == [["ua-1"]]  # and no second time without
    content = str(reader.trailer["/Root"]["/StructTreeRoot"].get_object())
    assert reader.trailer["/Root"]["/MarkInfo"]["/Marked"] and content


def test_what_is_not_accessible_is_made_and_said(monkeypatch, caplog):
    real = typst.compile

    def refuses(*args, pdf_standards=(), **kwargs):
        if pdf_standards:
            raise typst.TypstError("PDF/UA-1 error: something is missing")
        return real(*args, **kwargs)

    monkeypatch.setattr(export.typst, "compile", refuses)
    with caplog.at_level("WARNING"):
        assert words(pdf(new_markdown_cell("text"))) == "text"
    assert "not accessible as PDF/UA-1 asks: PDF/UA-1 error: something is missing" in caplog.text


# Links

REFERENCES = """# References

- Ba, J. L., Kiros, J. R. & Hinton, G. E. (2016). Layer normalization.
- He, K., Zhang, X. & Sun, J. (2015). Delving deep.
- He, K., Zhang, X. & Sun, J. (2016). Deep residual learning.
- Holm, S. (1979). A simple procedure.
- Nam, H. & Kim, H.-E. (2018). Batch-instance normalization.
- Selvaraju, R. R. et al. (2017). Grad-CAM.
"""
CITATIONS = {
    "as Holm (1979) does": "Holm (1979)",
    "corrected (Holm 1979), then": "Holm 1979",
    "found by Nam & Kim (2018).": "Nam & Kim (2018)",
    "see (Ba et al. 2016; Nam & Kim 2018)": "Ba et al. 2016|Nam & Kim 2018",
    "Ba et al. (2016, equation 3)": "Ba et al. (2016",
    "He et al. 2015 and He et al. (2016)": "He et al. 2015|He et al. (2016)",
    "of Selvaraju et al. 2017": "Selvaraju et al. 2017",
    "He et al. (2014), Kim 2018 and Holm alone": "",
}


@pytest.mark.parametrize("text, cited", CITATIONS.items())
def test_citations_lead_to_their_reference(text, cited):
    page = html(new_markdown_cell(text), new_markdown_cell(REFERENCES))
    found = [(" ".join(unescape(words).split()), name, unescape(title)) for name, title, words in LINK.findall(page)]
    assert [words for words, _, _ in found] == list(filter(None, cited.split("|")))
    for words, name, title in found:
        assert title.startswith(words.split()[0]) and re.search(r"\d{4}", words)[0] in title
        assert f'id="{name}"' in page
    assert unescape(re.sub(r"<[^>]+>", "", page)).replace("\n", " ").count(text) == 1
    (first,) = pdf(new_markdown_cell(text), new_markdown_cell(REFERENCES)).pages
    assert len(first.get("/Annots", [])) == len(found)


LINK = re.compile(r'<a\s+href="#((?:reference|figure|table)-\w+|one|two)"\s+title="([^"]*)">([^<]*)</a>')


def test_figures_and_tables_that_prose_names_are_links_whose_hint_is_their_caption():
    table = shown("text/html", "<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>")
    cells = [
        new_markdown_cell("The figure below and the table below, figure 2 (Table 1) and Figure 9."),
        cell(shown("image/png", encoded(picture("PNG"))), shown("text/markdown", "_First._", caption="figure")),
        cell(table, shown("text/markdown", "_A *table*._", caption="table", data="a\n1\n")),
        cell(shown("image/png", encoded(picture("PNG"))), shown("text/markdown", "_See Figure 1._", caption="figure")),
    ]
    page = html(*cells)
    assert [(" ".join(words.split()), name, title) for name, title, words in LINK.findall(page)] == [
        ("Figure 1", "figure-1", "Figure 1. First."),
        ("Table 1", "table-1", "Table 1. A table."),
        ("figure 2", "figure-2", "Figure 2. See Figure 1."),
        ("Table 1", "table-1", "Table 1. A table."),
        ("Figure 1", "figure-1", "Figure 1. First."),
    ]
    assert all(f'id="{name}"' in page for name in ("figure-1", "figure-2", "table-1"))
    assert sum(len(page.get("/Annots", [])) for page in pdf(*cells).pages) == 5


def test_sections_that_prose_names_are_links():
    report = {"report": {"title": "t", "numbersections": True}}
    nb = new_notebook(cells=[new_markdown_cell("# One\n\nSee section 2 and section 2.1.\n\n# Two {#two}\n\n## Part")])
    page, _ = ReportHTMLExporter().from_notebook_node(nb, report)
    assert '<a href="#two" title="Two">section 2</a>' in page and 'title="Part">section 2.1</a>' in page
    assert 'href="#two" title' not in html(*nb.cells)  # without numbers another text's section may be meant


def test_data_beside_a_table_are_saved_from_html_alone():
    caption = shown("text/markdown", "_A table._", caption="table", data="a,b\n1,é\n")
    page = html(cell(printed("1"), caption))
    ((name, content),) = re.findall(r'download="([^"]+)"\s+href="data:text/csv;base64,([^"]+)"', page)
    assert name == "table-1.csv" and base64.b64decode(content).decode() == "a,b\n1,é\n"
    assert "CSV" not in words(pdf(cell(printed("1"), caption)))
    assert "CSV" not in html(cell(printed("1"), shown("text/markdown", "_A table._", caption="table", data="")))


def test_what_is_for_the_screen_is_not_on_paper():
    output = new_output("display_data", {"text/html": "<details>folded</details>"}, metadata={"screen": True})
    assert "folded" in html(cell(output)) and "folded" not in words(pdf(cell(output)))


def test_data_of_a_figure_are_what_its_lines_and_dots_show():
    plots.USED.clear()
    fig, (left, right) = plots.plt.subplots(1, 2)
    left.plot([1, 2], [3, 4], color=plots.style_of("bn")[0])
    left.plot([1], [7], color=plots.style_of("Adam")[0])
    left.plot([1], [8], color=plots.STYLES["gn"][0])  # the same colour for something else
    left.set_title("error", loc="left")
    right.scatter([0.123456789], [5], label="ours")
    right.axvline(3)
    right.bar([1], [2])
    plots.plt.close(fig)
    assert plots.csv(plots.points(fig)).splitlines() == [
        "panel,series,x,y", "error,BN,1,3", "error,BN,2,4", "error,Adam,1,7", "error,,1,8", "2,ours,0.123457,5",
    ]  # fmt: skip
    assert plots.csv(plots.points(plots.plt.figure())) == ""
