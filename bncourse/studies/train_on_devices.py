"""A training script for many devices; ``torchrun`` starts one process for each.

torchrun --standalone --nproc-per-node 2 -m bncourse.studies.train_on_devices
"""

import os

import torch
import torch.distributed as dist
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from bncourse.data import load
from bncourse.layers import SyncBatchNorm
from bncourse.models import fc_network


def main(epochs: int = 3, batch_size: int = 64) -> None:
    """Train on the digits; ``batch_size`` is that of all devices together."""
    on_gpus = torch.cuda.is_available()
    dist.init_process_group("nccl" if on_gpus else "gloo")
    rank, devices = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpus else torch.device("cpu")

    data = load("digits").standardized()
    torch.manual_seed(0)  # the same network everywhere
    network = fc_network([data.train.images[0].numel(), 64, 64, 10], norm="batch").to(device)
    model = DistributedDataParallel(SyncBatchNorm.convert_sync_batchnorm(network))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(epochs):
        order = torch.randperm(len(data.train.labels), generator=torch.Generator().manual_seed(epoch))
        for batch in order[: len(order) // batch_size * batch_size].split(batch_size):
            images, labels = data.train.take(batch[rank::devices])  # as many steps on every device
            optimizer.zero_grad()
            functional.cross_entropy(model(images.to(device)), labels.to(device)).backward()
            optimizer.step()

    model.eval()
    with torch.no_grad():
        right = network(data.test.images.to(device)).argmax(1).cpu() == data.test.labels
    line = f"rank {rank} of {devices}, {device}: test accuracy {right.double().mean():.4f}\n"
    print(line, end="", flush=True)  # in one piece: the ranks' lines must not mix
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
