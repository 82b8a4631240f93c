"""Which errors say that memory ran out, and what is freed then."""

import mmap
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.utils.data import DataLoader, Dataset

import hpopt
from hpopt.memory import in_short, kernel_kills, let_go, says_killed

HELP = "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be"
SAID = {
    "cuda": "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.77 GiB",
    "hip": "HIP out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity of 15.98 GiB",
    "xpu": "XPU out of memory. Tried to allocate 59.61 GiB. GPU 0 has a total capacity of 28.55 GiB",
    "mps": "MPS backend out of memory (MPS allocated: 9.04 GB, other allocations: 3.92 MB, max allowed: 9.07 GB).",
    "npu": "NPU out of memory. Tried to allocate 2.00 GiB (NPU 0; 29.50 GiB total capacity)",
    "cuda runtime": f"CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in https://docs.nvidia.com{HELP}",
    "hip runtime": f"HIP error: out of memory{HELP}",
    "malloc async": "Allocation on device 0 would exceed allowed memory. (out of memory)\nCurrently allocated: 9 GiB",
    "cublas": "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cudnn": "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cudnn 9": "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cusolver": "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
    "cusparse": "CUDA error: CUSPARSE_STATUS_ALLOC_FAILED when calling `cusparseCreate(handle)`",
    "cufft": "cuFFT error: CUFFT_ALLOC_FAILED",
    "nccl": (
        "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.cpp:94, unhandled cuda error, NCCL version 2.27.3\n"
        "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'"
    ),
    "nccl before 2.20": "NCCL WARN Cuda failure 'out of memory'",
    "driver": "Triton Error [CUDA]: CUDA_ERROR_OUT_OF_MEMORY",
    "level zero": "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
    "thrust": "after reduction step 1: cudaErrorMemoryAllocation: out of memory",
    "cpu": (
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 4000000000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "cpu on Windows": "[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory: you tried to",
    "shared memory": "unable to mmap 4096 bytes from file </torch_123_456_0>: Cannot allocate memory (12)",
    "c++": "std::bad_alloc",
    "jax": "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 bytes.",
    "jax on tpu": "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm.",
    "tensorflow": "OOM when allocating tensor with shape[64,512,512] and type float on /device:GPU:0",
}
"""What libraries say, as plain RuntimeErrors or in the text of another process's error."""
OTHERS = {
    "shapes": "The size of tensor a (3) must match the size of tensor b (4) at non-singleton dimension 0",
    "assertion": f"CUDA error: device-side assert triggered{HELP}",
    "address": "CUDA error: an illegal memory access was encountered",
    "registers": "out of resource: shared memory, Required: 131072, Hardware limit: 101376.",
    "handle": "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cudnn": "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input.",
    "killed": "DataLoader worker (pid 28841) is killed by signal: Killed. ",
    "shm": "DataLoader worker (pid 7) is killed by signal: Bus error. Its workers may be out of shared memory.",
    "server": "OOM command not allowed when used memory > 'maxmemory'.",
    "words": "the cache is out of memory slots",
    "nothing": "",
}


def caught(work: Callable[[], object]) -> BaseException:
    """The error that it raises."""
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - whatever it is
        return error
    raise AssertionError("nothing was raised")


def chained(error: BaseException, *, cause: BaseException | None = None, during: BaseException | None = None) -> Any:
    """The error, raised from the cause, or while another was handled."""

    def raise_it() -> None:
        if cause is not None:
            raise error from cause
        try:
            raise during or error
        finally:
            raise error

    return caught(raise_it)


class Hungry(Dataset[torch.Tensor]):
    """Its samples need more memory than there is, in whichever process they are made."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.zeros(10**15)


# --- what is recognised


@pytest.mark.parametrize("text", SAID.values(), ids=SAID)
def test_what_libraries_say(text: str) -> None:
    """By the words of a RuntimeError; in the text of an error that another process has sent, too."""
    assert hpopt.is_out_of_memory(RuntimeError(text))
    sent = f"\n\n-- Process 3 terminated with the following error:\nTraceback (most recent call last):\nX: {text}"
    assert hpopt.is_out_of_memory(ProcessRaisedException(sent, 3, 4711))


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS)
def test_what_is_something_else(text: str) -> None:
    """Errors that are no proof of memory that ran out are crashes."""
    assert not hpopt.is_out_of_memory(RuntimeError(text))


@pytest.mark.parametrize(
    "work",
    [
        lambda: torch.zeros(10**15),
        lambda: torch.nn.Linear(10**8, 10**8),
        lambda: np.zeros(10**15),
        lambda: bytearray(10**18),
        lambda: [0] * 10**18,
        lambda: mmap.mmap(-1, 2**62),
        lambda: list(DataLoader(Hungry(), batch_size=2)),
    ],
    ids=["torch", "module", "numpy", "python", "list", "system", "data loader"],
)
def test_what_is_raised_in_earnest(work: Callable[[], object]) -> None:
    """Allocations that no machine can serve, made by those who make them in trainings."""
    assert hpopt.is_out_of_memory(caught(work))


def test_what_a_worker_of_a_data_loader_raises() -> None:
    """The error of the worker arrives with its text in that of the training."""
    error = caught(lambda: list(DataLoader(Hungry(), batch_size=2, num_workers=1, multiprocessing_context="spawn")))
    assert "DataLoader worker process 0" in str(error)
    assert hpopt.is_out_of_memory(error)


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, MemoryError])
def test_classes(kind: type[Exception]) -> None:
    """The class is enough, whatever it says; also one derived from it."""
    assert torch.cuda.OutOfMemoryError is torch.OutOfMemoryError
    assert hpopt.is_out_of_memory(kind())
    assert hpopt.is_out_of_memory(type("Mine", (kind,), {})("so sad"))


@pytest.mark.parametrize("module", ["torch.cuda", "tensorflow.python.framework.errors_impl"])
def test_classes_of_libraries_that_are_not_here(module: str) -> None:
    """They are known by name."""
    name = "OutOfMemoryError" if module == "torch.cuda" else "ResourceExhaustedError"
    assert hpopt.is_out_of_memory(type(name, (RuntimeError,), {"__module__": module})())
    assert not hpopt.is_out_of_memory(type(name, (RuntimeError,), {"__module__": "somewhere.else"})())


def test_accelerator_error() -> None:
    """What torch raises since 2.8 where it used to raise a RuntimeError."""
    assert hpopt.is_out_of_memory(torch.AcceleratorError(SAID["cuda runtime"]))
    assert not hpopt.is_out_of_memory(torch.AcceleratorError(OTHERS["assertion"]))


def test_what_an_error_came_of() -> None:
    """Through `from`, what was being handled, groups, and all of these together; not past `from None`."""
    ran_out = MemoryError()
    assert hpopt.is_out_of_memory(chained(ValueError("cannot go on"), cause=ran_out))
    assert hpopt.is_out_of_memory(chained(ValueError("cannot go on"), during=ran_out))
    assert hpopt.is_out_of_memory(ExceptionGroup("tasks", [KeyError(), ExceptionGroup("more", [ran_out])]))
    assert hpopt.is_out_of_memory(
        chained(SystemExit(1), cause=ExceptionGroup("tasks", [chained(KeyError(), cause=ran_out)]))
    )
    assert not hpopt.is_out_of_memory(chained(ValueError(), during=KeyError()))
    hidden = chained(ValueError("cannot go on"), during=ran_out)
    hidden.__suppress_context__ = True
    assert not hpopt.is_out_of_memory(hidden)


def test_errors_that_go_in_circles() -> None:
    """Two errors that are each other's cause are looked at once."""
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert not hpopt.is_out_of_memory(one)


def test_an_error_that_cannot_be_shown() -> None:
    """A class with a broken __str__ is no reason to raise another error."""

    def broken(_self: Exception) -> str:
        raise KeyError("no text")

    error = type("Broken", (Exception,), {"__str__": broken})()
    assert not hpopt.is_out_of_memory(error)
    assert hpopt.is_out_of_memory(chained(error, cause=MemoryError()))
    assert in_short(error) == "Broken"


def test_errors_in_short() -> None:
    """One line, not too long."""
    assert in_short(MemoryError()) == "MemoryError"
    assert in_short(RuntimeError(SAID["cuda runtime"])) == "RuntimeError: CUDA error: out of memory"
    assert len(in_short(ValueError("x" * 999))) == 200


def test_torch_is_not_loaded_for_it() -> None:
    """A trainer without torch does not get it from here."""
    code = "import hpopt, sys; print(hpopt.is_out_of_memory(MemoryError()), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


# --- what is freed


class Tensor:
    """Something that a weak reference can be made to."""


def run_out(kept: list["weakref.ref[Tensor]"]) -> None:
    """Run out of memory with a tensor in a variable, and one in a function that has ended already."""
    tensor = Tensor()
    kept.append(weakref.ref(tensor))

    def inner() -> None:
        activation = Tensor()
        kept.append(weakref.ref(activation))
        try:
            bytearray(10**18)
        except MemoryError as error:
            raise RuntimeError("no step") from error

    inner()


def test_an_error_lets_go_of_variables() -> None:
    """Until then all variables of the functions that it has ended are kept by it."""
    kept: list[weakref.ref[Tensor]] = []
    error = caught(lambda: run_out(kept))
    assert all(each() is not None for each in kept)
    let_go(error)
    assert [each() for each in kept] == [None, None]
    assert isinstance(error, RuntimeError)


def test_caches_of_accelerators_are_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that are in use here; an accelerator that refuses it is left alone."""
    emptied = []

    def backend(name: str, in_use: bool, error: Exception | None = None) -> SimpleNamespace:
        def empty_cache() -> None:
            emptied.append(name)
            if error is not None:
                raise error

        return SimpleNamespace(is_initialized=lambda: in_use, is_available=lambda: in_use, empty_cache=empty_cache)

    mps = backend("mps", in_use=True)
    fake = SimpleNamespace(cuda=backend("cuda", in_use=True), xpu=backend("xpu", in_use=False), mps=mps)
    fake.backends = SimpleNamespace(mps=mps)
    monkeypatch.setitem(sys.modules, "torch", fake)
    let_go(MemoryError())
    assert emptied == ["cuda", "mps"]
    fake.cuda = backend("cuda", in_use=True, error=RuntimeError("CUDA error: device-side assert triggered"))
    let_go(MemoryError())
    monkeypatch.delitem(sys.modules, "torch")
    let_go(MemoryError())


# --- what the kernel has done


@pytest.mark.parametrize(
    ("own", "files", "kills"),
    [
        ("0::/user.slice/job\n", {"user.slice/job/memory.events": "low 0\noom 3\noom_kill 2\noom_group_kill 0\n"}, 2),
        ("0::/../../job\n", {"memory.events": "oom_kill 4\n"}, 4),
        ("0::/\n", {"memory.events": "oom_kill 1\n"}, 1),
        ("9:name=systemd:/\n4:memory:/job\n0::/\n", {"memory/job/memory.oom_control": "under_oom 0\noom_kill 5\n"}, 5),
        ("5:cpu,memory:/docker/1\n", {"memory/memory.oom_control": "oom_kill_disable 0\noom_kill 6\n"}, 6),
        ("4:memory:/job\n", {"memory/job/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n"}, 0),
        ("0::/job\n", {}, 0),
        ("2:cpu:/\n", {"memory.events": "oom_kill 1\n"}, 0),
        (None, {"memory.events": "oom_kill 1\n"}, 0),
    ],
    ids=[
        "v2",
        "v2 from outside",
        "v2 in a container",
        "v1",
        "v1 in a container",
        "old v1",
        "no file",
        "no group",
        "none",
    ],
)
def test_the_kernel_counts(own: str | None, files: dict[str, str], kills: int, tmp_path: Path) -> None:
    """In both versions of control groups, seen from the host and from a container; else nothing is known."""
    for name, text in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text)
    if own is not None:
        (tmp_path / "own").write_text(own)
    assert kernel_kills(tmp_path / "own", tmp_path / "cgroup") == kills


def test_the_kernel_counts_here() -> None:
    """Whatever this machine is, the question is answered."""
    assert kernel_kills() >= 0


@pytest.mark.parametrize(
    ("error", "killed"),
    [
        (RuntimeError("DataLoader worker (pid 28841) is killed by signal: Killed. "), True),
        (RuntimeError("DataLoader worker (pid(s) 28841, 28842) exited unexpectedly"), True),
        (subprocess.CalledProcessError(-9, ["train"]), True),
        (RuntimeError("Signal 9 (SIGKILL) received by PID 36071"), True),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Segmentation fault. "), False),
        (subprocess.CalledProcessError(1, ["train"]), False),
    ],
)
def test_what_is_said_of_killed_processes(error: Exception, killed: bool) -> None:
    """Not by whom they were killed, so it takes the kernel's word too."""
    assert says_killed(error) == killed
    assert says_killed(chained(ValueError("no batch"), cause=error)) == killed
    assert not hpopt.is_out_of_memory(error)
