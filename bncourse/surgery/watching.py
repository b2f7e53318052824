"""Run a model and see what makes each tensor that a batch norm gets, and who else reads it."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bncourse.layers.replace import known_class
from bncourse.surgery.inputs import tensors_in
from bncourse.surgery.norms import scale_and_shift

__all__ = ["LinearMap", "Seen", "Watch", "close", "has_statistics"]


class LinearMap(NamedTuple):
    """How a tensor was made: in which module, by a convolution or a matrix product with which weight and bias."""

    module: nn.Module
    weight: Tensor | None
    bias: Tensor | None
    transposed: bool = False
    groups: int = 1


@dataclass
class Seen:
    """One call of a norm: what it got, what it should make of that, and through which of its parts that went.

    ``as_expected``: the first part, or else the output, gets what is expected, and each further part what the one
    before it gave.
    """

    input: Tensor
    expected: Tensor
    parts: list[nn.Module] = field(default_factory=list)
    flow: Any = None
    as_expected: bool = True


class Watch(TorchDispatchMode):
    """Sees each operation on tensors and each call of a module, until the block ends.

    Attributes:
        made: by ``id``, for tensors that ``alive`` keeps: how the output of a linear map was made.
        read_by: by ``id``, for those and for parameters: the modules in which an operation has read the tensor.
        operations: the names of those in each module itself, its parts apart.
        calls: how often each module was called.
        seen: the last call of each norm.
    """

    def __init__(self, model: nn.Module, tolerance: float) -> None:
        super().__init__()
        self.tolerance = tolerance
        self.made: dict[int, LinearMap] = {}
        self.read_by: dict[int, list[nn.Module]] = defaultdict(list)
        self.operations: dict[nn.Module, set[str]] = defaultdict(set)
        self.calls: dict[nn.Module, int] = defaultdict(int)
        self.seen: dict[nn.Module, Seen] = {}
        self.alive: list[Tensor] = []
        self._outside = nn.Module()  # where an operation is that no module of the model does
        self._running = [self._outside]  # the innermost last
        self._modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
        self._looking_away = False

    def __enter__(self) -> "Watch":
        self._handles = []
        for module in self._modules:
            self._handles.append(module.register_forward_pre_hook(self._called, with_kwargs=True, prepend=True))
            self._handles.append(module.register_forward_hook(self._returns))
        return super().__enter__()

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        for handle in self._handles:
            handle.remove()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if self._looking_away:
            return output
        module, inputs, name = self._running[-1], tensors_in((args, kwargs)), func.overloadpacket.__name__
        self.operations[module].add(name.removesuffix("_"))
        for tensor in inputs:
            self.read_by[id(tensor)].append(module)
        for tensor in tensors_in(output):
            if any(tensor is each for each in inputs):
                continue  # changed in place
            self.read_by[id(tensor)] = []  # a new tensor may have the id of one that is gone
            self.made.pop(id(tensor), None)
            if name == "convolution":
                self.made[id(tensor)] = LinearMap(module, args[1], args[2], args[6], args[8])
            elif name in ("addmm", "mm"):
                parameters = (module.weight, module.bias) if known_class(module, {nn.Linear}) else (None, None)
                self.made[id(tensor)] = LinearMap(module, *parameters)  # not from args: there it is transposed
            if id(tensor) in self.made:
                self.alive.append(tensor)
        return output

    def _called(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        caller, first = self._running[-1], next(iter((*args, *kwargs.values())), None)
        self._running.append(module)
        self.calls[module] += 1
        self._looking_away = True
        if caller in self.seen:
            call = self.seen[caller]
            follows = first is call.flow if call.parts else close(first, call.expected, self.tolerance)
            call.as_expected = call.as_expected and follows
            call.parts.append(module)
        if has_statistics(module) and isinstance(first, Tensor) and first.shape[1:2] == module.running_mean.shape:
            scale, shift = (each.view(-1, *[1] * (first.dim() - 2)) for each in scale_and_shift(module))
            self.seen[module] = Seen(first, first * scale + shift)
        self._looking_away = False

    def _returns(self, module: nn.Module, args: tuple, output: Any) -> None:
        self._running.pop()
        self._looking_away = True
        if self._running[-1] in self.seen:
            self.seen[self._running[-1]].flow = output
        if module in self.seen:
            call = self.seen[module]
            fits = output is call.flow if call.parts else close(output, call.expected, self.tolerance)
            call.as_expected = call.as_expected and fits
        self._looking_away = False


def has_statistics(module: nn.Module) -> bool:
    """Whether it has what a batch norm with running statistics has, of whatever library: (C,) each."""
    mean, *others = (getattr(module, name, None) for name in ("running_mean", "running_var", "weight", "bias"))
    return (
        isinstance(mean, Tensor)
        and mean.dim() == 1
        and isinstance(others[0], Tensor)
        and all(other is None or (isinstance(other, Tensor) and other.shape == mean.shape) for other in others)
    )


def close(value: Any, expected: Tensor, tolerance: float) -> bool:
    """Whether ``value`` is that tensor up to ``tolerance``, relative to the largest element."""
    if not isinstance(value, Tensor) or value.shape != expected.shape:
        return False
    size = expected.abs().amax().item() if expected.numel() else 0.0
    return torch.allclose(value.to(expected.dtype), expected, rtol=tolerance, atol=tolerance * size, equal_nan=True)
