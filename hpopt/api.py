"""The operator's side of the public API: create and join."""

import contextlib
import difflib
import inspect
import logging
import os
import re
import secrets
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgpack

from hpopt import distributed
from hpopt.client import FAILED, Inquiry
from hpopt.core import keys as names
from hpopt.core.address import check_url
from hpopt.core.codec import MAX_BYTES, encode
from hpopt.core.keys import StudyKeys
from hpopt.core.messages import Create, Created, Refusal
from hpopt.core.plan import Plan
from hpopt.core.schedule import Schedule
from hpopt.core.space import SearchSpace, Space
from hpopt.core.spec import RESERVED, StudySpec
from hpopt.core.validation import validated
from hpopt.embedded import EmbeddedServer
from hpopt.errors import HpoptUnavailable, StudyError, StudyExists, StudyReplaced, UnknownStudy
from hpopt.hpo import HpOpt
from hpopt.mirror import remove_files
from hpopt.outage import Patience
from hpopt.results import read_created
from hpopt.server import URL, Server, remember, server_at
from hpopt.session import session_name

NAMESPACE = "HPOPT_NAMESPACE"
"""Environment variable: the namespace on a shared server, "default" without it."""
RUNNER = "HPOPT_RUNNER"
"""Set in the processes of a local runner: "1" where it imports the script that started them, "command" in commands."""
CREATE_DEADLINE = 30.0
"""Seconds within which a study is created, or an error says why not."""
UNREACHABLE_AFTER = 10.0
LAUNCH_TIMEOUT = 300.0
"""Default of `launch_timeout` with the embedded server."""
ROOM = 8 * 1024
"""So much less than the longest message a study's arguments may be: the answer tells what became of them."""
MOST_SHOWN = 10
"""Names of studies in the error about one that is not there."""
ALGORITHMS = {"baye_opt": "bayes_opt", "smbo": "bayes_opt"}
"""Other spellings that the reference and its predecessor use."""

log = logging.getLogger("hpopt")


