"""ONNX's normalization cases, made by ONNX's own numpy code, run on our functions; and our layers exported to ONNX.

ONNX's momentum weights the OLD value, and it tracks the biased variance: both are converted before comparing.
"""

import importlib
import inspect
import io
import warnings

import pytest
import torch
from torch import nn

import bncourse
from bncourse import functional as F
from bncourse.standardize import standardize
from bncourse.surgery import replace_norms

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


LAYERS = {
    "BatchNormalization": (bncourse.BatchNorm2d, (2, 6, 4, 4)),
    "InstanceNormalization": (bncourse.InstanceNorm2d, (2, 6, 4, 4)),
    "LayerNormalization": (bncourse.LayerNorm, (2, 6)),
}


def exported(model, x):
    """The operators of an exported model, and its output in ONNX's own interpreter."""
    file = io.BytesIO()
    legacy = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's other exporter needs packages of its own
        torch.onnx.export(model, (x,), file, input_names=["x"], opset_version=17, **legacy)
    model = onnx.load_from_string(file.getvalue())
    output = importlib.import_module("onnx.reference").ReferenceEvaluator(model).run(None, {"x": x.numpy()})[0]
    return {node.op_type for node in model.graph.node}, torch.from_numpy(output)


@pytest.mark.parametrize("operator", LAYERS)
def test_export(operator):
    """Ours become arithmetic with the same result; torch's, which ``replace_norms`` puts back, a norm operator."""
    kind, shape = LAYERS[operator]
    torch.manual_seed(0)
    model, x = nn.Sequential(kind(6)), torch.randn(shape)
    model(x + 1)
    expected = model.eval()(x)
    operators, output = exported(model, x)
    assert operator not in operators
    torch.testing.assert_close(output, expected)
    replace_norms(model, to="torch")
    operators, output = exported(model, x)
    assert operator in operators
    torch.testing.assert_close(output, expected)
