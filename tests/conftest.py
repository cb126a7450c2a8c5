import itertools
import os
import signal
from dataclasses import replace

os.environ.setdefault("MPLBACKEND", "agg")
# For this process and all that it starts: threads that wait for each other on a busy core take up to 70 times as long as one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from lib import scoring
from lib.study import EVERYTHING, NOTEBOOKS, Study
from report import build


def pytest_configure():
    # A shell has what it starts in the background ignore Ctrl-C, and so would each command that a test starts and interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    # The file that takes longest first, so that the processes end together.
    items.sort(key=lambda item: item.path.name != "test_report.py")


@pytest.fixture(scope="module", autouse=True)
def the_longest_goes_before(request):
    """Of tests side by side those of the report have the cores first: all others together take no longer than they."""
    if request.path.name != "test_report.py":
        os.setpriority(os.PRIO_PROCESS, 0, max(5, os.getpriority(os.PRIO_PROCESS, 0)))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def score_few_images(study):
    """What sections 10 and 11 keep beside the runs, of 20 test images: of all it would take a minute."""
    data = study.data()
    data = replace(data, test=data.test.take(slice(20)))
    for result in itertools.chain(*study.fit(NOTEBOOKS["10_shifted_images"], progress=False).values()):
        scoring.shifted(result, data)
        scoring.reliability(result, data)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """All notebooks executed at profile smoke with two seeds and the report built: (study, report folder, what failed)."""
    folder = tmp_path_factory.mktemp("smoke")
    study = Study("smoke", "digits", seeds=(0, 1), outputs=folder / "outputs")
    study.fit(EVERYTHING, progress=False)
    score_few_images(study)
    failures = build.build(study, folder / "report", jobs=2)
    return study, folder / "report", failures


@pytest.fixture
def few(monkeypatch):
    """A report of four sections only, for each starts a kernel."""
    names = ("01_resnet_bn", "04_batch_size", "06_training_recipe", "14_discussion")
    monkeypatch.setattr(build, "NOTEBOOKS", {name: NOTEBOOKS[name] for name in names})
