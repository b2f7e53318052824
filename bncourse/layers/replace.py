"""Put layers in the place of others."""

from torch import nn


def replace_layers(model: nn.Module, replacements: dict[nn.Module, nn.Module]) -> nn.Module:
    """Put each new layer wherever the old one stands in ``model``, also where that is under several names.

    Returns:
        The model, changed in place; the new layer, if the model itself is an old one.
    """
    for parent in list(model.modules()):
        for name, child in parent._modules.items():  # ``named_children`` leaves out a child's second name
            parent._modules[name] = replacements.get(child, child)
    return replacements.get(model, model)