def create(  # noqa: PLR0917 - the reference gives these arguments an order
    full_dataset_size: int,
    num_full_iterations: int,
    search_space: Mapping[str, SearchSpace],
    save_path: str | os.PathLike[str] = "hpo",
    search_alg: str = "bayes_opt",
    early_stop: str | None = None,
    mode: str = "max",
    num_init_trials: int = 5,
    num_trials: int | None = None,
    max_iterations: int | None = None,
    min_iterations: int | None = None,
    reduction_factor: int = 2,
    num_brackets: int | None = None,
    subset_ratio: float | None = None,
    batch_size_name: str | None = None,
    image_resize: Sequence[int] = (0, 0),
    metric: str = "mAP",
    resume: bool = False,
    expected_time_ratio: float = 4,
    non_pure_train_ratio: float = 0.2,
    num_workers: int = 1,
    kappa: float = 2.576,
    kappa_decay: float = 1,
    kappa_decay_delay: int = 0,
    *,
    url: str | None = None,
    namespace: str | None = None,
    study: str | None = None,
    seed: int | None = None,
    default_hyper_parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    acquisition: str | None = None,
    overwrite: bool = False,
    launch_timeout: float | None = None,
    grace_period: float = 0.1,
    min_peers: int = 1,
    grace_trials: int = 0,
    lenient_every: int = 3,
    operator: str | None = None,
    **unknown: Any,
) -> HpOpt:
    """Begin a study, or go on with one, and return the operator's session with it.

    With a server (`url` or HPOPT_URL) the study is shared: any coordinator on that server runs it. Without one, a
    bundled server and a coordinator are started for as long as this process lives; their data stays in `save_path`.

    Args:
        full_dataset_size: Samples in the training set; 0 if unknown.
        num_full_iterations: Epochs of the training after the search.
        search_space: Name -> `hpopt.search_space(type, range)`.
        save_path: Folder of the results files, and of the embedded server's data.
        search_alg: "bayes_opt" or "asha".
        early_stop: None or "median_stop" (bayes_opt only).
        mode: "max" or "min".
        num_init_trials: Trials handed out before the model is used (bayes_opt only).
        num_trials: Trials in all; derived from `expected_time_ratio` if None.
        max_iterations: Iterations of a full trial; derived if None.
        min_iterations: Iterations that every trial gets (asha only).
        reduction_factor: At each rung the best 1/reduction_factor goes on (asha only).
        num_brackets: Brackets with rungs that begin later and later (asha only); None is 1.
        subset_ratio: Share of the training set to use, at least 500 samples; derived if None; 1 or more is all.
        batch_size_name: Hyper-parameter that is made smaller when a trial runs out of memory.
        image_resize: Width and height for images in this study; [0, 0] keeps them.
        metric: Name of the score.
        resume: Go on with the study of this name if there is one.
        expected_time_ratio: Time for the study, in full trainings; used for what is derived.
        non_pure_train_ratio: Share of a training's time that does not shrink with the training set.
        num_workers: Trials under way at once.
        kappa: Exploration of the upper confidence bound (bayes_opt only).
        kappa_decay: Factor on kappa for every ended trial.
        kappa_decay_delay: Ended trials before kappa begins to decay.
        url: Server, redis://, rediss://, unix:// or redis+sentinel://; HPOPT_URL if None.
        namespace: Team on a shared server; HPOPT_NAMESPACE or "default" if None.
        study: Name of the study; the last part of `save_path` if None.
        seed: Of everything random; drawn if None.
        default_hyper_parameters: One or more configurations to try first.
        acquisition: What the search maximizes: "ucb", the upper confidence bound with kappa; "log_ei", log expected
            improvement; "mix", the two by turns; "random": nothing, configurations are spread over the space without a
            model. None is "mix", or, in bayes_opt, "ucb" once one of the kappa arguments is given another value.
        overwrite: Replace an unfinished study of this name on a shared server.
        operator: Name of this operator, the same whenever it is started again: `HpOpt.get_open_samples` then also
            tells what it was handed before it was killed. Several operators of one name stand in for one another.
        unknown: Refused, with a hint at the argument that was meant.
        launch_timeout: Seconds after which a trial that was not started is handed out again, counted while fewer than
            `num_workers` are trained; None: never on a shared server, 300 with the embedded one.
        grace_period: Share of the iterations in which median_stop stops nobody; 0 is no grace.
        min_peers: Other trials that must have reached a step before median_stop stops anybody there.
        grace_trials: Trials, the first ones, that median_stop never stops.
        lenient_every: One trial in so many (the 3rd, 6th, ... by default) is stopped by median_stop only if it is also
            worse than the others were at half its step, so that what learns slowly and ends well is found; 1: every
            trial; 0: none.

    Raises:
        TypeError, ValueError: An argument is not what it may be; resume=True with other arguments than the study's.
        StudyExists: An unfinished study has this name on a shared server, and neither resume nor overwrite is given.
            With the embedded server a study in `save_path` is replaced unless `resume` is given.
        HpoptUnavailable, NoCoordinator: The server does not answer, or no coordinator runs there.
        EmbeddedError: The bundled server cannot be started; SavePathInUse and MissingExtra say more.
    """
    early_stop = _misspelled(early_stop, unknown)
    _check_caller()
    for name, flag in (("resume", resume), ("overwrite", overwrite)):
        if type(flag) is not bool:
            raise TypeError(f"{name}={flag!r}: pass True or False")
    session = session_name(operator)
    url = _server_url(url)
    if launch_timeout is None and url is None:
        launch_timeout = LAUNCH_TIMEOUT
    spec = _spec(
        full_dataset_size=full_dataset_size, num_full_iterations=num_full_iterations, search_space=search_space,
        search_alg=search_alg, early_stop=early_stop, mode=mode, num_init_trials=num_init_trials,
        num_trials=num_trials, max_iterations=max_iterations, min_iterations=min_iterations,
        reduction_factor=reduction_factor, num_brackets=num_brackets, subset_ratio=subset_ratio,
        batch_size_name=batch_size_name, image_resize=image_resize, metric=metric,
        expected_time_ratio=expected_time_ratio, non_pure_train_ratio=non_pure_train_ratio, num_workers=num_workers,
        kappa=kappa, kappa_decay=kappa_decay, kappa_decay_delay=kappa_decay_delay, acquisition=acquisition,
        seed=seed, default_hyper_parameters=default_hyper_parameters, launch_timeout=launch_timeout,
        grace_period=grace_period, min_peers=min_peers, grace_trials=grace_trials,
        lenient_every=lenient_every,
    )  # fmt: skip
    folder = _folder(save_path)
    keys = StudyKeys(_namespace(namespace), study if study is not None else _study_name(folder, url))
    folder = folder.absolute()  # the results go there wherever this process goes
    event = Create(secrets.token_hex(8), session, spec, resume, overwrite, private=url is None)
    _check_size(event)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise _no_folder(save_path, error) from None
    return _begin(keys, event, folder, url, found=resume and study is None)


