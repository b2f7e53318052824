"""H. Conversion and export."""

import copy

import torch
from torch import Tensor, nn

from bncourse.museum.patients import accuracy, accuracy_as_left, batches_of, cnn, train, trained
from bncourse.museum.specimen import Patient, specimen
from bncourse.surgery import convert_norms, fold


@specimen(
    before="torch.jit.trace(model, example)",
    after="torch.jit.trace(model.eval(), example)",
    damage=lambda patient: accuracy_as_left(Patient(patient.averaged)),
    measure="accuracy on the test digits, sorted by class, %",
    chapter=13,
    threads=[
        ("https://github.com/gmalivenko/pytorch2keras/issues/13", "2018-04-08"),
        ("https://github.com/apache/tvm/pull/17752", "2025-03-16"),
    ],
    rules=("BN-F16", "BN-F11", "BN-F04"),
)
def exported_in_training_mode(fixed: bool) -> Patient:
    """The exported network gives different answers from the original, and calling ``eval()`` on it changes nothing.

    The export recorded what the norms did in training mode: they use the batch's statistics.
    """
    model = trained().train(not fixed)
    exported = torch.jit.trace(model, batches_of()[0][0], check_trace=False)
    return Patient(model.eval(), batches_of("test"), averaged=exported.eval())


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """The two as one, as long as the convolution has a bias."""
    result = copy.deepcopy(convolution)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    result.weight.data *= scale[:, None, None, None]
    if convolution.bias is not None:
        result.bias.data = (convolution.bias - norm.running_mean) * scale + norm.bias
    return result


@specimen(
    before="if bias is not None: bias = (bias - mean) * scale + shift",
    after="bias = ((0 if bias is None else bias) - mean) * scale + shift",
    damage=lambda patient: accuracy(Patient(patient.averaged)),
    measure="accuracy on the test digits, %",
    chapter=13,
    threads=[("https://github.com/tenstorrent/tt-metal/pull/5317",)],
    rules=("BN-F16",),
)
def folded_without_the_shift(fixed: bool) -> Patient:
    """After folding, the network is wrong, but only where the convolutions have no bias.

    This code changes only a bias that exists. If there is none, which is the usual case before a norm, the mean and
    beta are lost.
    """
    model = trained().eval()
    if fixed:
        return Patient(model, batches_of(), averaged=fold(model))
    folded = copy.deepcopy(model)
    for place in (0, 3):
        folded[place], folded[place + 1] = _folded(model[place], model[place + 1]), nn.Identity()
    return Patient(model, batches_of(), averaged=folded)


class NormAndActivation(nn.BatchNorm2d):
    """A batch norm that ends with ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def _network() -> nn.Sequential:
    return nn.Sequential(*[layer for layer in cnn(NormAndActivation) if not isinstance(layer, nn.ReLU)])


@specimen(
    before="SyncBatchNorm.convert_sync_batchnorm(model)  # norms that also activate",
    after='surgery.convert_norms(model, "sync")  # leaves what it does not know, and says so',
    damage=lambda patient: accuracy(Patient(patient.averaged)),
    measure="accuracy on the test digits after the conversion, %",
    chapter=14,
    threads=[
        ("https://github.com/huggingface/pytorch-image-models/issues/1254", "2022-05-08"),
        ("https://github.com/pytorch/pytorch/issues/187298", "2026-06-15"),
    ],
    rules=("BN-F16",),
)
def conversion_drops_the_activation(fixed: bool) -> Patient:
    """After the conversion to synchronized norms, a trained network gives garbage.

    The conversion treats every subclass of a batch norm as a plain one, and drops whatever else it does. Converting
    back for a single device does not restore it.
    """
    model = train(_network(), 150).eval()
    converted = copy.deepcopy(model)
    if fixed:
        convert_norms(converted, "sync")
        return Patient(model, batches_of(), averaged=converted)
    for place, module in enumerate(model):
        if isinstance(module, nn.BatchNorm2d):
            plain = nn.BatchNorm2d(module.num_features)
            plain.load_state_dict(module.state_dict())
            converted[place] = plain.eval()
    return Patient(model, batches_of(), averaged=converted)
