"""Look on while a model trains and is evaluated."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bncourse.doctor import rules_watching  # noqa: F401  (importing it registers its rules)
from bncourse.doctor.diagnosis import check_types, examine, examined, sorted_and_merged
from bncourse.doctor.finding import Diagnosis
from bncourse.doctor.norms import batch_norms, norm_parameters, tracks
from bncourse.doctor.patient import Patient
from bncourse.doctor.rule import findings_of
from bncourse.doctor.rules_optimizer import unknown_norms
from bncourse.doctor.seen import Moments, moments_of
from bncourse.doctor.words import plural
from bncourse.probes import as_written
from bncourse.surgery.inputs import tensors_in
from bncourse.surgery.norms import plain_model

__all__ = ["watch"]

NOT_YET = ("BN-S03", "BN-S05", "BN-S07")  # what a model in the middle of its training need not hear
SEEN_BETTER = {("BN-S14", "note")}  # that statistics will move: BN-W02 says whether they did
KEPT = 400  # calls of a norm whose means are kept


class Event(NamedTuple):
    """One call of a norm.

    Attributes:
        forward: the number of the model's forward pass that it belongs to.
        step: how many optimizer steps came before.
        grad: whether gradients were recorded when the model was called.
        training: its mode; ``model_training``: the model's when it was called.
        moved: whether its statistics moved.
        again: whether it was computed again, in the backward pass.
        values: how many values each channel has, in all samples.
        samples: the batch size.
        finite: whether its statistics are finite afterwards.
        moments: of its input; None in evaluation.
        momentum: of the norm at that time.
    """

    forward: int
    step: int
    grad: bool
    training: bool
    model_training: bool
    moved: bool
    again: bool
    values: int
    samples: int
    finite: bool
    moments: Moments | None
    momentum: float | None


class Record:
    """What was seen of a model: the events of each norm, by name, and the optimizer's steps."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.norms = batch_norms(model)
        self.events: dict[str, list[Event]] = defaultdict(list)
        self.forwards = 0
        self.steps = 0
        self.passes: dict[int, int] = {}  # of each forward pass with gradients, how many steps came before
        self.used: set[int] = set()  # the forward passes whose outputs a backward pass came through
        self.before = {
            name: [(value, value.detach().clone(), value.requires_grad) for value in norm_parameters(norm)]
            for name, norm in self.norms.items()
        }
        self.reached: set[str] = set()  # the norms that gradients reached which the optimizer uses

    def unused(self) -> set[int]:
        """The forward passes with gradients that no backward pass came through; of the last one it is not known."""
        return set(self.passes) - self.used - {self.forwards} if self.steps else set()

    def passes_for_each_step(self) -> list[int]:
        """How many forward passes gave gradients for each step, from the first step that any did."""
        unused = self.unused()
        counts = Counter(step for forward, step in self.passes.items() if forward not in unused and step < self.steps)
        return [*counts.values()]

    def look_at_gradients(self, optimizer: torch.optim.Optimizer, *_) -> None:
        """Which norms' parameters the step to come can change."""
        if waiting := set(self.norms) - self.reached:
            _, unknown = unknown_norms(self.model, optimizer)
            for name in waiting - set(unknown):
                if any(value.grad is not None for value in norm_parameters(self.norms[name])):
                    self.reached.add(name)

    def is_idle(self, name: str) -> bool:
        """Whether steps were made, and neither they nor another optimizer's changed gamma or beta of this norm."""
        same = all(torch.equal(value.detach(), old) for value, old, _ in self.before[name])
        return self.steps > 0 and name not in self.reached and same


