"""What a GPU needs, checked where there is none: which device is taken, and what a step on it may do."""

import contextlib
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm.auto import tqdm

from lib import train
from lib.data import ROOT
from lib.engine import machine
from lib.norms import NORMS, BatchNorm2d
from lib.resnet import ResNet
from lib.run import Run
from lib.study import Study

TINY = Run(norm="bn", n=1, dataset="digits", train_size=48, batch_size=16, epochs=3, warmup_epochs=1, augment="crop")


def trainer_of(run: Run, device: str = "cpu") -> train.Trainer:
    data, model = train.load_data(run, "data").to(torch.device(device)), train.new_model(run).to(device)
    return train.Trainer(run, model, train.new_optimizer(run, model), data)


# Which device


OLD_DRIVER = RuntimeError("The NVIDIA driver on your system is too old (found version 12040). Please update it.\nMore lines")


@pytest.fixture
def gpu(monkeypatch):
    """Makes the system count a GPU of this capability, for which PyTorch has code for these architectures."""

    def here(capability, architectures=("sm_75", "sm_80", "sm_90", "compute_120")):
        def answer(device):
            if isinstance(capability, Exception):
                raise capability
            return capability

        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: not isinstance(capability, Exception))
        monkeypatch.setattr(torch.cuda, "get_device_capability", answer)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(architectures))

    return here


@pytest.mark.parametrize("device", [None, "cuda", "cuda:0"])
def test_a_gpu_whose_driver_is_too_old_is_no_reason_to_train_on_the_cpu(gpu, tmp_path, device):
    gpu(OLD_DRIVER)
    sentence = (
        r"cuda:0 cannot be used by PyTorch 2\.11.*: CUDA .* does not start \(The NVIDIA driver on your system is too old "
        r"\(found version 12040\)\. Please update it\); install what it asks for, or train on the CPU, where CUDA_VIS"
    )
    with pytest.raises(ValueError, match=sentence):
        train.fit(TINY, tmp_path, device=device, progress=False)
    with pytest.raises(ValueError, match=sentence):
        Study("smoke", outputs=tmp_path)
    assert not list(tmp_path.iterdir()) and machine.check_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    "capability, architectures, usable",
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 6), ["sm_80", "sm_90"], True),  # code for an architecture runs on later ones of its generation
        ((8, 0), ["sm_86", "sm_90"], False),
        ((7, 0), ["sm_75", "sm_80", "compute_120"], False),
        ((10, 0), ["sm_80", "sm_90a"], False),
        ((12, 0), ["sm_90", "compute_90"], True),  # which the driver compiles for what came later
    ],
)
def test_a_gpu_of_an_architecture_without_code_is_named(gpu, capability, architectures, usable):
    gpu(capability, architectures)
    if usable:
        assert machine.check_device(None) == machine.check_device("cuda") == torch.device("cuda:0")
        assert machine.gpus() == [torch.device("cuda:0")]
    else:
        with pytest.raises(
            ValueError, match=rf"its architecture is sm_{capability[0]}{capability[1]}, and there is code for sm_"
        ):
            machine.check_device(None)


SCARCE = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    torch.AcceleratorError("CUDA error: all CUDA-capable devices are busy or unavailable\nmore"),
)


@pytest.mark.parametrize("error", SCARCE)
def test_what_a_gpu_has_too_little_of_is_one_sentence(tmp_path, monkeypatch, error):
    def fails(self, size):
        raise error

    monkeypatch.setattr(train.Trainer, "step", fails)
    with pytest.raises(OSError, match=r"^CUDA.*; the same command goes on, and fewer trainings .*--jobs 1") as caught:
        train.fit(TINY, tmp_path, progress=False)
    assert "\n" not in str(caught.value)


def test_a_fault_of_a_gpu_is_not_called_scarce(tmp_path, monkeypatch):
    def fails(self, size):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(train.Trainer, "step", fails)
    with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
        train.fit(TINY, tmp_path, progress=False)


def test_a_gpus_driver_is_written_down(monkeypatch):
    class Driver:
        def cuDriverGetVersion(self, number):
            number._obj.value = 13020

    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: Driver())
    found = machine.of_gpu(torch.device("cuda:0"))
    assert found["driver"] == "CUDA 13.2" and "cuDNN" in found and machine.of_gpu(torch.device("cpu")) == {}
    assert machine.together({"device": "GPU", "driver": "CUDA 13.2"}, {"device": "CPU"}) == {
        "device": "GPU; CPU", "driver": "CUDA 13.2",
    }  # fmt: skip


