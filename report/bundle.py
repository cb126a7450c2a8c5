"""Zips what is handed in: the report, the executed notebooks, the facts behind every sentence, and the list of runs.

    python -m report.bundle --profile quick --dataset digits

The zip is bundle.zip beside the report. runs.csv in it names every run of the report with the SHA-256 of each of its files, so
that who has the runs too can tell whether they are these.
"""

import io
import re
import sys
import zipfile
from pathlib import Path

import pandas as pd

from lib.engine import store
from lib.engine.commands import OPTIONS, Parser, command
from lib.engine.files import write_file
from lib.study import Study
from report.build import notebook_folder, report_folder, reported

REPORTS = ("report.html", "report.pdf")


def bundle(study: Study, folder: Path) -> Path:
    """folder/bundle.zip of the report in `folder`. FileNotFoundError where that, or what it was made from, is not there."""
    executed = notebook_folder(study)
    for file in (*(folder / name for name in REPORTS), executed / "claims.csv"):
        if not file.is_file():
            raise FileNotFoundError(f"{file} is not there; make report builds it, with these parameters")
    parts = {name: (folder / name).read_bytes() for name in REPORTS}
    # The notebooks that it links to lie beside it in the zip.
    linked = re.compile(rb'href="(?!\w+:)[^"#]*/([^"/#]+\.ipynb)#')
    parts["report.html"] = linked.sub(rb'href="notebooks/\1#', parts["report.html"])
    made = (file for file in sorted(executed.rglob("*")) if file.suffix in (".ipynb", ".csv"))
    parts |= {f"notebooks/{file.relative_to(executed)}": file.read_bytes() for file in made}
    rows = [
        {"run": result.run.id, "file": name, "sha256": digest}
        for results in reported(study).values()
        for result in results
        for name, digest in store.read_sums(result.path).items()
    ]
    parts["runs.csv"] = pd.DataFrame(rows, columns=["run", "file", "sha256"]).to_csv(index=False).encode()
    with zipfile.ZipFile(content := io.BytesIO(), "w") as opened:
        for name, part in parts.items():  # without a time: the same files are the same zip
            opened.writestr(zipfile.ZipInfo(f"normalization/{name}"), part, zipfile.ZIP_DEFLATED)
    write_file(folder / "bundle.zip", content.getvalue())
    return folder / "bundle.zip"


@command
def main(argv=None) -> int:
    args = Parser("report.bundle", __doc__, *OPTIONS).parse_args(argv)
    study = Study(args.profile, args.dataset, args.data_dir, args.seeds, args.outputs)
    target = bundle(study, report_folder(study))
    print(f"{target}: {target.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