def join(study: str, url: str | None = None, namespace: str | None = None, operator: str | None = None) -> HpOpt:
    """A further operator's session with a study that exists on a shared server; `operator`: its name, as in `create`.

    Raises UnknownStudy when there is none, ValueError when neither `url` nor HPOPT_URL says where the server is.
    """
    session = session_name(operator)
    url = _server_url(url)
    if url is None:
        raise ValueError(f"url=None: pass the server's URL, or set {URL}")
    keys = StudyKeys(_namespace(namespace), study)
    server = server_at(url)
    created = server.client.outlast(lambda: _existing(server, keys), Patience(None, UNREACHABLE_AFTER))
    return HpOpt(server, keys, session, created, save_path=None, shown_url=remember(url))


# --- arguments


def _misspelled(early_stop: str | None, unknown: dict[str, Any]) -> str | None:
    """`early_stop`, also as the reference's example spells it. Raises TypeError for any other unknown argument."""
    if "ealry_stop" in unknown:
        if early_stop is not None:
            raise TypeError("early_stop and ealry_stop are the same argument: pass early_stop only")
        warnings.warn("ealry_stop is spelled early_stop", DeprecationWarning, stacklevel=3)
        early_stop = unknown.pop("ealry_stop")
    for name in unknown:
        known = inspect.signature(create).parameters.keys() - {"unknown"}
        close = difflib.get_close_matches(name, known, n=1)
        hint = f": did you mean {close[0]}?" if close else ""
        raise TypeError(f"create() has no argument {name!r}{hint}")
    return early_stop


def _spec(**arguments: Any) -> StudySpec:
    """The arguments as a checked spec."""
    values = {name: _plain(value) for name, value in arguments.items()}
    space = arguments["search_space"]
    values["search_space"] = space if isinstance(space, Space) else Space(space)
    values["image_resize"] = _pair(arguments["image_resize"])
    values["default_hyper_parameters"] = _defaults(arguments["default_hyper_parameters"])
    if isinstance(values["search_alg"], str):
        values["search_alg"] = ALGORITHMS.get(values["search_alg"], values["search_alg"])
    spec = validated(StudySpec(**values))
    for name in sorted(RESERVED & spec.search_space.keys()):
        log.warning('hpopt: the hyper-parameter %r is reachable as config["params"][%r] only', name, name)
    return spec


def _plain(value: Any) -> Any:
    """Numbers of numpy as those of Python; everything else as it is."""
    return value.item() if hasattr(value, "dtype") and getattr(value, "ndim", None) == 0 else value


def _pair(value: Any) -> Any:
    """image_resize as a tuple, whatever sequence it was."""
    if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__getitem__"):
        raise TypeError(f"image_resize={value!r}: pass two ints, the width and the height")
    return tuple(_plain(side) for side in value)