@contextmanager
def watch(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Iterator[Diagnosis]:
    """Look on in this block, in which you train the model for some steps and evaluate it.

    Nothing is changed, and the hooks go when the block ends. Compiled models run as they were written meanwhile.

    Args:
        optimizer: the one that steps in the block. Without it nothing is said about steps.

    Yields:
        a ``Diagnosis``, filled when the block ends: what happened in it, and what the static rules say afterwards.

    Raises:
        TypeError: a model or an optimizer that is not one.
    """
    check_types(model, optimizer)
    plain, diagnosis = plain_model(model), Diagnosis()
    record = Record(plain)
    with as_written(model), _hooked(model, plain, optimizer, record):
        try:
            yield diagnosis
        finally:
            seen = f"{plural(record.forwards, 'forward pass')} and {plural(record.steps, 'step')}"
            diagnosis.examined = f"{examined(plain)}, watched for {seen}"
            static = examine(Patient(model, optimizer=optimizer)).findings
            found = [
                each for each in static if (each.rule, each.severity) not in SEEN_BETTER and each.rule not in NOT_YET
            ]
            diagnosis.findings = sorted_and_merged([*findings_of(record, "watch"), *found])


@contextmanager
def _hooked(
    model: nn.Module, plain: nn.Module, optimizer: torch.optim.Optimizer | None, record: Record
) -> Iterator[None]:
    state: dict[str, Any] = {"grad": None, "training": None, "depth": 0}
    before: dict[nn.Module, tuple] = {}
    names = {norm: name for name, norm in record.norms.items()}
    handles = []

    def model_called(module: nn.Module, args: tuple) -> None:
        if torch._C._current_graph_task_id() != -1:
            return
        if state["depth"] == 0:
            record.forwards += 1
            state["grad"], state["training"] = torch.is_grad_enabled(), plain.training
            if state["grad"]:
                record.passes[record.forwards] = record.steps
        state["depth"] += 1

    def model_returned(module: nn.Module, args: tuple, output: Any) -> None:
        if torch._C._current_graph_task_id() == -1 and state["depth"]:
            state["depth"] -= 1
            if state["depth"] == 0 and state["grad"]:
                note_use(output, record.forwards)

    def note_use(output: Any, forward: int) -> None:
        """Notice when a backward pass comes through an output; where no tensor of it can tell, it counts as used."""
        hooks = []
        with suppress(RuntimeError):  # of torch.func's tensors
            for tensor in tensors_in(output):
                if tensor.requires_grad:
                    hooks.append(tensor.register_hook(lambda _: record.used.add(forward)))
        handles.extend(hooks)
        if not hooks:
            record.used.add(forward)

    def norm_called(norm: nn.Module, args: tuple, kwargs: dict) -> None:
        before[norm] = _statistics(norm)

    def norm_returned(norm: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        x, old = next(iter((*args, *kwargs.values())), None), before.pop(norm, None)
        if not isinstance(x, Tensor) or x.dim() < 2 or old is None:
            return
        events, now = record.events[names[norm]], _statistics(norm)
        moments = moments_of(x.detach()) if norm.training and x.numel() and len(events) < KEPT else None
        again = torch._C._current_graph_task_id() != -1
        grad = state["grad"] if state["depth"] or again else torch.is_grad_enabled()
        moved = len(old) != len(now) or any(not torch.equal(a, b) for a, b in zip(old, now, strict=True))
        finite = all(bool(torch.isfinite(each).all()) for each in now)
        values = x.numel() // max(1, x.size(1))
        events.append(
            Event(
                record.forwards,
                record.steps,
                bool(grad),
                norm.training,
                state["training"] if state["depth"] or again else plain.training,
                moved,
                again,
                values,
                len(x),
                finite,
                moments,
                getattr(norm, "momentum", 0.1),
            )
        )

    def stepped(*_) -> None:
        record.steps += 1

    try:
        handles.append(model.register_forward_pre_hook(model_called))
        handles.append(model.register_forward_hook(model_returned, always_call=True))
        for norm in record.norms.values():
            if not isinstance(norm, torch.jit.ScriptModule):
                handles.append(norm.register_forward_pre_hook(norm_called, with_kwargs=True))
                handles.append(norm.register_forward_hook(norm_returned, with_kwargs=True, always_call=True))
        if optimizer is not None:
            handles.append(optimizer.register_step_pre_hook(record.look_at_gradients))
            handles.append(optimizer.register_step_post_hook(stepped))
        yield
    finally:
        for handle in handles:
            with suppress(Exception):
                handle.remove()


def _statistics(norm: nn.Module) -> tuple[Tensor, ...]:
    if not tracks(norm) or norm.running_mean.is_meta:
        return ()
    return norm.running_mean.detach().clone(), norm.running_var.detach().clone()
