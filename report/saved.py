"""The facts that the sections save as CSV files, which the pages and the later sections read."""

from pathlib import Path

import pandas as pd

from lib.engine import files
from lib.study import NOTEBOOKS, Study


def folder(study: Study) -> Path:
    """Where the facts of a setting lie, in a folder for each section: beside its executed notebooks."""
    return study.outputs / "notebooks" / f"{study.profile}-{study.runs('bn')[0].data_slug}" / "facts"


def save(study: Study, section: str, **facts: pd.DataFrame) -> None:
    """Each as a CSV file of its name, for the pages and sections that read them."""
    (folder(study) / section).mkdir(parents=True, exist_ok=True)
    for name, frame in facts.items():
        files.write_file(folder(study) / section / f"{name}.csv", frame.to_csv().encode())


def load(study: Study, *required: str) -> dict[str, pd.DataFrame]:
    """Name -> frame of all that the sections have saved; their `claims` one below the other, with a column that says whose they
    are. FileNotFoundError if a required section has saved nothing yet."""
    for section in required:
        if not (folder(study) / section / "claims.csv").is_file():
            raise FileNotFoundError(
                f"there are no facts in {folder(study) / section}; execute notebook {section} with these parameters first"
            )
    found, claims = {}, []
    for path in filter(Path.is_file, (folder(study) / name / "claims.csv" for name in NOTEBOOKS)):
        frames = {file.stem: pd.read_csv(file, index_col=0) for file in sorted(path.parent.glob("*.csv"))}
        claims.append(frames.pop("claims").assign(section=path.parent.name))
        if twice := sorted(found.keys() & frames.keys()):
            raise ValueError(f"{path.parent} has facts called {', '.join(twice)}, as another section has; call them otherwise")
        found |= frames
    return found | {"claims": pd.concat(claims) if claims else pd.DataFrame(columns=["section", "verdict"])}
