"""ONNX's normalization cases, made by ONNX's own numpy code, run on our functions.

ONNX's momentum weights the OLD value, and it tracks the biased variance: both are converted before comparing.
"""

import importlib

import pytest
import torch

from bncourse import functional as F
from bncourse.standardize import standardize

onnx = pytest.importorskip("onnx")

MODULES = {
    "BatchNormalization": "batch_normalization",
    "LayerNormalization": "layernormalization",
    "InstanceNormalization": "instance_normalization",
    "GroupNormalization": "groupnormalization",
    "RMSNormalization": "rmsnormalization",
}


def collect():
    from onnx.backend.test.case import node

    for module in MODULES.values():  # importing a module of cases makes them
        importlib.import_module(f"onnx.backend.test.case.node.{module}")
    for case in list(node._NodeTestCases):
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in MODULES:
            yield pytest.param(case, id=case.name)


CASES = [*collect()]


def batch(inputs, training_mode=0, momentum=0.9, epsilon=1e-5):
    x, weight, bias, mean, var = inputs
    mean, var, old = mean.clone(), var.clone(), var.clone()
    y = F.batch_norm(x, mean, var, weight, bias, bool(training_mode), 1 - momentum, epsilon)
    if not training_mode:
        return [y]
    count = x.numel() // x.size(1)
    biased = (var - momentum * old) * (count - 1) / count + momentum * old
    return [y, mean, biased]


def layer(inputs, axis=-1, epsilon=1e-5):
    x, weight, *bias = inputs
    axis %= x.dim()
    y = F.layer_norm(x, x.shape[axis:], weight, *bias, eps=epsilon)
    _, mean, variance = standardize(x, tuple(range(axis, x.dim())), eps=epsilon)
    return [y, mean, (variance + epsilon).rsqrt()]


def instance(inputs, epsilon=1e-5):
    x, weight, bias = inputs
    return [F.instance_norm(x, weight=weight, bias=bias, eps=epsilon)]


def group(inputs, num_groups, epsilon=1e-5):
    x, weight, bias = inputs
    return [F.group_norm(x, num_groups, weight, bias, epsilon)]


def rms(inputs, axis=-1, epsilon=1e-5):
    x, weight = inputs
    return [F.rms_norm(x, x.shape[axis % x.dim() :], weight, epsilon)]


FUNCTIONS = dict(zip(MODULES, (batch, layer, instance, group, rms), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_case(case):
    node = case.model.graph.node[0]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    for inputs, outputs in case.data_sets:
        ours = FUNCTIONS[node.op_type]([torch.from_numpy(x) for x in inputs], **attributes)
        for result, expected in zip(ours, outputs, strict=False):
            torch.testing.assert_close(result, torch.from_numpy(expected), rtol=case.rtol, atol=1e-6)


def test_counts(capsys):
    """Every normalization of the list has cases."""
    counts = {name: sum(case.values[0].model.graph.node[0].op_type == name for case in CASES) for name in MODULES}
    with capsys.disabled():
        print(f"\nONNX's node cases: {len(CASES)} ({', '.join(f'{k} {v}' for k, v in counts.items())})", end=" ")
    assert all(counts.values())
