"""The operator as a program: one job for each sample of a study, in a cluster or in a folder.

    python -m examples.operator --study examples/operator/study.json \
        --template examples/operator/manifests/trial.json --directory /tmp/cluster

Kill it at any time and start it again: no job is lost, and none is created twice.
"""

import argparse
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import hpopt
from examples.operator.cluster import Cluster, ClusterError
from examples.operator.directory_cluster import DirectoryCluster
from examples.operator.kubectl_cluster import KubectlCluster
from examples.operator.loop import Operator
from examples.operator.manifest import Manifest, load, load_template

OPERATOR = "job-operator"
"""The name that all sessions of this program have in a study."""
PAUSED = 3
"""Exit status when trials keep failing: whoever starts the operator again says with it that they are mended."""

log = logging.getLogger(__name__)


def arguments_of(path: Path) -> dict[str, Any]:
    """The arguments for `hpopt.create` in a file; each entry of its search_space has a type and a range."""
    arguments = load(path)
    space = arguments.get("search_space")
    if not isinstance(arguments.get("study"), str) or not isinstance(space, dict):
        raise ValueError(f"{path}: give it a study, a name, and a search_space")  # noqa: TRY004 - a file's fault
    for own in ("resume", "overwrite", "url", "operator", "save_path"):
        if own in arguments:
            raise ValueError(f"{path}: leave out {own}, which is not the study's to say")
    try:
        arguments["search_space"] = {name: hpopt.search_space(**entry) for name, entry in space.items()}
    except TypeError as error:
        raise ValueError(f"{path}: search_space: {error}; each entry has a type and a range") from None
    return arguments


def cluster_of(options: argparse.Namespace, template: Manifest) -> Cluster:
    """Where jobs are to run."""
    if options.directory is not None:
        return DirectoryCluster(options.directory, template)
    return KubectlCluster(template, shlex.split(options.kubectl))


def operate(options: argparse.Namespace) -> int:
    """Run the study to its end; the exit status."""
    if not os.environ.get("HPOPT_URL"):
        raise ValueError("HPOPT_URL is not set: jobs that outlive their operator need a server that does, too")
    template, arguments = load_template(options.template), arguments_of(options.study)
    cluster = cluster_of(options, template)
    save_path = options.save_path or f"hpo_{arguments['study']}"
    with hpopt.create(**arguments, save_path=save_path, operator=OPERATOR, resume=True) as hpo:
        log.info("study %s, %d trials; Ctrl-C leaves its jobs running", hpo.study, hpo.spec.trials)
        operator = Operator(hpo, cluster, template, poll=options.poll, stop_after=options.stop_after)
        best = operator.run()
        hpo.print_results()
        print("best:", best, flush=True)
        if best is not None:
            operator.publish(best)
        operator.see_off_jobs()
        if options.clean_up:
            operator.clean_up()
    return 0 if best is not None else 1


def parser() -> argparse.ArgumentParser:
    """The options."""
    its = argparse.ArgumentParser(prog="python -m examples.operator", description=__doc__.partition("\n")[0])
    its.add_argument("--study", type=Path, required=True, help="JSON or YAML file: arguments of hpopt.create")
    its.add_argument("--template", type=Path, required=True, help="JSON or YAML file: the resource of a job")
    where = its.add_mutually_exclusive_group()
    where.add_argument("--directory", type=Path, help="put resources into this folder, which a controller watches")
    where.add_argument("--kubectl", default="kubectl", help="else: the command, with its options (default: kubectl)")
    its.add_argument("--save-path", help="folder of the results (default: hpo_STUDY)")
    its.add_argument("--poll", type=float, default=10.0, help="seconds between looks at the jobs (default: 10)")
    its.add_argument("--stop-after", type=float, default=60.0, help="seconds that a stopped job may take (default: 60)")
    its.add_argument("--clean-up", action="store_true", help="delete the jobs when the study has ended")
    return its


def main(arguments: list[str] | None = None) -> int:
    """What goes wrong is said in one line."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return operate(options)
    except hpopt.StudyPaused as error:
        print(error, file=sys.stderr)
        return PAUSED
    except (OSError, TypeError, ValueError, ClusterError, hpopt.HpoptError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("jobs go on; start this again to go on with the study", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