def _defaults(value: Any) -> Any:
    if value is None:
        return ()
    if isinstance(value, Mapping):
        return (dict(value),)
    return tuple(value) if isinstance(value, Sequence) else value


def _server_url(url: str | None) -> str | None:
    """The server's URL, from the environment if it is not given; None for the embedded one."""
    url = url if url is not None else os.environ.get(URL) or None
    return None if url is None else check_url(url)


def _folder(save_path: Any) -> Path:
    if not isinstance(save_path, str | os.PathLike):
        raise TypeError(f"save_path={save_path!r}: pass the path of a folder, as a str or a Path")
    folder = Path(save_path)
    try:
        usable = bool(os.fspath(save_path)) and (folder.is_dir() or not folder.exists())
    except OSError as error:  # for instance too long
        raise _no_folder(save_path, error) from None
    if not usable:
        raise _no_folder(save_path, None)
    return folder


def _no_folder(save_path: Any, error: Exception | None) -> ValueError:
    why = f" ({getattr(error, 'strerror', None) or error})" if error is not None else ""
    return ValueError(f"save_path={str(save_path)!r} is no folder{why}: pass the path of one, which may be new")


def _namespace(namespace: str | None) -> str:
    return namespace if namespace is not None else os.environ.get(NAMESPACE) or "default"


def _study_name(folder: Path, url: str | None) -> str:
    """The study's name when none is given: the folder's.

    In a folder of its own it is made of the characters that a name may have; where others have theirs, two folders
    must not become one study.
    """
    name = Path(os.path.normpath(folder.absolute())).name
    usable = re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:64] or "hpo"
    if url is not None and folder == Path("hpo"):
        raise ValueError("save_path='hpo' names no study on a shared server: pass study= (or a save_path of your own)")
    if url is not None and name != usable:
        raise ValueError(
            f"save_path={str(folder)!r} names no study on a shared server, where {name!r} is no name: pass study= with "
            "1 to 64 of the characters A-Z a-z 0-9 _ . -"
        )
    return usable


def _check_caller() -> None:
    """Raise RuntimeError where create cannot be meant: in a runner's import of the script, or on a rank above 0."""
    if os.environ.get(RUNNER) == "1":
        raise RuntimeError(
            "hpopt.create() was called in a process that trains for a runner, which imports this script: put it under "
            'if __name__ == "__main__":, and look at the study in train(config) with hpopt.join(...)'
        )
    if os.environ.get(RUNNER) == "command":
        raise RuntimeError(
            "hpopt.create() was called by a command that hpopt-worker runs for a trial: such a command trains one "
            'config, json.loads(os.environ["HPOPT_CONFIG"]), and calls hpopt.report'
        )
    distributed.refuse_create()


# --- the round trip


def _check_size(event: Create) -> None:
    """Raise ValueError where the arguments are more than a message may hold; the answer has them, and some more."""
    size, most = len(encode(event)), MAX_BYTES - ROOM
    if size > most:
        wire = event.spec.to_wire()
        parts = {name: len(msgpack.packb(wire[name])) for name in ("search_space", "default_hyper_parameters")}
        largest = max(parts, key=lambda name: parts[name])
        raise ValueError(
            f"the arguments take {size} bytes, {most} are allowed, and {largest} alone takes {parts[largest]}: pass "
            "short names, or numbers, and map them in your trainer, or fewer of them"
        )


def _begin(keys: StudyKeys, event: Create, folder: Path, url: str | None, *, found: bool) -> HpOpt:
    """`found`: if the folder has no study of this name, the one that it has is meant."""
    embedded = EmbeddedServer.start(folder) if url is None else None
    full_url = embedded.url if embedded is not None else str(url)
    try:
        server = server_at(full_url)
        if embedded is not None:
            server.client.forget_connections()  # those to an earlier server at the same place, which has ended
            keys = _kept(server, keys) if found else keys
        created = _created(server, keys, event)
        if not event.resume:
            remove_files(folder)
        plan = Plan.of(created.spec, Schedule.from_wire(created.schedule))
        if plan.derived:
            log.warning("hpopt: %s", plan)
        for notice in created.notices:
            log.warning("hpopt: %s", notice)
        hpo = HpOpt(server, keys, event.session, created, save_path=folder, shown_url=remember(full_url))
    except BaseException:
        if embedded is not None:
            embedded.close()
        raise
    if embedded is not None:
        hpo.on_close(embedded.close)
    return hpo


