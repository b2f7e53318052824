"""Replace layers, and know when that is safe."""

from collections.abc import Collection

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

HARMLESS = {"extra_repr", "reset_parameters", "reset_running_stats"}  # methods that no forward pass calls
SPECIAL = {"__call__", "__getattr__", "__getattribute__", "__setattr__"}  # the underscored ones that count


def known_class(module: nn.Module, known: Collection[type]) -> type | None:
    """The class among ``known`` that says what ``module`` computes; None if it may compute something else.

    That is its own class, or one whose methods it inherits unchanged. A parametrized module, or one that somebody has
    given another ``forward``, has none.
    """
    classes = type(module).__mro__
    kind = next((each for each in classes if each in known), None)
    if kind is None or is_parametrized(module) or "forward" in vars(module):
        return None
    own = {name for each in classes[: classes.index(kind)] for name in vars(each)}
    counts = {name for name in own if not name.startswith("__") or name in SPECIAL} - HARMLESS
    return None if counts & set(dir(kind)) else kind


def replace_layers(model: nn.Module, replacements: dict[nn.Module, nn.Module]) -> nn.Module:
    """Put each new layer wherever the old one stands in ``model``, also where that is under several names.

    Returns:
        The model, changed in place; the new layer, if the model itself is an old one.
    """
    for parent in list(model.modules()):
        for name, child in parent._modules.items():  # ``named_children`` leaves out a child's second name
            parent._modules[name] = replacements.get(child, child)
    return replacements.get(model, model)
