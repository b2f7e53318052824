"""Where a model is, the best place for it, and the random numbers there.

Initial weights, the order of the examples, noise and dropout's masks are drawn on the CPU and then moved, so that a
seed means the same network on every device.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn

__all__ = ["best_device", "device_of", "generators", "moved", "seeded", "training_device"]

CPU = torch.device("cpu")


def best_device() -> torch.device:
    """CUDA if there is one, then Apple's MPS, then the CPU; the variable ``BNCOURSE_DEVICE`` overrides.

    Raises:
        ValueError: ``BNCOURSE_DEVICE`` does not name a device of torch.
        RuntimeError: ``BNCOURSE_DEVICE`` names a device that this machine does not have.
    """
    wanted = os.environ.get("BNCOURSE_DEVICE")
    if not wanted:
        kinds = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        return torch.device(next(kind for kind, available in kinds.items() if available))
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise ValueError(f"BNCOURSE_DEVICE must name a device such as 'cpu' or 'cuda:0', got {wanted!r}") from error
    try:
        torch.zeros(1, device=device).item()  # which "meta" cannot
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).split(". ")[0]  # more of it is a list of all that torch was built with
        raise RuntimeError(f"BNCOURSE_DEVICE must be a device of this machine, got {wanted!r}: {reason}") from error
    return device


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter or buffer; the CPU if it has neither."""
    return next((tensor.device for tensor in chain(model.parameters(), model.buffers())), CPU)


def training_device(model: nn.Module) -> torch.device:
    """Where the model is trained: where it is if you have put it on a device, or else on ``best_device()``.

    Apple's MPS has no double precision: a model of that type is trained on the CPU.
    """
    home = device_of(model)
    best = best_device() if home == CPU else home
    doubles = (tensor.dtype == torch.float64 for tensor in chain(model.parameters(), model.buffers()))
    return CPU if best.type == "mps" and any(doubles) else best


@contextmanager
def moved(model: nn.Module, device: torch.device) -> Iterator[torch.device]:
    """Until the block ends, ``model`` is on ``device``; then it is where it was. Yields the device, with its number."""
    home = device_of(model)
    if home != device:
        model.to(device)
    try:
        yield device_of(model)
    finally:
        if home != device:
            model.to(home)


@contextmanager
def seeded(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Until the block ends, torch's random numbers on the CPU and on ``device`` are those of ``seed``.

    Then they go on as if nothing had been drawn. ``torch.random.fork_rng`` and ``torch.manual_seed`` do this on every
    GPU of the machine: they wake those that nobody uses, and warn.
    """
    sources = generators(device)
    states = [source.get_state() for source in sources]
    try:
        for source in sources:
            source.manual_seed(seed)
        yield
    finally:
        for source, state in zip(sources, states, strict=True):
            source.set_state(state)


def generators(device: torch.device) -> list[torch.Generator]:
    """What torch draws random numbers from on the CPU and, if that is another, on a ``device`` that is in use."""
    if device.type == "cpu":
        return [torch.default_generator]
    if device.type == "mps":  # which has one, and no public name for it
        return [torch.default_generator, torch.mps._get_default_mps_generator()]
    module = getattr(torch, device.type)
    return [torch.default_generator, module.default_generators[device.index or 0]]
