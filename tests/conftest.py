import os
import signal

os.environ.setdefault("MPLBACKEND", "agg")

import pytest
import torch

from lib.study import EVERYTHING, Study
from report import build


def pytest_configure():
    # A shell has what it starts in the background ignore Ctrl-C, and so would each command that a test starts and interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: Fixtures that take long to make: of two processes (`-n 2 --dist loadgroup`), all tests that use one run in the same.
SHARED = {"smoke", "sample", "one_after_the_other", "outputs"}


@pytest.hookimpl(tryfirst=True)  # xdist then reads the groups
def pytest_collection_modifyitems(items):
    for item in items:
        for name in SHARED.intersection(item.fixturenames):
            item.add_marker(pytest.mark.xdist_group(name))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """All notebooks executed at profile smoke with two seeds and the report built: (study, report folder, what failed)."""
    folder = tmp_path_factory.mktemp("smoke")
    study = Study("smoke", "digits", seeds=(0, 1), outputs=folder / "outputs")
    study.fit(EVERYTHING, progress=False)
    failures = build.build(study, folder / "report", jobs=2)
    return study, folder / "report", failures