def _kept(server: Server, keys: StudyKeys) -> StudyKeys:
    """The study to go on with in a folder: the one of this name, else the only one; the folder may have been renamed.

    Raises ValueError when it may be one of several.
    """
    paths: Any = server.client.get("SMEMBERS", names.STUDIES)
    known = (StudyKeys(*path.decode().split("/", 1)) for path in sorted(paths))
    there = [each for each in known if read_created(server.client, each) is not None]
    if not there or keys.path in {each.path for each in there}:
        return keys
    if len(there) > 1:
        shown = ", ".join(repr(each.study) for each in there[:MOST_SHOWN])
        raise ValueError(
            f"resume=True: the folder has no study {keys.path!r}, but the studies {shown}: pass study= with one of them"
        )
    if there[0].study != keys.study:
        log.info("hpopt: going on with the study %r", there[0].study)
    return there[0]


def _created(server: Server, keys: StudyKeys, event: Create) -> Created:
    hints = (("SADD", names.STUDIES, keys.path), ("XADD", names.CREATED, "MAXLEN", 1000, "*", "s", keys.path))
    inquiry = Inquiry(keys.inbox, event, keys.replies(event.session), extra=hints, make=True, study=keys.path)
    answer: Created | Refusal
    try:
        answer = server.client.ask(inquiry, _create_answer, Patience(CREATE_DEADLINE, UNREACHABLE_AFTER))
    except TimeoutError:
        raise HpoptUnavailable(
            f"the coordinator on {server.client.shown} did not create {keys.path!r} within {CREATE_DEADLINE:g} s: its "
            "log says why"
        ) from None
    if isinstance(answer, Refusal):
        raise _refused(answer, keys.path)
    return answer


def _create_answer(found: Any) -> Any:
    return found if isinstance(found, Created) or (isinstance(found, Refusal) and found.n == -1) else None


def _refused(refusal: Refusal, study: str) -> Exception:
    if refusal.code == "spec":
        return ValueError(refusal.message)
    if refusal.code == "exists":
        return StudyExists(
            f"the study {study!r} exists: {refusal.message}. Pass resume=True to go on with it, overwrite=True to "
            "replace it, or another study= or save_path="
        )
    return StudyReplaced(f"{study}: {refusal.message}") if refusal.code == "replaced" else StudyError(refusal.message)


def _existing(server: Server, keys: StudyKeys) -> Created:
    """What the study's creation was answered with, read from what is stored."""
    created = read_created(server.client, keys)
    if created is None:
        where = f"{keys.path!r} on {server.client.shown}"
        raise UnknownStudy(f"there is no study {where}: {_others(server, keys)}")
    return created


def _others(server: Server, keys: StudyKeys) -> str:
    """What may have been meant: the studies that are there in this namespace."""
    paths: Any = ()
    with contextlib.suppress(*FAILED):  # not every role may read this
        paths = server.client.get("SMEMBERS", names.STUDIES)
    spaced = (path.decode(errors="replace").partition("/") for path in paths)
    there = sorted(study for namespace, _, study in spaced if namespace == keys.namespace)
    if close := difflib.get_close_matches(keys.study, there, n=1):
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(map(repr, there[:MOST_SHOWN])) + (", ..." if there[MOST_SHOWN:] else "")
    have = f"in namespace {keys.namespace!r} there is {shown or 'none'}"
    return f"{have}; check the study's name, the namespace and the URL"
