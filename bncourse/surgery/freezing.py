"""Keep the statistics of batch norms as they are, and let them move again."""

from torch import nn

from bncourse.layers import FrozenBatchNorm
from bncourse.layers.frozen import frozen_class
from bncourse.surgery.norms import KNOWN, Where, is_frozen, names_of_norms
from bncourse.surgery.report import Report

__all__ = ["freeze", "unfreeze"]

THAWED = "_thawed"  # the attribute of a frozen norm that says what it was: its class, and the parameters that trained


def freeze(model: nn.Module, affine: bool = True, where: Where | None = None) -> nn.Module:
    """Make every batch norm in ``model`` that tracks statistics a ``FrozenBatchNorm``.

    Each normalizes with its running averages from now on, in training too (FrozenBN: Wu and Johnson 2021, arXiv
    2105.07576). ``requires_grad=False`` would not do it: it stops gamma and beta, not the statistics. Tensors, hooks
    and names stay. A subclass (a batch norm that also activates) stays one and does what it did, in evaluation.

    Args:
        affine: stop the training of gamma and beta as well, and clear their gradients: an optimizer would still use
            those of the last step.
        where: which batch norms: those in the part of the model with this name, of this class, or those for which a
            function of name and module is true. None freezes all.

    Returns:
        The model, changed in place; ``report(model)`` says what was frozen.

    Raises:
        ValueError: no batch norm that tracks statistics, or ``where`` chooses none.
    """
    done = Report("batch norms frozen", model)
    for name, norm in names_of_norms(model, where).items():
        if is_frozen(norm):
            done.left[name] = "frozen already"
        else:
            trained = [parameter for parameter, value in _gamma_and_beta(norm).items() if value.requires_grad]
            kind: type = type(norm)
            setattr(norm, THAWED, (kind, trained))
            done.changed[name] = kind.__name__
            norm.__class__ = FrozenBatchNorm if kind in KNOWN else frozen_class(kind)
            norm.training = False
        if affine:
            for value in _gamma_and_beta(norm).values():
                value.requires_grad_(False)
                value.grad = None
    return done.keep().model


def unfreeze(model: nn.Module, where: Where | None = None) -> nn.Module:
    """Undo ``freeze``: each batch norm is again what it was, in the mode of the module that it is part of.

    Gamma and beta train again where they did. The statistics move with the next forward pass in training.

    Args:
        where: which batch norms, as for ``freeze``.

    Returns:
        The model, changed in place; ``report(model)`` says what was unfrozen.

    Raises:
        ValueError: no batch norm that ``freeze`` has frozen.
    """
    done = Report("batch norms unfrozen", model)
    thawed = set()
    for name, norm in names_of_norms(model, where).items():
        if not is_frozen(norm):
            done.left[name] = "not frozen"
        elif not hasattr(norm, THAWED):
            done.left[name] = "made by FrozenBatchNorm(norm): use that norm again"
        else:
            norm.__class__, trained = vars(norm).pop(THAWED)
            for parameter, value in _gamma_and_beta(norm).items():
                value.requires_grad_(value.requires_grad or parameter in trained)
            done.changed[name] = type(norm).__name__
            thawed.add(norm)
    if not thawed:
        raise ValueError("model must have a batch norm that freeze has frozen, got none")
    for parent in model.modules():
        for child in thawed.intersection(parent.children()):
            child.train(parent.training)
    return done.keep().model


def _gamma_and_beta(norm: nn.Module) -> dict[str, nn.Parameter]:
    """The norm's own parameters, parametrized or not, without those of an activation in it."""
    parameters = dict(norm.named_parameters())
    return {name: parameters[name] for name in parameters if "." not in name or name.startswith("parametrizations.")}
