"""A training that is a command: `hpopt-worker --study NAME -- python train.py {config}`.

The words of the command are given to the system as they are, without a shell. In each of them {config} becomes the
config as JSON, {config_file} the path of a file with it, {lr} the value of the hyper-parameter lr: text as it is,
everything else as JSON. {{lr}} stands for {lr} itself. Braces around anything but a name are left alone. A config that
is too long for an environment variable is in the file only.
"""

import difflib
import json
import os
import re
import reprlib
import shutil
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import hpopt
from workers.environment import CHECKPOINTS, LOG, RUNNER

_NAME = r"[\w.-]+"
"""What is taken for a name, though nothing is known of it."""
_LONGEST = 131_071
"""Bytes of one word of a command, or of a variable with its name: Linux takes no more."""
_FROM_CONFIG = ("trial_id", "attempt", "iterations")
_FOLDER = "checkpoint_dir"
_TAIL, _LAST = 16_384, 30
"""Bytes and lines at the end of a log in which a command's last words are looked for."""
_UNCAUGHT = re.compile(r"(?P<rank>\[rank\d+\]: )?([\w.]+\.)?(?P<name>\w*(Error|Exception|Interrupt))\b")
"""How the last line of a traceback begins; torch says whose it was, if there are ranks."""
_OF_LAUNCHERS = ("ChildFailedError", "CalledProcessError")
"""What launchers raise when a rank has failed; that one has said why."""


class CommandFailed(Exception):
    """The command ended with a status other than 0, or by a signal."""


class Command:
    """A command with its placeholders; `train` runs it for one trial, in a runner process."""

    def __init__(self, words: Sequence[str]) -> None:
        """Raises ValueError when there is no such program, or no such script for Python to run."""
        self.words = tuple(words)
        if not self.words:
            raise ValueError("there is no command after --: write it there, as in -- python train.py {config}")
        if shutil.which(self.words[0]) is None:
            raise ValueError(f"command={self.words[0]!r}: {_why_no_program(self.words[0])}")
        script = _script(self.words)
        if script is not None and not Path(script).is_file():
            raise ValueError(f"command={' '.join(self.words)!r}: there is no file {Path(script).absolute()}")

    def check(self, hyper_parameters: Collection[str], *, checkpoints: bool) -> None:
        """Raise ValueError for a placeholder that nothing could be put in the place of."""
        known = ["config", "config_file", *_FROM_CONFIG, *hyper_parameters]
        for name in (found for word in self.words for _, found in _named(known).findall(word) if found):
            if name == _FOLDER and checkpoints:
                continue
            if name == _FOLDER:
                raise ValueError("{checkpoint_dir} needs a folder: pass --checkpoints DIR")
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {{{close[0]}}}?" if close else f"there are {', '.join(known)}"
                raise ValueError(
                    f"{{{name}}} stands for nothing in this study: {hint} (for the text itself: {{{{{name}}}}})"
                )

    def train(self, config: dict[str, Any]) -> None:
        """Run the command to its end, with its output where this process's goes. An interruption is passed on to it.

        Raises CommandFailed when it fails; its cause says what its last words were.
        """
        log = Path(os.environ[LOG].partition(":")[2])
        environment = dict(os.environ)
        environment[RUNNER] = "command"
        if environment.get(CHECKPOINTS):
            folder = str(hpopt.checkpoint_dir(config))
            config = {**config, _FOLDER: folder}
            environment["HPOPT_CHECKPOINT_DIR"] = folder
        file = log.with_suffix(".json")
        text = json.dumps(config)
        file.write_text(text, encoding="utf-8")
        environment["HPOPT_CONFIG_FILE"] = str(file)
        environment.pop("HPOPT_CONFIG", None)  # this process may itself be a trial's
        if len(text) + len("HPOPT_CONFIG=") <= _LONGEST:
            environment["HPOPT_CONFIG"] = text
        words = self.filled(config, text, str(file))
        for word in words:
            _check_word(word)
        status = _run(words, environment)
        if status != 0:
            raise CommandFailed(_epitaph(status)) from _last_words(log)

    def filled(self, config: Mapping[str, Any], text: str, file: str) -> list[str]:
        """The words with everything in its place: `text` is the config as JSON, `file` the path of a file with it."""
        values = {name: _word(value) for name, value in config["params"].items()}
        values |= {name: _word(config[name]) for name in (*_FROM_CONFIG, _FOLDER) if name in config}
        values |= {"config": text, "config_file": file}
        named = _named(values)
        return [named.sub(lambda found: _put(found, values), word) for word in self.words]


def _named(names: Collection[str]) -> re.Pattern[str]:
    """What stands for itself, {{name}}, and what stands for a value, {name}; a name that is known may be any text."""
    name = "|".join([*map(re.escape, sorted(names, key=len, reverse=True)), _NAME])
    return re.compile(rf"\{{\{{({name})\}}\}}|\{{({name})\}}")


def _check_word(word: str) -> None:
    """Raise CommandFailed for what the system does not take as a word of a command."""
    size = len(os.fsencode(word))
    if size > _LONGEST or "\0" in word:
        why = f"{size} bytes, {_LONGEST} are allowed" if size > _LONGEST else "a zero byte in it"
        raise CommandFailed(f"a word of the command has {why} ({reprlib.repr(word)}): use {{config_file}} instead")


def _put(found: re.Match[str], values: Mapping[str, str]) -> str:
    literal, name = found.groups()
    return f"{{{literal}}}" if literal else values[name]


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _run(words: list[str], environment: dict[str, str]) -> int:
    """The exit status; of one that a signal ended, the signal's number below 0.

    After an interruption the command has until this process is killed, and everything that it has started with it.
    """
    process = subprocess.Popen(words, env=environment)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise


def _epitaph(status: int) -> str:
    if status > 0:
        return f"the command ended with exit status {status}"
    name = signal.Signals(-status).name
    return f"the command was killed by {name}" + (" (by the system, if memory ran out)" if name == "SIGKILL" else "")


def _last_words(log: Path) -> Exception:
    """What the command said at last, as the error that it stands for: memory that ran out is known by such words."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        lines = file.read().decode(errors="replace").rstrip().splitlines()
    uncaught = [(found, i) for i, line in enumerate(lines) if (found := _UNCAUGHT.match(line))]
    begin = max((i for _, i in uncaught), default=0)
    words = lines[begin:] if len(lines) - begin <= _LAST else lines[-3:]
    if uncaught and uncaught[-1][0]["name"] in _OF_LAUNCHERS:
        ranks = [lines[i] for found, i in uncaught if found["rank"]]
        before = [lines[i] for found, i in uncaught if found["name"] not in _OF_LAUNCHERS][-1:]
        words = [*(ranks or before), *words]
    names = {found["name"] for found in map(_UNCAUGHT.match, words) if found}
    kind = RuntimeError if names.isdisjoint({"MemoryError", "OutOfMemoryError"}) else MemoryError
    return kind("\n".join(words))


def _why_no_program(word: str) -> str:
    if not Path(word).is_file():
        return "there is no such program here; check the name and PATH"
    if os.access(word, os.X_OK):
        return f"it is not on the PATH, but there is a file of this name: write ./{word}"
    return f"this file may not be run: chmod +x {word}, or say what runs it, as in -- python {word}"


def _script(words: Sequence[str]) -> str | None:
    """The script that Python is to run, if that can be seen: the usual mistake is to be in another folder."""
    if not Path(words[0]).name.startswith("python"):
        return None
    named = next((word for word in words[1:] if not word.startswith("-") or word in ("-c", "-m")), "")
    return named if named.endswith(".py") and not _named([]).search(named) else None
