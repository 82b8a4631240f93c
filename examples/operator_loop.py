"""The operator alone: asks for samples and launches one training job for each. It never trains anything itself.

    hpopt-coordinator --serve /tmp/hpopt-server     # in another terminal: prints the HPOPT_URL to use
    export HPOPT_URL=...
    python examples/operator_loop.py

Here a job is a process on this machine; on a cluster it is whatever takes the config as JSON: a pod, a Slurm job, a
custom resource. Operator and trainers talk to nothing but the server. Kill this script at any time and start it again:
it goes on where it was.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import hpopt

TRAINER = Path(__file__).with_name("trainer.py")
SPACE = {
    "lr": hpopt.search_space("loguniform", [0.0001, 0.1]),
    "bs": hpopt.search_space("qloguniform", [8, 256, 4]),
}


def launch(config: dict[str, Any]) -> subprocess.Popen[bytes]:
    """One training job. All it gets is the config."""
    print(f"trial {config['trial_id']}: {config['params']}", flush=True)
    return subprocess.Popen([sys.executable, str(TRAINER), json.dumps(config)])


def main() -> None:
    """The loop: one job per sample, until there are no more."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--study", default="operator-example", help="name on the server (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=12, help="how many to run (default: %(default)s)")
    arguments = parser.parse_args()
    with hpopt.create(
        full_dataset_size=10_000,
        num_full_iterations=10,
        search_space=SPACE,
        save_path=f"hpo_{arguments.study}",
        study=arguments.study,
        search_alg="bayes_opt",
        early_stop="median_stop",
        num_trials=arguments.trials,
        max_iterations=10,
        subset_ratio=1.0,
        num_workers=2,
        launch_timeout=300,
        resume=True,
    ) as hpo:
        jobs = []
        while (config := hpo.get_next_sample()) is not None:
            jobs.append(launch(config))
        for job in jobs:
            job.wait()
        hpo.print_results()
        print("best:", hpo.get_best_config(wait=True))


if __name__ == "__main__":
    main()
