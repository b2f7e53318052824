"""Keep a run of ``fit`` on disk after every epoch, so that an interruption costs one epoch at most."""

import copy
import io
import os
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from bncourse.devices import device_of, generators
from bncourse.files import write_whole
from bncourse.moved import names_of

__all__ = ["resume", "save"]


def save(path: str | os.PathLike, model: nn.Module, optimizer: Optimizer, settings: dict, history: dict) -> None:
    """Write all that the next epoch depends on. ``settings`` and ``history`` hold plain values.

    Raises:
        OSError: the file cannot be written.
    """
    random = {kind: source.get_state() for kind, source in _sources(model).items()}
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": random}
    buffer = io.BytesIO()
    torch.save(content | {"settings": settings, "history": history}, buffer)
    write_whole(path, buffer.getvalue())


def resume(path: str | os.PathLike, model: nn.Module, optimizer: Optimizer, settings: dict) -> dict | None:
    """Put the model, the optimizer and the random state where ``save`` left them; the file cannot run code.

    Returns:
        the ``history`` that was saved; None if there is no file.

    Raises:
        ValueError: the file is damaged, or of another model, of other settings or of something else. The model is
            as it was.
    """
    if not Path(path).exists():
        return None
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        weights, memory, random = kept["model"], kept["optimizer"], dict(kept["random"])
        there, history = kept["settings"], kept["history"]
    except Exception as error:  # torch has no one exception for a file that is damaged
        raise ValueError(f"checkpoint must be a file that fit wrote, got {path}: {type(error).__name__}") from error
    for name, value in settings.items():
        if there.get(name) != value:
            raise ValueError(f"checkpoint must be of a run with {name}={value!r}, got {there.get(name)!r} in {path}")
    try:
        copy.deepcopy(model).load_state_dict(weights)  # which loads what fits before it says what does not
        optimizer.load_state_dict(memory)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"checkpoint must be of this model and optimizer, got {path}: {error}") from error
    model.load_state_dict(weights)
    for kind, source in _sources(model).items():
        if kind in random:  # else the run was on another kind of device
            source.set_state(random[kind])
    return history


def _sources(model: nn.Module) -> dict[str, torch.Generator]:
    """Where the model's random numbers come from, by kind of device."""
    device = device_of(model)
    return dict(zip(("cpu", device.type), generators(device), strict=False))


__getattr__ = names_of(__name__)
