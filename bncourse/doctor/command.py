"""``bncourse doctor``: a diagnosis from the shell."""

import argparse
import contextlib
import importlib
import math
import sys
import textwrap
import traceback
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bncourse.doctor.batches import batches_of
from bncourse.doctor.diagnosis import examine
from bncourse.doctor.finding import SEVERITIES, Diagnosis
from bncourse.doctor.patient import Patient
from bncourse.doctor.rule import RULES
from bncourse.doctor.words import first_line
from bncourse.surgery.inputs import described

__all__ = ["run"]


class BadInput(Exception):
    """What the user gave cannot be used; the message is one line."""


def run(arguments: argparse.Namespace) -> int:
    """Print the diagnosis: 0 if all is well, 1 for findings as bad as ``--fail-on``, 2 for bad input."""
    try:
        if arguments.explain:
            print(_explanation(arguments.explain))
            return 0
        with contextlib.redirect_stdout(sys.stderr):  # what the user's code prints is not the diagnosis
            diagnosis = _diagnosis(arguments).chosen(_ids(arguments.select), _ids(arguments.ignore))
    except Exception as error:
        if arguments.debug:
            traceback.print_exc()
        else:
            said = " ".join(str(error).split()) or type(error).__name__
            print(f"bncourse doctor: {said}", file=sys.stderr)
        return 2
    print(diagnosis.json() if arguments.json else diagnosis)
    bad = SEVERITIES[: SEVERITIES.index(arguments.fail_on) + 1] if arguments.fail_on else ()
    return int(diagnosis.worst() in bad)


def _explanation(id: str) -> str:
    for rule in RULES:
        if rule.id == id.upper():
            text = textwrap.fill(rule.explanation.replace("``", "`"), 88)
            return f"{rule.id} ({rule.severity}, {rule.level}): {rule.title}\n\n{text}\n\nRead: chapter {rule.chapter}."
    raise BadInput(f"--explain must be the id of a rule, {RULES[0].id} to {RULES[-1].id}, got {id!r}")


def _ids(given: list[str]) -> list[str]:
    """The ids, or beginnings of ids, in lists such as "BN-S,BN-F01"."""
    ids = [id.strip().upper() for each in given for id in each.split(",") if id.strip()]
    for id in ids:
        if not any(rule.id.startswith(id) for rule in RULES):
            raise BadInput(f"--select and --ignore must be ids of rules or begin one, got {id!r}")
    return ids


def _diagnosis(arguments: argparse.Namespace) -> Diagnosis:
    if not arguments.model:
        raise BadInput("a model is needed: package.module:make_model")
    if arguments.batch and arguments.input:
        raise BadInput("--input and --batch cannot be used together")
    _ids(arguments.select + arguments.ignore)
    model = _model(arguments.model)
    missing = _load(model, arguments.checkpoint) if arguments.checkpoint else ()
    batches = None
    if arguments.batch:
        batches = batches_of(_read("--batch", arguments.batch))
    elif arguments.input:
        inputs = _random(arguments.input)
        batches = batches_of(inputs[0] if len(inputs) == 1 else (tuple(inputs), None))
    return examine(Patient(model, batches, real=bool(arguments.batch), missing=missing))


def _model(name: str) -> nn.Module:
    """The module, or what the factory of this name makes."""
    module, _, attribute = name.partition(":")
    if not attribute:
        raise BadInput(f"the model must be package.module:make_model, got {name!r}")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:
        raise BadInput(f"{name!r} is not found: {type(error).__name__}: {error}") from error
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise BadInput(f"{name!r} must be a torch.nn.Module or make one, got {type(found).__name__}")
        try:
            found = found()
        except (Exception, SystemExit) as error:
            raise BadInput(f"{name}() raised {type(error).__name__}: {error}") from error
    if not isinstance(found, nn.Module):
        raise BadInput(f"{name}() must return a torch.nn.Module, got {type(found).__name__}")
    return found


def _read(option: str, path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = first_line(error) or type(error).__name__
        if "Weights only load failed" in reason:  # followed by a page on what torch.load used to do
            reason = "torch.load(weights_only=True) refuses it"
        raise BadInput(
            f"{option} must be a file written by torch.save with tensors only, got {path}: {reason}"
        ) from error


def _load(model: nn.Module, path: Path) -> tuple[str, ...]:
    """Load a checkpoint; the names of the running statistics that it lacks."""
    state = _read("--checkpoint", path)
    while isinstance(state, dict) and not _has_tensors(state):
        named = [state.get(key) for key in ("state_dict", "model_state_dict", "model", "net")]
        inner = [value for value in named if isinstance(value, dict)] or [*filter(_has_tensors, state.values())]
        if not inner:
            break
        state = inner[0]
    if not _has_tensors(state) or not all(isinstance(key, str) for key in state):
        raise BadInput(f"--checkpoint must have a state_dict, got {described(state).removeprefix('a ')} in {path}")
    state = {key.removeprefix("module.").replace("_orig_mod.", ""): value for key, value in state.items()}
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[-1].strip()
        raise BadInput(f"--checkpoint must be one of this model: {reason}") from error
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    missing = [key for key in result.missing_keys if not key.endswith(statistics)]
    wrong = [
        f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for what, names in (("lacks", missing), ("has also", result.unexpected_keys))
        if names
    ]
    if wrong:
        raise BadInput(f"--checkpoint must be one of this model: {'; '.join(wrong)}")
    return tuple(key for key in result.missing_keys if key.endswith(statistics))


def _has_tensors(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(each, Tensor) for each in value.values())


def _random(shapes: list[str]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = []
    for text in shapes:
        try:
            shape = [int(size) for size in text.split(",")]
            if min(shape) < 1 or math.prod(shape) > 10**9:
                raise ValueError
        except ValueError:
            raise BadInput(f"--input must be a shape such as 8,3,32,32, got {text!r}") from None
        tensors.append(torch.randn(shape, generator=generator))
    return tensors
