"""Support for tools that take a model apart: torch.fx and torch.jit.script."""

import copy
import functools
import warnings
from collections.abc import Callable

from torch import fx, nn

__all__ = ["Scriptable", "one_step_for_fx"]


def one_step_for_fx(forward: Callable) -> Callable:
    """Make the layer one step in the graphs of ``torch.fx``, as torch's layers are: their checks cannot be traced.

    A subclass with a ``forward`` of its own is traced through, and as with torch's layers the checks stop that.
    """

    @functools.wraps(forward)
    def step(self, *args, **kwargs):
        for proxy in (*args, *kwargs.values()):
            if isinstance(proxy, fx.Proxy) and type(self).forward is step and self is not proxy.tracer.root:
                return proxy.tracer.create_proxy("call_module", proxy.tracer.path_of_module(self), args, kwargs)
        return forward(self, *args, **kwargs)

    return step


class Scriptable(nn.Module):
    """A layer in whose place ``torch.jit.script`` compiles torch's layer of the same name, with the same tensors.

    Script a copy of the model to keep it: ``torch.jit.script`` puts torch's layers into the one that it is given.
    """

    def __prepare_scriptable__(self) -> nn.Module:  # what torch.jit.script calls, if a module has it
        name = type(self).__name__
        kind = getattr(nn, name, None)
        if kind is None or type(self).__bases__[-1] is not kind:
            raise NotImplementedError(f"torch.jit.script cannot compile {name}: use torch.export instead")
        warnings.warn(f"torch.jit.script puts torch.nn.{name} in the place of bncourse's {name}", stacklevel=2)
        scriptable = copy.copy(self)
        scriptable.__class__ = kind
        return scriptable
