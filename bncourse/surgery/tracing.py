"""Which linear or convolution layer stands directly before a batch norm, as ``torch.fx`` finds it."""

from collections import Counter

from torch import fx, nn

from bncourse.layers.replace import known_class
from bncourse.probes import as_written
from bncourse.surgery.norms import BATCH_NORMS, KNOWN
from bncourse.surgery.pairs import Pair

__all__ = ["has_hooks", "is_hooked", "traced_pairs"]

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LINEAR_MAPS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)


class _Tracer(fx.Tracer):
    """Follows the forward pass down to batch norms and to layers that have no parts, ours as well as torch's."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return super().is_leaf_module(module, name) or isinstance(module, BATCH_NORMS) or not any(module.children())


def traced_pairs(model: nn.Module) -> tuple[dict[str, Pair], dict[str, str]]:
    """Each batch norm that stands alone after a layer of ``LINEAR_MAPS``, and why each other one does not; by name.

    Raises:
        ValueError: a forward pass that ``torch.fx`` cannot follow.
    """
    try:
        with as_written(model):
            nodes = _Tracer().trace(model).nodes
    except Exception as error:  # whatever a forward pass does with stand-ins for its tensors
        raise ValueError(
            f"model must have a forward pass that torch.fx can follow, or come with an example input, got: {error}"
        ) from error
    owners = {"call_module": lambda name: name, "get_attr": lambda name: name.rpartition(".")[0]}
    uses = Counter(owners[node.op](node.target) for node in nodes if node.op in owners)
    calls = {node.target: node for node in nodes if node.op == "call_module"}
    pairs, reasons = {}, {}
    for name, norm in model.named_modules():
        if isinstance(norm, BATCH_NORMS):
            before = calls[name].args[0] if name in calls and calls[name].args else None
            if reason := _why_not_norm(norm):
                reasons[name] = reason
            elif uses[name] != 1:
                reasons[name] = f"called or read {uses[name]} times, not once"
            elif not isinstance(before, fx.Node) or before.op != "call_module":
                reasons[name] = "no layer directly before it"
            elif reason := _why_not_layer(layer := model.get_submodule(before.target), norm):
                reasons[name] = reason
            elif len(before.users) > 1:
                reasons[name] = f"something else reads the output of the {type(layer).__name__} before it"
            elif uses[before.target] > 1:
                reasons[name] = f"the {type(layer).__name__} before it is called or read {uses[before.target]} times"
            else:
                groups = getattr(layer, "groups", 1)
                pairs[name] = Pair(before.target, name, isinstance(layer, TRANSPOSED), groups)
    return pairs, reasons


def _why_not_norm(norm: nn.Module) -> str | None:
    """Why another module cannot take the place of ``norm``, if so."""
    if known_class(norm, KNOWN) is None:
        return f"{type(norm).__name__} may do more than a batch norm"
    if has_hooks(norm):
        return "it has hooks"
    return None


def _why_not_layer(layer: nn.Module, norm: nn.Module) -> str | None:
    """Why a scale and shift of its output cannot go into ``layer``, if so."""
    kind = type(layer).__name__
    if known_class(layer, LINEAR_MAPS) is None:
        return f"before it is {kind}, which is not known to be linear"
    if "weight" not in layer._parameters or "bias" not in layer._parameters:
        return f"the {kind} before it computes its weight"
    if is_hooked(layer):
        return f"the {kind} before it has hooks"
    if norm.num_features != (layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels):
        return f"the {kind} before it has another number of channels"
    return None


def has_hooks(module: nn.Module) -> bool:
    """Whether anything would be called with ``module`` that would not be with another in its place."""
    return any(value for name, value in vars(module).items() if name.endswith("_hooks"))


def is_hooked(module: nn.Module) -> bool:
    """Whether hooks see or change what goes through it."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )
