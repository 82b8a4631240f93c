"""Did a training run out of memory? Then the trial is tried again, with a smaller batch."""

import sys
from collections.abc import Iterator

_CLASSES = (
    ("torch", "OutOfMemoryError"),
    ("torch.cuda", "OutOfMemoryError"),
    ("tensorflow.errors", "ResourceExhaustedError"),
)
"""Looked up, not imported: what is not loaded cannot have been raised."""

_MESSAGES = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "HIP out of memory",
    "MPS backend out of memory",
    "XPU out of memory",
    "DefaultCPUAllocator: can't allocate memory",
    "RESOURCE_EXHAUSTED: Out of memory",
)
"""What libraries say that raise a plain RuntimeError, or that pass on another process's error as text."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error, or one that it was raised for, says that memory ran out."""
    kinds = tuple(_loaded_classes())
    return any(isinstance(each, kinds) or any(message in str(each) for message in _MESSAGES) for each in _causes(error))


def _loaded_classes() -> Iterator[type[BaseException]]:
    yield MemoryError
    for module, name in _CLASSES:
        found = getattr(sys.modules.get(module), name, None)
        if isinstance(found, type) and issubclass(found, BaseException):
            yield found


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
