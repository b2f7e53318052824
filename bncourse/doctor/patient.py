"""A model with what the examination of it measures: nothing of it is changed."""

import copy
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bncourse.devices import device_of, generators, seeded
from bncourse.doctor.batches import Batch, Loss, class_loss, own_loss, scores_in, size_of, takes_pair
from bncourse.doctor.norms import batch_norms, frozen, tracks
from bncourse.doctor.seen import Seen, pooled, seeing
from bncourse.doctor.words import first_line
from bncourse.probes import as_written
from bncourse.surgery.inputs import call_with, convert, described
from bncourse.surgery.norms import plain_model
from bncourse.surgery.statistics import batch_statistics

__all__ = ["Pass", "Patient", "random_numbers_kept", "untouched"]


class Pass(NamedTuple):
    """One pass over all batches: what the norms saw, the outputs, and the mean loss (NaN: it is not known)."""

    seen: Seen
    outputs: list[Any]
    loss: float


class Patient:
    """A model, what came with it, and what running a copy of it shows.

    Attributes:
        model: the model itself, out of what compilation and parallel training put around it. It is never run.
        copy: the copy that is run.
        real: whether the batches are data, not random numbers.
        missing: names of statistics that a checkpoint lacks.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: list[Batch] | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        loss: Loss | None = None,
        averaged: list[nn.Module] | None = None,
        real: bool = True,
        missing: tuple[str, ...] = (),
    ) -> None:
        self.wrapped = model
        self.model = plain_model(model)
        self.batches = batches or []
        self.optimizer, self.loss, self.averaged = optimizer, loss, averaged or []
        self.real, self.missing = real, missing
        self.norms = batch_norms(self.model)

    @cached_property
    def copy(self) -> nn.Module:
        try:
            return copy.deepcopy(self.model)
        except Exception:  # a tensor in it that was computed, say; ``untouched`` puts the model itself back
            return self.model

    @cached_property
    def evaluation(self) -> Pass:
        """In evaluation, as ``model.eval()`` makes it.

        Raises:
            ValueError: a batch that does not fit the model.
        """
        _set_mode(self.copy, False)
        return self._pass(self.batches)

    @cached_property
    def own_statistics(self) -> Pass | None:
        """In evaluation, but each norm with the statistics of its batch, as in training; None if that fails."""
        return self._with_own_statistics([])

    def _with_own_statistics(self, training: list[nn.Module]) -> Pass | None:
        _set_mode(self.copy, False)
        moving = {name: norm for name, norm in batch_norms(self.copy).items() if tracks(norm) and not frozen(norm)}
        if not moving:
            return None
        try:
            with _statistics_kept(self.copy), batch_statistics(moving):
                for module in training:
                    module.training = True
                return self._pass([batch for batch in self.batches if size_of(batch) > 1])
        except Exception:  # one value per channel, values that are not finite: other rules say so
            return None
        finally:
            _set_mode(self.copy, False)

    @cached_property
    def recalibrated(self) -> Pass | None:
        """In evaluation, after recalibration with these batches."""
        if self.own_statistics is None or len(self.batches) == 1:
            return self.own_statistics  # of one batch its own statistics are those of recalibration
        _set_mode(self.copy, False)
        try:
            with _statistics_kept(self.copy):
                for name, norm in batch_norms(self.copy).items():
                    moments = pooled(self.own_statistics.seen.calls.get(name, []))
                    if moments is not None and tracks(norm) and not frozen(norm):
                        norm.running_mean.copy_(moments.mean)
                        norm.running_var.copy_(moments.variance)
                return self._pass(self.batches)
        except Exception:
            return None

    @cached_property
    def with_dropout(self) -> Pass | None:
        """With the statistics of the batch, and with dropout as in training; None without dropout, or if that fails."""
        dropouts = [module for module in self.copy.modules() if "drop" in type(module).__name__.lower()]
        dropouts = [module for module in dropouts if not any(module.children())]
        return self._with_own_statistics(dropouts) if dropouts else None

    @cached_property
    def training(self) -> Pass | None:
        """In training, as ``model.train()`` makes it; None if that fails."""
        _set_mode(self.copy, True)
        try:
            with _statistics_kept(self.copy):
                return self._pass(self.batches)
        except Exception:
            return None
        finally:
            _set_mode(self.copy, False)

    @cached_property
    def halves(self) -> Pass | None:
        """In evaluation, the first half of each batch alone; None if that fails."""
        _set_mode(self.copy, False)
        try:
            with _statistics_kept(self.copy):
                return self._pass([_half(batch) for batch in self.batches])
        except Exception:
            return None

    def with_eps(self, eps: float) -> Pass | None:
        """In evaluation, with another eps in all batch norms."""
        _set_mode(self.copy, False)
        norms = [norm for norm in batch_norms(self.copy).values() if hasattr(norm, "eps")]
        kept = [norm.eps for norm in norms]
        try:
            for norm in norms:
                norm.eps = eps
            return self._pass(self.batches)
        except Exception:
            return None
        finally:
            for norm, value in zip(norms, kept, strict=True):
                norm.eps = value

    @cached_property
    def chance_loss(self) -> float:
        """The cross-entropy of equal scores for all classes; NaN where another loss is measured."""
        scores = scores_in(self.evaluation.outputs[0])
        targets = self._inputs_and_targets(self.batches[0])[1]
        if self.loss is not None or scores is None or class_loss(scores, targets) is None:
            return math.nan
        return math.log(scores.size(-1) if targets.dim() == scores.dim() - 1 and targets.dim() > 1 else scores.size(1))

    def relative_change(self, other: Pass | None) -> float:
        """How far another pass's outputs are from those in evaluation, as a share of the other's size."""
        if other is None:
            return math.nan
        pairs = zip(map(scores_in, self.evaluation.outputs), map(scores_in, other.outputs), strict=False)
        changes = [
            float((a[: len(b)] - b).double().norm() / b.double().norm().clamp(min=1e-30))
            for a, b in ((_cpu(a), _cpu(b)) for a, b in pairs if a is not None and b is not None)
            if a.dim() and b.dim() and len(b) <= len(a) and a.shape[1:] == b.shape[1:]
        ]
        return max(changes, default=math.nan)

    def _inputs_and_targets(self, batch: Batch) -> tuple[Any, Any]:
        if takes_pair(self.copy, batch):
            return tuple(batch), None
        return batch.inputs, batch.targets

    def _loss(self, output: Any, targets: Any) -> float:
        """NaN where it is not known."""
        if self.loss is None:
            loss = own_loss(output) if targets is None else class_loss(output, targets)
            return math.nan if loss is None else float(loss)
        try:
            return math.nan if targets is None else float(self.loss(output, targets))
        except Exception as error:
            raise ValueError(
                f"loss must take the model's output and the targets, raised {type(error).__name__}: {first_line(error)}"
            ) from error

    @torch.no_grad()
    def _pass(self, batches: list[Batch]) -> Pass:
        device = device_of(self.copy)
        outputs, losses, sizes = [], [], []
        with as_written(self.copy), seeded(0, device), seeing(self.copy) as seen:
            for batch in batches:
                inputs, targets = (
                    convert(each, lambda tensor: tensor.to(device)) for each in self._inputs_and_targets(batch)
                )
                try:
                    scripted = isinstance(self.copy, torch.jit.ScriptModule)
                    output = self.copy(inputs) if scripted else call_with(self.copy, inputs)
                except Exception as error:
                    said = f"{type(error).__name__}: {first_line(error.__cause__ or error)}"
                    raise ValueError(
                        f"batch must fit the model, which raised {said} (batch: {described(batch.inputs)})"
                    ) from error
                outputs.append(output)
                losses.append(self._loss(output, targets))
                sizes.append(size_of(batch))
        mean = sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / max(1, sum(sizes))
        return Pass(seen, outputs, mean if sizes else math.nan)


def _cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu()


def _half(batch: Batch) -> Batch:
    size = size_of(batch)

    def first(tensor: Tensor) -> Tensor:
        return tensor[: size // 2] if tensor.dim() and len(tensor) == size else tensor

    return Batch(*(convert(each, first) for each in batch))


def _set_mode(model: nn.Module, training: bool) -> None:
    try:
        model.train(training)
    except NotImplementedError:  # an exported program has only the mode that it was exported in
        pass


@contextmanager
def _statistics_kept(model: nn.Module) -> Iterator[None]:
    """After the block all buffers have the values that they had before."""
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)


@contextmanager
def random_numbers_kept(model: nn.Module) -> Iterator[None]:
    """After the block the random numbers to come are those before it: of Python, NumPy, and torch on the CPU and the
    model's device. Models draw some, and so do loaders."""
    device = device_of(model)
    sources = generators(torch.device("cpu") if device.type == "meta" else device)
    states = [source.get_state() for source in sources]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  (models draw from it)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for source, state in zip(sources, states, strict=True):
            source.set_state(state)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """After the block, all of ``model`` is as it was, to the bit, and so are the random numbers to come.

    The examination runs a copy. This is for models that cannot be copied, and for copies that call the original.
    """
    modes = [(module, module.training) for module in model.modules()]
    places = [
        (module, name, value)
        for module in model.modules()
        if not isinstance(module, torch.jit.ScriptModule)
        for name, value in module._buffers.items()
    ]
    values = [
        (tensor, tensor.detach().clone())
        for tensor in (*model.parameters(), *model.buffers())
        if not nn.parameter.is_lazy(tensor)
    ]
    gradients = [(parameter, parameter.grad, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with random_numbers_kept(model):
            yield
    finally:
        for module, mode in modes:
            if module.training != mode:
                module.training = mode
        for module, name, value in places:
            if module._buffers.get(name) is not value:
                module._buffers[name] = value
        with torch.no_grad():
            for tensor, value in values:
                if not _same_bits(tensor, value):  # copying into all would spoil a backward pass that is to come
                    tensor.copy_(value)
        for parameter, gradient, requires_grad in gradients:
            if parameter.grad is not gradient:
                parameter.grad = gradient
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape are equal, NaN and the sign of 0 included."""
    if one.is_meta:
        return True
    bits = [each.detach().contiguous().flatten().view(torch.uint8) for each in (one, other)]
    return torch.equal(*bits)