def test_pytorchs_compiler_keeps_what_it_made_in_the_project():
    code = "import os; from lib import train; run = train.Run(n=1); train.new_optimizer(run, train.new_model(run))"
    env = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    command = [sys.executable, "-c", code + "; print(os.environ['TORCHINDUCTOR_CACHE_DIR'])"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(ROOT / ".cache" / "inductor")


# A step


@pytest.fixture
def plain(monkeypatch):
    """The form of the norms that a GPU takes."""
    monkeypatch.setattr("lib.engine.compiled.takes", lambda norm, x: False)


class Counting(TorchDispatchMode):
    calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        return function(*args, **kwargs or {})


#: Operations of forward and backward with n = 2, views included, and a few percent more.
CEILING = {"torch_bn": 280, "bn": 1570, "in": 1240, "bin": 1880, "ln": 1490, "gn": 1620, "nn": 215}


@pytest.mark.parametrize("norm", NORMS)
def test_all_of_a_step_lies_on_the_device(plain, monkeypatch, norm):
    """On the meta device, which has no values: a tensor on the CPU is an error there, and so is a question for a value."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())
    trainer = trainer_of(replace(TINY, norm=norm, n=2, clip_norm=1.0), "meta")
    monkeypatch.setattr(trainer.optimizer, "step", lambda: None)  # a fused one knows GPUs and CPUs only
    trainer.step(TINY.batch_size)
    with Counting() as counted:
        trainer.loss(trainer.plan[: TINY.batch_size])[0].backward()
    assert counted.calls <= CEILING[norm]


@pytest.mark.parametrize("changes", [{"norm": "bin"}, {"norm": "gn", "precision": "float32"}, {"ghost_batch": 8}])
def test_what_torch_compile_sees_is_one_graph_and_the_same_step(plain, changes):
    trained = []
    for way in ("plain", "compiled"):
        trainer = trainer_of(replace(TINY, clip_norm=1.0, **changes))
        if way == "compiled":
            trainer.full_loss = trainer.compiled_loss(backend="aot_eager")
            assert trainer.full_loss != trainer.loss
        found = trainer.epoch(1, tqdm(disable=True))
        trained.append([found["train_loss"], *trainer.model.state_dict().values()])
    assert trained[0][0] == pytest.approx(trained[1][0], rel=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(trained[0][1:], trained[1][1:], strict=True))


def test_without_a_compiler_it_is_trained_uncompiled_and_said(plain, capsys):
    def no_compiler(graph, inputs):
        raise RuntimeError("Failed to find C compiler")

    trainer = trainer_of(TINY)
    before = [buffer.clone() for buffer in trainer.model.buffers()]
    assert trainer.compiled_loss(backend=no_compiler) == trainer.loss
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and "is trained uncompiled, which is slower: torch.compile failed" in said[0]
    assert "Failed to find C compiler" in said[0]
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.buffers(), strict=True))
    assert all(p.grad is None for p in trainer.model.parameters())


def test_after_a_failed_capture_every_step_is_eager(monkeypatch, capsys):
    @contextlib.contextmanager
    def fails(graph, stream):
        yield
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    run = replace(TINY, train_size=128)
    trainer, plain = trainer_of(run), trainer_of(run)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", fails)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    done, real = [], train.Trainer.step

    def step(self, size):  # a capture records a step, and executes nothing
        done.append(size)
        if len(done) != 1 + train.Trainer.eager_steps:
            real(self, size)

    expected = plain.epoch(1, tqdm(disable=True))
    monkeypatch.setattr(train.Trainer, "step", step)
    for _ in range(trainer.prepare(1)):
        trainer.replay(run.batch_size)
    assert len(done) == trainer.steps + 1 and trainer.at == trainer.steps
    assert (trainer.loss_sum / trainer.count).item() == pytest.approx(expected["train_loss"])
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and said[0].endswith(
        "the capture failed (CUDA error: operation not permitted when stream is capturing)"
    )


def test_the_average_of_all_batches_asks_for_no_value():
    """momentum=None, against PyTorch's layer."""
    norm, reference = BatchNorm2d(3, momentum=None).double(), torch.nn.BatchNorm2d(3, momentum=None).double()
    for x in torch.randn(4, 5, 3, 2, 2).double():
        norm(x), reference(x)
    assert torch.allclose(norm.running_mean, reference.running_mean) and torch.allclose(norm.running_var, reference.running_var)
    ResNet(1, 10, "bn").to("meta")
    on_meta = BatchNorm2d(3, momentum=None).to("meta")
    on_meta(torch.randn(5, 3, 2, 2, device="meta"))


def test_a_device_is_left_as_it_was_found():
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic
    with machine.prepared(torch.device("cpu")):
        assert cudnn.deterministic and torch.get_num_threads() == 1
    assert cudnn.deterministic == before
