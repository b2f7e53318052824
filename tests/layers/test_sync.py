"""SyncBatchNorm in real processes (gloo, on the processor), against one process on the whole batch."""

import copy
import functools
import os
import socket
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from norm_cases import RECENT
from torch import nn
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

import bncourse
from bncourse.studies.many_devices import launch
from bncourse.surgery import recalibrate

pytestmark = [
    pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch without gloo"),
    pytest.mark.timeout(120),
]
CHANNELS, STEPS = 3, 3
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
PARTS = {  # sizes of the processes' parts of the batch
    "two": (4, 4),
    "four": (2, 2, 2, 2),
    "uneven": (1, 6),
    "four-uneven": (5, 1, 3, 2),
    "one-empty": (4, 0),
    "four-one-empty": (3, 0, 1, 4),
}


def make_layer(kind, dtype, **options):
    torch.manual_seed(1)
    layer = kind(CHANNELS, dtype=dtype, **options)
    if layer.weight is not None:
        with torch.no_grad():
            layer.weight.normal_()
            layer.bias.normal_()
    return layer


def make_batches(shape, dtype):
    """Inputs and output gradients of a few steps, for the whole batch."""
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(2, *shape, generator=generator, dtype=dtype) * 2 + 3 for _ in range(STEPS)]


def run_steps(layer, batches, part):
    """Outputs and gradients of each step on this part of the batch, and the layer's state at the end."""
    results = []
    for x, dy in batches:
        x = x[part].clone().requires_grad_()
        y = layer(x)
        y.backward(dy[part])
        results.append({"y": y.detach(), "dx": x.grad})
    gradients = {f"d{name}": parameter.grad for name, parameter in layer.named_parameters()}
    layer.eval()
    results.append({"y": layer(batches[0][0][part]).detach()})
    return results, gradients, {name: value.clone() for name, value in layer.state_dict().items()}


def own_part(sizes) -> slice:
    start = sum(sizes[: dist.get_rank()])
    return slice(start, start + sizes[dist.get_rank()])


def count_collectives(counts: dict):
    """Count what goes through the two collectives that there are."""
    for name in ("all_gather", "all_reduce"):
        original = getattr(dist, name)

        def counted(*args, name=name, original=original, **kwargs):
            counts[name] = counts.get(name, 0) + 1
            return original(*args, **kwargs)

        setattr(dist, name, counted)


def as_numpy(tree):
    """Tensors as arrays: they outlive the process that made them."""
    if isinstance(tree, dict):
        return {key: as_numpy(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [as_numpy(value) for value in tree]
    return tree.detach().numpy() if isinstance(tree, torch.Tensor) else tree


# What runs in the processes


def all_workers(cases, ddp_sizes):
    """One start of the processes for all that is to be found out in them: starting takes seconds."""
    return compare_worker(cases), ddp_sizes and ddp_worker(ddp_sizes), odds_and_ends_worker()


def compare_worker(cases):
    results = []
    for sizes, shape, dtype, options in cases:
        layer = make_layer(bncourse.SyncBatchNorm, dtype, **options)
        results.append(as_numpy(run_steps(layer, make_batches(shape, dtype), own_part(sizes))))
    return results


def ddp_worker(sizes):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, CHANNELS, 3), bncourse.BatchNorm2d(CHANNELS), nn.ReLU(), nn.Flatten())
    model = bncourse.SyncBatchNorm.convert_sync_batchnorm(model).double()
    parallel = nn.parallel.DistributedDataParallel(model)
    buffer = model[1].running_mean
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    for x, _ in make_batches((sum(sizes), 2, 5, 5), torch.float64):
        optimizer.zero_grad()
        # mean over the whole batch: the sum here, times the processes that DDP averages over
        (parallel(x[own_part(sizes)]).square().sum() * len(sizes) / sum(sizes)).backward()
        optimizer.step()
    assert model[1].running_mean is buffer
    return as_numpy(dict(model.state_dict()))


