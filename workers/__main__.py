"""Train trials of a study on a shared server: `hpopt-worker train.py:main --study NAME --jobs 4`."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import hpopt
from workers.launcher import run

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s")
    sys.path.insert(0, str(_import_folder(arguments.train)))
    try:
        with hpopt.join(arguments.study, url=arguments.url, namespace=arguments.namespace) as hpo:
            run(arguments.train, hpo, arguments.jobs, progress=not arguments.quiet)
    except (hpopt.HpoptError, ValueError, RuntimeError) as error:
        print(f"hpopt-worker: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hpopt-worker", description="Train the trials of a study on this machine.")
    parser.add_argument("train", help="the training function: file.py:function or module:function")
    parser.add_argument("--study", required=True, help="name of the study")
    parser.add_argument("--url", help="the server, redis://host:port (default: HPOPT_URL)")
    parser.add_argument("--namespace", help='team on the server (default: HPOPT_NAMESPACE, or "default")')
    parser.add_argument("--jobs", type=int, default=1, help="how many trials to train at once (default: %(default)s)")
    parser.add_argument("--quiet", action="store_true", help="show problems only")
    return parser


def _import_folder(train: str) -> Path:
    """The folder that Python would import from if the training's file was run, or its module with -m."""
    where = train.rpartition(":")[0]
    return Path(where).absolute().parent if where.endswith(".py") else Path.cwd()


if __name__ == "__main__":
    sys.exit(main())
