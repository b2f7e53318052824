"""Keep long work on disk, so that an interruption costs little: training by the epoch, a comparison by the run.

A file is replaced only by a whole one, and nothing in a file is trusted: training is read with ``weights_only=True``,
results as JSON, so that reading a file cannot run code.
"""

import errno
import io
import json
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Hashable, Iterable
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bncourse.files import write_whole

__all__ = ["ResultsFile", "TrainingFile"]

BROKEN = (  # what reading a damaged file raises
    *(RuntimeError, OSError, EOFError, LookupError, TypeError, ValueError),
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error),
)


def _place(path: str | os.PathLike) -> Path:
    """The file itself: what a link leads to, and the same when the work changes the current folder.

    Raises:
        IsADirectoryError: a folder is there.
    """
    place = Path(os.path.realpath(Path(path)))
    if place.is_dir():
        raise IsADirectoryError(errno.EISDIR, f"checkpoint={str(path)!r} is a folder; expected the name of a file")
    return place


class TrainingFile:
    """A file that keeps all that the next epoch depends on: weights, buffers, the optimizer's memory, the random state.

    Args:
        path: the file, or None to keep nothing.
        settings: what ``fit`` was called with, plain values; a run with others is not the same run.
    """

    def __init__(
        self, path: str | os.PathLike | None, model: nn.Module, optimizer: torch.optim.Optimizer, settings: dict
    ):
        self.path = None if path is None else _place(path)
        self.model, self.optimizer = model, optimizer
        self.settings = settings | {"the optimizer's groups": _groups(optimizer)}

    def save(self, epochs: int, history: dict) -> None:
        """Keep the run as it is after so many epochs; ``history`` is made of plain values.

        Raises:
            OSError: the file cannot be written.
        """
        if self.path is None:
            return
        content = {"epochs": epochs, "history": history, "settings": self.settings, "layers": _layers(self.model)}
        content |= {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        content["random"] = {device: get() for device, (get, _) in _random_states(self.model).items()}
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_whole(self.path, buffer.getvalue())

    def load(self) -> tuple[int, dict]:
        """Put the model, the optimizer and the random state where ``save`` left them.

        Returns:
            the number of epochs done and their history; 0 and nothing if there is no file.

        Raises:
            ValueError: the file is damaged, or of another model or other settings; the model is as it was before.
        """
        if self.path is None or not self.path.exists():
            return 0, {}
        name, stored = f"checkpoint={str(self.path)!r}", self.path.read_bytes()
        try:
            if broken := zipfile.ZipFile(io.BytesIO(stored)).testzip():  # torch compares no check sums
                raise ValueError(f"the check sum of {broken} is wrong")
            content = torch.load(io.BytesIO(stored), map_location="cpu", weights_only=True)
            kept = {"model": content["layers"], "run": content["settings"]}
            parts = [content[name] for name in ("epochs", "history", "model", "optimizer", "random")]
        except BROKEN as error:
            raise ValueError(
                f"{name} is damaged, or no checkpoint of fit ({type(error).__name__}). Remove it to start again"
            ) from error
        for what, ours in (("model", _layers(self.model)), ("run", self.settings)):
            there = kept[what]
            for key in (key for key in ours | there if ours.get(key) != there.get(key)):
                raise ValueError(
                    f"{name} is of another {what}: there {key} is {there.get(key)}, here it is {ours.get(key)}. "
                    "Give another path, or remove the file to start again"
                )
        epochs, history, weights, memory, random = parts
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict(memory)
        for device, (_, restore) in _random_states(self.model).items():
            if device in random:
                restore(random[device])
        return epochs, history


def _layers(model: nn.Module) -> dict[str, str]:
    """What makes two models the same kind: the class of each module, the shape and type of each tensor, by name."""
    modules = {name or "the model": type(module).__name__ for name, module in model.named_modules()}
    return modules | {
        name: f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
        for name, value in [*model.named_parameters(), *model.named_buffers()]
    }


def _groups(optimizer: torch.optim.Optimizer) -> str:
    """What an optimizer is: its class, and each group's number of parameters and plain settings."""
    groups = [
        {name: str(value) for name, value in group.items() if isinstance(value, int | float | str | tuple)}
        | {"params": len(group["params"])}
        for group in optimizer.param_groups
    ]
    return f"{type(optimizer).__name__} {groups}"


def _random_states(model: nn.Module) -> dict[str, tuple[Callable, Callable]]:
    """For each kind of device the run draws random numbers on: how to get the state, and how to set it."""
    states = {"cpu": (torch.get_rng_state, torch.set_rng_state)}
    for kind in {parameter.device.type for parameter in model.parameters()} - {"cpu"}:
        states[kind] = (getattr(torch, kind).get_rng_state, getattr(torch, kind).set_rng_state)
    return states


class ResultsFile:
    """The results of a comparison by variant and seed, kept in a JSON file after every run.

    The file knows the names and the seeds, not what the functions do: remove it after changing them.

    Args:
        path: the file, or None to keep nothing.
        variants: the names that there may be.

    Raises:
        ValueError: the file is damaged, or of another comparison; or two names are one as text.
    """

    def __init__(self, path: str | os.PathLike | None, variants: Iterable[Hashable]):
        self.path = None if path is None else _place(path)
        names = [str(name) for name in variants]  # a file has words only; 0.1 and None are names too
        self.kept: dict[str, dict[str, float | list]] = {name: {} for name in names}
        if len(self.kept) < len(names):
            raise ValueError(f"variants has {', '.join(names)}; expected names that differ as text")
        if self.path is None or not self.path.exists():
            return
        try:
            found = {name: dict(by_seed) for name, by_seed in json.loads(self.path.read_bytes()).items()}
            for result in chain.from_iterable(by_seed.values() for by_seed in found.values()):
                if np.asarray(result).dtype.kind not in "if":
                    raise ValueError(f"{result!r} is no result")
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"checkpoint={str(path)!r} is damaged, or no checkpoint of compare ({error}). Remove it to start again"
            ) from error
        if not found.keys() <= self.kept.keys():
            raise ValueError(
                f"checkpoint={str(path)!r} is of another comparison: its variants are {', '.join(found)}, here they "
                f"are {', '.join(self.kept)}. Give another path, or remove the file to start again"
            )
        self.kept |= found

    def get(self, variant: Hashable, seed: int, run: Callable[[int], float]) -> float | list:
        """The result of ``run(seed)``: the kept one if there is one, else a new one, which is kept."""
        by_seed = self.kept[str(variant)]
        if str(seed) not in by_seed:
            self._save()  # first: a place that cannot be written is known before the work
            result = run(seed)
            try:
                if result is None:
                    raise TypeError("None is no number")  # numpy makes it NaN
                by_seed[str(seed)] = np.asarray(result, dtype=float).tolist()
            except (TypeError, ValueError, RuntimeError) as error:
                what = "nothing" if result is None else f"a {type(result).__name__}"
                raise TypeError(
                    f"{variant!r} returned {what} for seed {seed}; expected a number or a sequence of them"
                ) from error
            self._save()
        return by_seed[str(seed)]

    def _save(self) -> None:
        if self.path is not None:
            write_whole(self.path, json.dumps(self.kept, indent=1).encode())
