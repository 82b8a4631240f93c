"""In the place of torch.distributed."""

import sys
import types

import pytest


def load_torch(monkeypatch: pytest.MonkeyPatch, *, rank: int | None) -> None:
    """Stand in for a torch.distributed that is loaded, and initialised with this rank unless None."""
    module = types.ModuleType("torch.distributed")
    functions = {
        "is_available": lambda: True,
        "is_initialized": lambda: rank is not None,
        "get_rank": lambda: rank,
    }
    module.__dict__.update(functions)
    monkeypatch.setitem(sys.modules, "torch.distributed", module)
