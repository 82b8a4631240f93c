"""The pictures of docs/pictures.md: the small network of examples/digits.py, tuned with ASHA and with median stopping.

python -m benchmarks.pictures --output docs/pictures      # a few minutes; needs hpopt[local,torch,plot]
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image  # comes with matplotlib

import hpopt
import workers
from examples import digits
from hpopt.plot import KINDS, Kind, draw, from_folder

COLOURS = 200
"""As many as a picture needs: its file is a third of the size then."""
STUDIES: dict[str, dict[str, Any]] = {
    "digits-asha": {
        "search_alg": "asha", "min_iterations": 1, "max_iterations": 27, "reduction_factor": 3, "num_trials": 60,
    },
    "digits-median": {"early_stop": "median_stop", "max_iterations": 20, "num_trials": 32},
}  # fmt: skip


def tune(folder: Path, seed: int, **arguments: Any) -> None:
    """One study, whose results are in the folder afterwards."""
    with hpopt.create(
        full_dataset_size=len(digits.load().train),
        num_full_iterations=digits.EPOCHS,
        search_space=digits.SPACE,
        save_path=folder,
        mode="min",
        metric="log_loss",
        subset_ratio=1.0,
        num_workers=digits.JOBS,
        seed=seed,
        **arguments,
    ) as hpo:
        workers.run(digits.train, hpo, jobs=digits.JOBS, progress=False)


def make(results: Path, output: Path, seed: int) -> None:
    """Every study, and from its files the pictures."""
    output.mkdir(parents=True, exist_ok=True)
    wanted: list[tuple[str, Kind]] = [*(("digits-asha", kind) for kind in KINDS), ("digits-median", "curves")]
    for name, arguments in STUDIES.items():
        if not (results / name / "results.json").exists():
            tune(results / name, seed, **arguments)
    for name, kind in wanted:
        path = output / f"{name}-{kind}.png"
        draw(from_folder(results / name), kind, path)
        Image.open(path).quantize(COLOURS).save(path, optimize=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("docs/pictures"), help="where the pictures go")
    parser.add_argument("--results", type=Path, help="where the results stay, or already are; default: nowhere")
    parser.add_argument("--seed", type=int, default=0, help="of the search (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make(arguments.results or Path(folder), arguments.output, arguments.seed)


if __name__ == "__main__":  # the processes that run trials import this file
    main()
