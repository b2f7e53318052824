"""The cases that ship inside torch for its own modules, run on ours: every sample input and every error input.

Each sample, in training and evaluation, in float32 and float64: the same output, gradients and state as torch's layer
with the same state, twice in a row; the case's own reference where it brings one; pickle. In float64 also torch's
checks of first and second derivatives.
"""

import copy
import pickle

import pytest
import torch
from norm_cases import RECENT

import bncourse

common_modules = pytest.importorskip("torch.testing._internal.common_modules", reason="asks for expecttest")

NAMES = [f"{norm}{rank}d" for norm in ("BatchNorm", "InstanceNorm") for rank in (1, 2, 3)]
NAMES += ["GroupNorm", "LayerNorm", "RMSNorm"]
INFOS = [info for info in common_modules.module_db if info.module_cls.__name__ in NAMES]


def samples(dtype: torch.dtype):
    for info in INFOS:
        for training in (True, False):
            with torch.random.fork_rng():
                torch.manual_seed(0)
                inputs = info.module_inputs_func(info, "cpu", dtype, requires_grad=True, training=training)
            for number, sample in enumerate(inputs):
                name = f"{info.module_cls.__name__}-{'train' if training else 'eval'}-{number}-{sample.desc}"
                yield pytest.param(info, sample, training, dtype, id=f"{name}-{str(dtype)[6:]}")


def error_inputs():
    for info in INFOS:
        if info.module_error_inputs_func is not None:
            errors = info.module_error_inputs_func(
                info, device="cpu", dtype=torch.float32, requires_grad=False, training=True
            )
            for number, error in enumerate(errors):
                yield pytest.param(info, error, id=f"{info.module_cls.__name__}-error-{number}")


def build(module, info, sample, training, dtype):
    arguments = sample.constructor_input
    layer = getattr(module, info.module_cls.__name__)(*arguments.args, **arguments.kwargs).to(dtype)
    return layer.train(training)


@pytest.mark.parametrize(("info", "sample", "training", "dtype"), [*samples(torch.float32), *samples(torch.float64)])
def test_sample(info, sample, training, dtype):
    torch.manual_seed(0)
    ours, theirs = (build(module, info, sample, training, dtype) for module in (bncourse, torch.nn))
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
    theirs.load_state_dict(ours.state_dict())
    assert repr(ours) == repr(theirs) or not RECENT
    for _ in range(2):
        results = []
        for layer in (ours, theirs):
            inputs = copy.deepcopy(sample.forward_input.args)
            output = layer(*inputs, **sample.forward_input.kwargs)
            wanted = [x for x in (*inputs, *layer.parameters()) if x.requires_grad]
            results.append((output, torch.autograd.grad(output.square().sum(), wanted), dict(layer.state_dict())))
        tolerance = {} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-4}  # sums in another order
        torch.testing.assert_close(*results, **tolerance)
    if sample.reference_fn is not None:
        reference = sample.reference_fn(ours, *inputs)  # that of RMSNorm computes in float32 whatever the input
        torch.testing.assert_close(ours(*inputs), reference, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(pickle.loads(pickle.dumps(ours)).eval()(*inputs), ours.eval()(*inputs))
    if dtype == torch.float64:
        ours.train(training)
        torch.autograd.gradcheck(ours, inputs, fast_mode=True)
        torch.autograd.gradgradcheck(ours, inputs, fast_mode=True)


@pytest.mark.parametrize(("info", "error"), [*error_inputs()])
def test_error(info, error):
    sample = error.module_error_input
    with pytest.raises(error.error_type, match=error.error_regex):
        layer = build(bncourse, info, sample, True, torch.float32)
        layer(*sample.forward_input.args, **sample.forward_input.kwargs)


def test_counts(record_property, capsys):
    """Nothing that torch brings for these modules is left out."""
    assert len(INFOS) == len(NAMES)
    cases = len([*samples(torch.float32)]), len([*samples(torch.float64)]), len([*error_inputs()])
    record_property("cases", cases)
    with capsys.disabled():
        print(f"\ntorch's module cases: {sum(cases[:2])} samples and {cases[2]} error inputs", end=" ")
    assert cases[0] == cases[1] > 80 and (cases[2] > 0 or not RECENT)
