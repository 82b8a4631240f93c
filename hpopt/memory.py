"""Did a training run out of memory? Then its trial is tried again with a smaller batch, and what it held is let go.

Nothing is imported here for that: what is not loaded cannot have been raised.
"""

import contextlib
import gc
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

_CLASSES = frozenset(
    {
        "builtins.MemoryError",  # numpy's and cupy's are derived from it
        "torch.OutOfMemoryError",
        "torch.cuda.OutOfMemoryError",  # its name before torch 2.5
        "tensorflow.python.framework.errors_impl.ResourceExhaustedError",
    }
)
"""By name; classes that are derived from them count too."""

_WORDS = re.compile(
    r"(CUDA|HIP|XPU|NPU|MPS backend) out of memory"  # torch's allocators, also in the text of another process's error
    r"|(CUDA|HIP) error: out of memory"  # AcceleratorError
    r"|would exceed allowed memory\. \(out of memory\)"  # cudaMallocAsync
    r"|failure (2 )?'out of memory'"  # NCCL and RCCL
    r"|[A-Z]_ALLOC(ATION)?_FAILED\b"  # cuBLAS, cuDNN, cuSOLVER, cuSPARSE, cuFFT
    r"|cudaErrorMemoryAllocation|hipErrorOutOfMemory|_OUT_OF_(DEVICE_|HOST_)?MEMORY\b"
    r"|DefaultCPUAllocator: (can't allocate|not enough) memory"
    r"|Cannot allocate memory"  # the operating system's words for ENOMEM
    r"|std::bad_alloc"
    r"|RESOURCE_EXHAUSTED: Out of memory|Ran out of memory in memory space"  # JAX
    r"|OOM when allocating tensor"  # TensorFlow
)
"""What is said by libraries that raise a RuntimeError of no particular kind."""

_KILLED = re.compile(r"SIGKILL|signal: Killed|DataLoader worker \(pid\(s\) [\d, ]+\) exited unexpectedly")
"""What is said of a process that somebody killed, the kernel or an administrator."""

_CGROUPS = Path("/sys/fs/cgroup")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error says that memory ran out, an accelerator's or the process's; never raises.

    So it does if that is true of what it was raised from, of what was being handled when it was raised, or of a member
    of the group that it is.
    """
    return any(_says_so(each) for each in _related(error))


def in_short(error: BaseException) -> str:
    """The error in one line of at most 200 characters."""
    return f"{type(error).__name__}: {_text(error)}".partition("\n")[0].removesuffix(": ")[:200]


def says_killed(error: BaseException) -> bool:
    """Whether this error says that a process which took part in the training was killed; not by whom."""
    return any(_KILLED.search(_text(each)) for each in _related(error))


def kernel_kills(own: Path = Path("/proc/self/cgroup"), root: Path = _CGROUPS) -> int:
    """How many processes of this one's control group the kernel has killed because memory ran out; 0 if not known."""
    for file in _counters(own, root):
        with contextlib.suppress(OSError):
            for line in file.read_text(encoding="ascii").splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def _counters(own: Path, root: Path) -> Iterator[Path]:
    """Where the kernel counts, in version 2 and 1 of control groups. A container may see its own group as the root."""
    with contextlib.suppress(OSError):  # no Linux
        for line in own.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield from (root / path.strip("/") / "memory.events", root / "memory.events")
            elif "memory" in controllers.split(","):
                group = root / "memory"
                yield from (group / path.strip("/") / "memory.oom_control", group / "memory.oom_control")


def let_go(error: BaseException) -> None:
    """Free the memory that an error holds on to: the variables of the functions it has ended, and torch's caches.

    Afterwards the next attempt, here or in another process, finds it free.
    """
    for each in _related(error):
        traceback.clear_frames(each.__traceback__)
    gc.collect()
    torch = sys.modules.get("torch")
    with contextlib.suppress(RuntimeError, AttributeError):  # of an accelerator in error, or a torch half imported
        for backend in (getattr(torch, name, None) for name in ("cuda", "xpu")):
            if backend is not None and backend.is_initialized():
                backend.empty_cache()
        if torch is not None and torch.backends.mps.is_available():
            torch.mps.empty_cache()


def _says_so(error: BaseException) -> bool:
    names = {f"{each.__module__}.{each.__qualname__}" for each in type(error).__mro__}
    return not names.isdisjoint(_CLASSES) or _WORDS.search(_text(error)) is not None


def _text(error: BaseException) -> str:
    """What the error says; "" if it cannot even say that."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - whoever made the class has made a mistake, which is not to hide the error
        return ""


def _related(error: BaseException) -> Iterator[BaseException]:
    """The error, and all that it came of."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting.append(each.__cause__ or (None if each.__suppress_context__ else each.__context__))
        waiting += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
