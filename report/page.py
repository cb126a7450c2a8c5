"""The report's first page, from the facts that the sections saved: abstract, headline figure and map."""

import datetime
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from lib import data, plots
from lib.study import Study
from report import figures, saved, say

HERE = Path(__file__).resolve().parent
TITLE = "Normalization in deep residual networks"
#: Whose facts it has.
SECTIONS = ("02_norm_sanity", "03_six_variants", "04_batch_size", "05_feature_quantiles", "06_training_recipe",
            "10_shifted_images", "11_calibration")  # fmt: skip
HEADLINE = ("Batch statistics win", "BN drops at a batch of 2", "BN breaks at low contrast")  # its panels: claims


def data_title(study: Study) -> str:
    """The data set as a title says it."""
    titles = {"digits": "handwritten digits", "cifar10": "CIFAR-10"}
    return titles.get(study.dataset, f"the images of {data.folder_path(study.dataset).name}")


def describe(study: Study) -> str:
    """The setting in a line."""
    run, seeds = study.runs("torch_bn")[0], ", ".join(map(str, study.seeds))
    images = run.train_size or data.train_images(study.dataset)
    return (
        f"{6 * run.n + 2} layers (n = {run.n}), {images:,} training images, {run.epochs} epochs, batch {run.batch_size}, "
        f"{run.optimizer.upper()} from {run.lr:g}, {run.precision}, seeds {seeds}, "
        f"profile {study.profile} on {run.data_name}"
    )


def setting(study: Study) -> dict:
    """What the abstract says of the networks and the images."""
    run = study.runs("bn")[0]
    return {"layers": 6 * run.n + 2, "batch": run.batch_size, "data": data_title(study)}


def abstract(study: Study, known: dict[str, pd.DataFrame]) -> tuple[str, dict[str, bool]]:
    """Its text, and name -> whether it holds of each of its claims."""
    return say.page(HERE / "abstract.md", setting=setting(study), **known)


def headline(known: dict[str, pd.DataFrame], held: dict[str, bool]) -> Figure:
    """The study in one figure, with a title over each panel whose claim holds."""
    plots.setup()
    titles = [title if held[title] else "" for title in HEADLINE]
    return figures.headline(known["trainings"], known["sweep"], known["contrast"], titles)


def first_page(study: Study, missing: dict[str, str], folder: Path) -> tuple[dict, pd.DataFrame]:
    """The title page as pandoc's metadata, and every claim of the report with its verdict. `missing`: section -> why it has no
    facts; where one of SECTIONS is among them, there is no abstract. The figure is written into `folder`."""
    committed = (study.profile, study.dataset) == ("paper", "cifar10")  # whose setting the abstract and the sections say
    page = {
        "title": TITLE,
        "subtitle": f"What the normalization layer does to a ResNet on {data_title(study)}",
        "date": datetime.date.today().isoformat() if committed else f"{describe(study)}, {datetime.date.today().isoformat()}",
        "map": (HERE / "map.md").read_text() + "\n" + (HERE / "reading.md").read_text(),
        "numbersections": True,
    }
    known = saved.load(study)
    there = set(known["claims"]["section"]) - missing.keys()
    if lost := [f"{name} {missing.get(name, 'saved no facts')}" for name in SECTIONS if name not in there]:
        return page | {"abstract": f"This report is not whole and has no abstract: {'; '.join(lost)}."}, known["claims"]
    text, held = abstract(study, known)
    own = pd.DataFrame({"section": "abstract", "verdict": pd.Series(held).map({True: "holds", False: "not in these runs"})})
    headline(known, held).savefig(folder / "headline.svg", metadata={"Date": None})
    alt = "Test accuracy by norm, by batch size and by the contrast of the test images"
    picture = f"![]({folder / 'headline.svg'}){{alt='{alt}'}}"
    caption = (HERE / "headline.md").read_text().strip()
    page["headline"] = f"::::: {{.captioned .figure}}\n{picture}\n\n:::: caption\n{caption}\n::::\n:::::\n"
    return page | {"abstract": text}, pd.concat([own, known["claims"]])
