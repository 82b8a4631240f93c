"""A distributed training: every trial is trained by four processes. Needs `pip install 'hpopt[local,torch]'`.

    python examples/ddp.py          # the whole study on this machine: torchrun for each trial

or, with the study on a shared server, on any machine that is to help:

    hpopt-worker --study ddp --checkpoints /shared/checkpoints -- \
        torchrun --standalone --nproc-per-node 4 --max-restarts 1 examples/ddp.py
"""

import json
import os
import subprocess
import sys
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import hpopt
import workers

SPACE = {
    "lr": hpopt.search_space("loguniform", [3e-3, 3e-1]),
    "bs": hpopt.search_space("qloguniform", [8, 64, 8]),
    "width": hpopt.search_space("qloguniform", [8, 64, 8]),
}


def points(count: int, seed: int) -> TensorDataset:
    """Points of the plane; the class of those in a ring is 1."""
    xy = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    radius = xy.norm(dim=1)
    return TensorDataset(xy, ((radius > 0.7) & (radius < 1.4)).float())


def train(config: dict[str, Any]) -> None:
    """One rank of one trial. Every rank does the same, and reports; hpopt hears rank 0."""
    distributed.init_process_group("gloo")  # "nccl" with GPUs
    dataset = hpopt.createHpoDataset(points(2_000, seed=0), config)
    sampler: DistributedSampler[Any] = DistributedSampler(dataset)
    batches = DataLoader(dataset, batch_size=config["bs"], sampler=sampler)
    net = nn.Sequential(nn.Linear(2, config["width"]), nn.Tanh(), nn.Linear(config["width"], 1), nn.Flatten(0))
    model = DistributedDataParallel(net)
    optimizer = torch.optim.Adam(model.parameters(), lr=config["lr"])
    saved = hpopt.checkpoint_dir(config) / "last.pt"
    first = 1
    if saved.exists():  # the ranks were started again, or the trial was handed out again
        state = torch.load(saved)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"] + 1
    for epoch in range(first, config["iterations"] + 1):
        sampler.set_epoch(epoch)
        for xy, label in batches:
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(model(xy), label).backward()
            optimizer.step()
        if hpopt.report(config, accuracy(net), current_iters=epoch) == hpopt.status.STOP:
            break
        if distributed.get_rank() == 0:
            part = saved.with_suffix(".part")
            torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}, part)
            part.replace(saved)  # whole or not at all
    distributed.destroy_process_group()


def accuracy(net: nn.Module) -> float:
    """The share of new points that are classified well; every rank judges a part of them."""
    xy, label = points(2_000, seed=1 + distributed.get_rank()).tensors
    with torch.no_grad():
        share = ((net(xy) > 0) == (label > 0)).float().mean()
    distributed.all_reduce(share)
    return float(share) / distributed.get_world_size()


def launch(config: dict[str, Any]) -> None:
    """One trial: four ranks of this very file, started again once if one of them fails."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4", "--max-restarts", "1", __file__]
    environment = {
        **os.environ,
        "HPOPT_CONFIG": json.dumps(config),
        "OMP_NUM_THREADS": "1",  # for each rank
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # or ranks that torch 2.13 starts again do not find each other
    }
    subprocess.run([sys.executable, *command], env=environment, check=True)


def main() -> None:
    """The study, on this machine."""
    with hpopt.create(
        full_dataset_size=2_000,
        num_full_iterations=10,
        search_space=SPACE,
        save_path="ddp",
        metric="accuracy",
        early_stop="median_stop",
        num_trials=6,
        max_iterations=10,
        subset_ratio=1.0,
    ) as hpo:
        print("best:", workers.run(launch, hpo))


if __name__ == "__main__":
    if "HPOPT_CONFIG" in os.environ:
        train(json.loads(os.environ["HPOPT_CONFIG"]))
    else:
        main()
