"""A command as the trainer: its words, what is put into them, and how its last words are understood."""

import sys
from pathlib import Path
from typing import Any

import pytest

import hpopt
from hpopt.memory import says_killed
from workers.command import Command, CommandFailed, _last_words

CONFIG: dict[str, Any] = {
    "lr": 0.5, "params": {"lr": 0.5, "name": "a b", "flag": None, "sizes": [8, 16]}, "trial_id": 3, "attempt": 2,
    "iterations": 10,
}  # fmt: skip


def test_placeholders_are_filled_without_a_shell() -> None:
    """Text goes in as it is, everything else as JSON; braces around anything but a name stay."""
    words = (
        "true",
        "--lr={lr}",
        "{name}",
        "{flag}",
        "{sizes}",
        "{trial_id}/{attempt}/{iterations}",
        '{{lr}} {"a": {}}',
    )
    filled = Command(words).filled(CONFIG, "TEXT", "FILE")
    assert filled == ["true", "--lr=0.5", "a b", "null", "[8, 16]", "3/2/10", '{lr} {"a": {}}']
    assert Command(("true", "{config}", "@{config_file}")).filled(CONFIG, "TEXT", "FILE")[1:] == ["TEXT", "@FILE"]


def test_names_of_any_text() -> None:
    """A hyper-parameter may have a name with spaces, dots and braces; the longest name that fits is meant."""
    params = {"opt é": "adam", "opt": "sgd", "a.b": 1, "x}y": 2}
    config = {**CONFIG, "params": params}
    words = ("true", "{opt é}", "{opt}", "{a.b}", "{x}y}", "{{opt é}}", "{{opt}}")
    command = Command(words)
    command.check(params, checkpoints=False)
    assert command.filled(config, "TEXT", "FILE")[1:] == ["adam", "sgd", "1", "2", "{opt é}", "{opt}"]


@pytest.mark.parametrize(
    ("value", "why"), [("x" * 140_000, "140000 bytes, 131071 are allowed"), ("a\0b", "a zero byte")]
)
def test_what_is_no_word_of_a_command(value: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text that the system would not take is named, with the remedy; the file holds any config."""
    monkeypatch.setenv("HPOPT_LOG", f"host:{tmp_path / 'trial-3-2.log'}")
    config = {**CONFIG, "params": {"lr": value}}
    with pytest.raises(CommandFailed, match=rf"a word of the command has {why}.*: use \{{config_file\}} instead"):
        Command(("true", "{lr}")).train(config)


def test_a_config_that_no_variable_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the file, whole."""
    monkeypatch.setenv("HPOPT_LOG", f"host:{tmp_path / 'trial-3-2.log'}")
    monkeypatch.setenv("HPOPT_CONFIG", "of the trial that this worker is")
    script = "import json, os, sys; sys.exit('HPOPT_CONFIG' in os.environ or json.load(open(sys.argv[1]))['lr'] != 0.5)"
    config = {**CONFIG, "params": {"name": "x" * 140_000}}
    Command((sys.executable, "-c", script, "{config_file}")).train(config)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ((), "no command after --"),
        (("no-such-program", "x"), r"'no-such-program': there is no such program"),
        ((__file__,), r"this file may not be run: chmod \+x .*, or say what runs it, as in -- python /"),
        (("script.sh",), r"it is not on the PATH, but there is a file of this name: write \./script\.sh$"),
        (("python3", "-u", "no-such.py"), r"there is no file \S+/no-such\.py"),
        (("true", "{leraning_rate}"), r"\{leraning_rate\} stands .*: did you mean \{learning_rate\}\?"),
        (("true", "{x}"), r"\{x\} stands for nothing in this study: there are config, .*\{\{x\}\}"),
        (("true", "{checkpoint_dir}"), "pass --checkpoints DIR"),
    ],
)
def test_a_command_that_cannot_work_is_refused(
    words: tuple[str, ...], match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would only make trial after trial fail is found before one is asked for."""
    monkeypatch.chdir(tmp_path)
    Path("script.sh").touch(mode=0o700)
    with pytest.raises(ValueError, match=match):
        Command(words).check(["learning_rate"], checkpoints=False)


TORCHRUN = """\
[rank1]: Traceback (most recent call last):
[rank1]:   File "/train.py", line 6, in <module>
[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
[rank0]: Traceback (most recent call last):
[rank0]: RuntimeError: [gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:15594.
E1128 15:01:30.722000 5641 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 1) local_rank: 1
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
============================================================
"""
ACCELERATOR = """\
torch.AcceleratorError: CUDA error: out of memory
Search for `cudaErrorMemoryAllocation' in https://docs.nvidia.com/cuda for more information.
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""
ACCELERATE = """\
Traceback (most recent call last):
  File "/accelerate/commands/launch.py", line 1, in simple_launcher
subprocess.CalledProcessError: Command '['python', 'train.py']' returned non-zero exit status 1.
"""
CPU = "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 400 bytes."


@pytest.mark.parametrize(
    ("log", "is_memory"),
    [
        ("MemoryError\n", True),
        ("torch.OutOfMemoryError: CUDA out of memory.\n", True),
        (CPU, True),
        (f"{CPU}\nwandb: Synced 5 files\n\n", True),
        (ACCELERATOR, True),
        (TORCHRUN, True),
        (TORCHRUN.replace("torch.OutOfMemoryError: CUDA out of memory.", "ValueError: no data."), False),
        ("torch.OutOfMemoryError: CUDA out of memory.\n" + "epoch\n" * 40 + "no more data\n", False),
        (f"{CPU}\nTraceback (most recent call last):\nValueError: CUDA is no name\n", False),
        (f"{CPU}\n{ACCELERATE}", True),
        (f"{CPU}\nTraceback (most recent call last):\nValueError: no data\n{ACCELERATE}", False),
        ("terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n", True),
        ("Killed\n", False),
        ("", False),
    ],
    ids=[
        "python", "torch", "cpu", "more after it", "accelerator", "torchrun", "another rank's", "long ago", "another",
        "accelerate", "another of accelerate", "c++", "killed", "nothing",
    ],
)  # fmt: skip
def test_memory_that_ran_out_is_known_by_the_last_words_of_all_kinds(
    log: str, is_memory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the last traceback says it, or those of a launcher's ranks; what was said long ago does not count."""
    path = tmp_path / "trial-0-1.log"
    path.write_text(log)
    monkeypatch.setenv("HPOPT_LOG", f"host:{path}")
    with pytest.raises(CommandFailed, match="exit status 1") as failed:
        Command(("false",)).train(CONFIG)
    assert hpopt.is_out_of_memory(failed.value) == is_memory


KILLED_RANK = """\
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
train.py FAILED
Root Cause (first observed failure):
  exitcode  : -9 (pid: 5641)
  traceback : Signal 9 (SIGKILL) received by PID 5641
"""


@pytest.mark.parametrize(
    "log", [KILLED_RANK, "subprocess.CalledProcessError: Command '['python']' died with <Signals.SIGKILL: 9>.\n"]
)
def test_a_kill_is_known_by_a_launchers_last_words(log: str, tmp_path: Path) -> None:
    """Whether that was for want of memory the kernel is asked."""
    path = tmp_path / "trial-0-1.log"
    path.write_text(log)
    assert says_killed(_last_words(path))