def odds_and_ends_worker():
    """What needs a group but no comparison; returns findings by name."""
    found, counts = {}, {}
    count_collectives(counts)
    layer = bncourse.SyncBatchNorm(CHANNELS)
    x = torch.randn(4, CHANNELS, requires_grad=True)
    y = layer(x)
    found["forward"] = dict(counts)
    y.sum().backward()
    found["both"] = dict(counts)
    layer.eval()
    layer(x)
    found["evaluation"] = dict(counts)

    layer.train()
    rank = dist.get_rank()
    try:
        layer(torch.randn(int(rank == 0), CHANNELS))  # one value in all processes together
    except ValueError as error:
        found["one value"] = str(error)
    layer(torch.randn(1, CHANNELS))  # one value here, others there
    before = layer.running_mean.clone()
    layer(torch.randn(0, CHANNELS))  # nobody has any
    found["all empty"] = torch.equal(before, layer.running_mean)

    alone = [dist.new_group([rank]) for rank in range(dist.get_world_size())][rank]
    mine = bncourse.SyncBatchNorm(CHANNELS, process_group=alone)
    plain = bncourse.BatchNorm1d(CHANNELS)
    found["group of one"] = torch.equal(mine(x), plain(x))

    half = bncourse.SyncBatchNorm(CHANNELS)
    x = torch.randn(4, CHANNELS, 2, 2).bfloat16().to(memory_format=torch.channels_last).requires_grad_()
    y = half(x)
    y.float().sum().backward()
    found["half"] = str(y.dtype), str(half.running_mean.dtype), str(x.grad.dtype)
    found["channels last"] = y.is_contiguous(memory_format=torch.channels_last)
    found["recalibrated"] = recalibrated(rank)
    return found


def recalibrated(rank):
    """Each process has other batches, and another number of them; what it returns is the statistics and the report."""
    model = nn.parallel.DistributedDataParallel(nn.Sequential(bncourse.SyncBatchNorm(CHANNELS)).double())
    try:
        recalibrate(model, [])
    except ValueError as error:
        no_batch = str(error)
    done = recalibrate(model, make_batches((6, CHANNELS), torch.float64)[rank % 2][0].split(6 - 4 * (rank % 2)))
    return no_batch, as_numpy(dict(model.module.state_dict())), str(done)


def dying_worker(rank, port, timeout, report):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=timeout))
    layer = bncourse.SyncBatchNorm(CHANNELS)
    layer(torch.randn(4, CHANNELS))
    if rank == 1:
        os._exit(1)
    start = time.monotonic()
    try:
        for _ in range(3):
            layer(torch.randn(4, CHANNELS))
        report.put(("no error", time.monotonic() - start))
    except RuntimeError as error:
        report.put((str(error), time.monotonic() - start))


def failing_worker():
    if dist.get_rank() == 1:
        raise ZeroDivisionError("on purpose")
    bncourse.SyncBatchNorm(CHANNELS)(torch.randn(4, CHANNELS))


# The tests


DDP_SIZES = 5, 3


def make_cases(processes):
    return [
        (sizes, (sum(sizes), CHANNELS, *space), dtype, options)
        for sizes in PARTS.values()
        if len(sizes) == processes
        for dtype in TOLERANCE
        for space, options in (((), {}), ((2, 2), {"momentum": None}), ((3,), {"affine": False}))
    ]


@pytest.fixture(scope="module")
def launched():
    """What the processes found, by number of processes and rank: each number is started once."""

    @functools.cache
    def start(processes):
        sizes = DDP_SIZES if processes == len(DDP_SIZES) else None
        return launch(all_workers, processes, make_cases(processes), sizes)

    return start


@pytest.mark.parametrize("processes", [2, 4])
def test_equals_one_process_on_the_whole_batch(processes, launched):
    cases, by_rank = make_cases(processes), [found[0] for found in launched(processes)]
    for number, (sizes, shape, dtype, options) in enumerate(cases):
        kind = {2: bncourse.BatchNorm1d, 3: bncourse.BatchNorm1d, 4: bncourse.BatchNorm2d}[len(shape)]
        layer = make_layer(kind, dtype, **options)
        whole, gradients, state = run_steps(layer, make_batches(shape, dtype), slice(None))
        parts = [by_rank[rank][number] for rank in range(processes)]
        tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype] * 10}
        for step in range(STEPS + 1):
            for name, expected in whole[step].items():
                joined = torch.cat([torch.from_numpy(part[0][step][name]) for part in parts])
                torch.testing.assert_close(joined, expected, **tolerance, msg=lambda m: f"{sizes} {name}: {m}")  # noqa: B023
        for name, expected in gradients.items():  # each process has its part's gradients
            summed = sum(torch.from_numpy(part[1][name]) for part in parts)
            torch.testing.assert_close(summed, expected, rtol=TOLERANCE[dtype] * 10, atol=TOLERANCE[dtype] * 100)
        for part in parts:
            for name, expected in state.items():
                torch.testing.assert_close(torch.as_tensor(part[2][name]), expected, **tolerance)


