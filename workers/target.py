"""Which function trains a trial, as a text that another process can load it by. Nothing is ever pickled.

    train in a module      "package.module:train"     imported by that name
    train in the script    "/path/script.py:train"    imported by its file, under another name
    train in a notebook    no text: the process that has it is forked (Linux)

So a script's own code belongs under `if __name__ == "__main__":`.
"""

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

Train = Callable[[dict[str, Any]], object]

SCRIPT = "__mp_main__"
"""The name under which a script is imported. It is the one that multiprocessing uses for this, so that processes which
the training itself spawns (the workers of a DataLoader) can unpickle what the script defines."""

_MOVE = "write a function at the top level of a file, and pass that"


class NotThereError(ValueError):
    """The module has no such function, or there is no such module; the text is all that the user needs."""


def target_of(train: Train | str) -> str | None:
    """The text for `train`, itself such a text or a function; None for one that only exists in this process.

    Raises TypeError or ValueError, with the remedy, for what another process could not find.
    """
    if isinstance(train, str):
        return _checked(train)
    if not inspect.isfunction(train):
        kind = "a bound method" if inspect.ismethod(train) else f"of type {type(train).__name__}"
        raise TypeError(f"train={train!r} is {kind}, which another process cannot import: {_MOVE}")
    if train.__name__ == "<lambda>" or "<locals>" in train.__qualname__:
        raise ValueError(f"train={train.__qualname__} is a lambda or a nested function: {_MOVE}")
    where = _module_of(train)
    if where is None and sys.platform != "linux":
        raise ValueError(f"train={train.__qualname__} is defined in an interactive session: {_MOVE}")
    return None if where is None else f"{where}:{train.__qualname__}"


def load(target: str) -> Train:
    """The function that a text names. Raises NotThereError, or whatever importing its module raises."""
    where, _, name = target.rpartition(":")
    try:
        module = _import_script(where) if where.endswith(".py") else importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{where}.".startswith(f"{error.name}."):
            raise  # the module is there, and misses another one
        raise NotThereError(
            f"train={target!r}: there is no module {error.name!r} in this folder or among the installed ones; "
            'pass "file.py:function" for a file'
        ) from None
    try:
        train: Any = reduce(getattr, name.split("."), module)
    except AttributeError:
        raise NotThereError(f"train={target!r}: {_nothing_called(name, module)}") from None
    if not callable(train):
        raise NotThereError(f"train={target!r}: {name} is no function, but {train!r:.80}")
    return train  # type: ignore[no-any-return]


def _nothing_called(name: str, module: Any) -> str:
    functions = [each for each, found in vars(module).items() if inspect.isfunction(found) and each[0] != "_"]
    own = [each for each in functions if vars(module)[each].__module__ == module.__name__]
    close = difflib.get_close_matches(name, functions, n=1)
    hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(own) or 'no function'}"
    return f"there is no {name} in it; {hint}"


def _checked(text: str) -> str:
    where, _, name = text.rpartition(":")
    if not where or not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f'train={text!r}: pass "file.py:function" or "module:function"')
    if not where.endswith(".py"):
        return text
    path = Path(where).absolute()
    if not path.is_file():
        raise ValueError(f"train={text!r}: there is no file {path}")
    return f"{path}:{name}"


def _module_of(train: Any) -> str | None:
    """Where to import the function from: a module's name or a script's path; None if it is in neither."""
    name = train.__module__
    module = sys.modules.get(name)
    try:
        found = reduce(getattr, train.__qualname__.split("."), module)
    except AttributeError:
        found = None
    if found is not train:
        raise ValueError(f"train is not what {name}:{train.__qualname__} names (is it decorated?): {_MOVE}")
    if name not in ("__main__", SCRIPT):
        return str(name)
    spec = getattr(module, "__spec__", None)
    if spec is not None:
        return str(spec.name)  # python -m package.module
    path = getattr(module, "__file__", None)
    return str(Path(path).absolute()) if path and Path(path).is_file() else None


def _import_script(path: str) -> Any:
    """Import a script's file as the main module of this process, under another name."""
    spec = importlib.util.spec_from_file_location(SCRIPT, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[SCRIPT] = sys.modules["__main__"] = module
    spec.loader.exec_module(module)
    module.__spec__ = None  # as for a script that was run: multiprocessing goes by its path then
    return module