def test_with_distributed_data_parallel(launched):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, CHANNELS, 3), nn.BatchNorm2d(CHANNELS), nn.ReLU(), nn.Flatten()).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, _ in make_batches((sum(DDP_SIZES), 2, 5, 5), torch.float64):
        optimizer.zero_grad()
        (model(x).square().sum() / sum(DDP_SIZES)).backward()
        optimizer.step()
    for _, state, _ in launched(2):
        for name, expected in model.state_dict().items():
            torch.testing.assert_close(torch.as_tensor(state[name]), expected, rtol=1e-10, atol=1e-12)


def test_collectives_small_batches_groups_and_half_precision(launched):
    for _, _, found in launched(2):
        assert found["forward"] == {"all_gather": 1}
        assert found["both"] == {"all_gather": 1, "all_reduce": 1} == found["evaluation"]
        assert "more than 1 value per channel" in found["one value"]
        assert found["all empty"] and found["group of one"] and found["channels last"]
        assert found["half"] == ("torch.bfloat16", "torch.float32", "torch.bfloat16")


def test_recalibration_pools_the_batches_of_all_processes(launched):
    x = torch.cat([x for x, _ in make_batches((6, CHANNELS), torch.float64)[:2]])
    for _, _, found in launched(2):
        no_batch, state, done = found["recalibrated"]
        assert "at least 1 batch, got none" in no_batch and "from 12 values a channel" in done
        torch.testing.assert_close(torch.from_numpy(state["0.running_mean"]), x.mean(0))
        torch.testing.assert_close(torch.from_numpy(state["0.running_var"]), x.var(0, correction=0))


def test_a_process_that_dies_ends_the_others():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    report = mp.get_context("spawn").SimpleQueue()
    context = mp.start_processes(dying_worker, (port, 5, report), nprocs=2, join=False, start_method="spawn")
    context.processes[0].join(60)
    assert not context.processes[0].is_alive()
    message, seconds = report.get()
    assert message != "no error"
    assert seconds < 15


def test_a_failure_is_reported():
    """The process that waits for the failed one is ended too: the call returns."""
    with pytest.raises(ChildFailedError, match="failing_worker"):
        launch(failing_worker, 2, timeout=5)
    with pytest.raises(ValueError, match="processes must be at least 1, got 0"):
        launch(failing_worker, 0)


def test_without_processes_it_is_plain_batch_norm():
    ours, theirs = bncourse.SyncBatchNorm(CHANNELS), nn.SyncBatchNorm(CHANNELS)
    assert repr(ours) == repr(theirs) or not RECENT
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for x in torch.randn(3, 4, CHANNELS, 2):
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()))
    for wrong in (torch.randn(3), torch.randn(3, 0, 2)):
        with pytest.raises(ValueError) as expected:
            theirs(wrong)
        with pytest.raises(ValueError, match=str(expected.value).replace("(", r"\(").replace(")", r"\)")):
            ours(wrong)


def test_conversion_is_torchs():
    model = nn.Sequential(
        nn.BatchNorm1d(2, eps=1e-3, momentum=None),
        nn.ModuleDict({"a": bncourse.BatchNorm2d(3, affine=False), "b": nn.BatchNorm3d(4, track_running_stats=False)}),
        bncourse.GhostBatchNorm(5, 2),
        nn.Linear(2, 2),
    ).eval()
    tensors = dict(model.state_dict(keep_vars=True))
    ours = bncourse.SyncBatchNorm.convert_sync_batchnorm(copy.copy(model))
    assert [type(module) for module in ours.modules()].count(bncourse.SyncBatchNorm) == 3
    assert isinstance(ours[2], bncourse.GhostBatchNorm)
    assert all(value is tensors[name] for name, value in ours.state_dict(keep_vars=True).items())
    assert not any(module.training for module in ours.modules())
    assert (ours[0].eps, ours[0].momentum, ours[1]["a"].affine) == (1e-3, None, False)
    alone = bncourse.SyncBatchNorm.convert_sync_batchnorm(bncourse.BatchNorm1d(3), "group")
    assert isinstance(alone, bncourse.SyncBatchNorm) and alone.process_group == "group"
