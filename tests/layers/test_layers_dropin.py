"""Ours in place of ``torch.nn``'s: arguments, state, numbers, gradients, exceptions, layout, autograd's modes."""

import copy
import inspect
import io
import pickle
import re
import warnings

import numpy as np
import pytest
import torch
from norm_cases import ALL, BATCH, INSTANCE, ONE_EACH, RECENT, gradients, recent
from torch import nn

import bncourse

HALF = (torch.float16, torch.bfloat16)
DOUBLE = torch.float64


def all_cases(cases):
    return pytest.mark.parametrize("case", cases, ids=str)


def same_error(ours, theirs, exact=True):
    """Both raise; ours the same type (or one below it) and, where it is said, the same message."""
    with pytest.raises(Exception) as expected:
        theirs()
    with pytest.raises(type(expected.value)) as found:
        ours()
    if exact:
        assert str(found.value) == str(expected.value)
    return str(found.value)


# 1. Signature and 2. state


@recent
@all_cases(ONE_EACH)
def test_signature(case):
    ours, theirs = (inspect.signature(getattr(module, case.name).__init__).parameters for module in (bncourse, nn))
    assert [(p.name, p.default, p.kind) for p in ours.values()][1:] == [
        (p.name, p.default, p.kind) for p in theirs.values()
    ][1:]


@recent
@all_cases(ALL)
def test_state_and_attributes(case):
    ours, theirs = getattr(bncourse, case.name), getattr(nn, case.name)
    ours, theirs = (kind(*case.arguments, **case.options) for kind in (ours, theirs))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()))
    assert {k: v.dtype for k, v in ours.state_dict().items()} == {k: v.dtype for k, v in theirs.state_dict().items()}
    plain = {k: v for k, v in vars(theirs).items() if not k.startswith("_")}
    assert {k: v for k, v in vars(ours).items() if not k.startswith("_")} == plain
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    assert [name for name, _ in ours.named_buffers()] == [name for name, _ in theirs.named_buffers()]


@all_cases(ALL)
def test_several_steps_and_evaluation(case):
    ours, theirs = case.pair()
    for step in range(5):
        if step == 4:
            ours.eval(), theirs.eval()
        torch.testing.assert_close(*(gradients(layer, case.input(seed=step)) for layer in (ours, theirs)))
        torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)


@all_cases(ALL)
def test_copies(case):
    layer = case.build()
    layer(case.input(seed=1)).sum().backward()
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    copies = copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(file, weights_only=False)
    expected = gradients(layer, case.input(seed=2))
    for other in copies:
        torch.testing.assert_close(gradients(other, case.input(seed=2)), expected)
        torch.testing.assert_close(dict(other.state_dict()), dict(layer.state_dict()))
        assert all(a is not b for a, b in zip(other.parameters(), layer.parameters(), strict=True))


@all_cases(ONE_EACH)
def test_devices_and_types_of_state(case):
    layer = case.build(device="meta")
    assert all(tensor.is_meta for tensor in layer.state_dict().values())
    layer = layer.to_empty(device="cpu")
    layer.reset_parameters()
    torch.testing.assert_close(
        dict(layer.state_dict()), dict(getattr(nn, case.name)(*case.arguments, **case.options).double().state_dict())
    )
    layer.half()
    for name, tensor in layer.state_dict().items():
        assert tensor.dtype == (torch.int64 if name == "num_batches_tracked" else torch.float16)


@pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm"])
def test_a_size_may_be_numpys(name):
    layer = getattr(bncourse, name)(np.int64(4))
    assert layer.normalized_shape == (4,) and layer(torch.randn(3, 4)).shape == (3, 4)


@all_cases(ONE_EACH)
def test_a_subclass_resets_with_the_attributes_at_hand(case):
    seen = []
    for module in (bncourse, nn):

        class Sub(getattr(module, case.name)):
            def reset_parameters(self):
                super().reset_parameters()
                seen.append({name for name in vars(self) if not name.startswith("_")} | set(self._parameters))

        Sub(*case.arguments, **case.options)
    assert seen[0] >= seen[1]


@all_cases(ONE_EACH)
@recent
def test_input_has_torchs_name(case):
    ours, theirs = (inspect.signature(getattr(module, case.name).forward).parameters for module in (bncourse, nn))
    assert list(ours) == list(theirs)


def test_checkpoint_without_counter_loads_strictly():
    old = nn.BatchNorm2d(3)
    old.running_mean.fill_(7)
    state = old.state_dict()
    del state["num_batches_tracked"]
    state._metadata[""]["version"] = 1
    new = bncourse.BatchNorm2d(3)
    new.load_state_dict(state, strict=True)
    assert new.running_mean[0] == 7 and new.num_batches_tracked == 0
    meta = bncourse.BatchNorm2d(3, device="meta")
    meta.load_state_dict(state, strict=True, assign=True)
    assert meta.num_batches_tracked == 0 and not meta.num_batches_tracked.is_meta
    state._metadata[""]["version"] = 2
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        new.load_state_dict(state, strict=True)


def test_old_instance_norm_checkpoint_is_refused():
    state = {"running_mean": torch.zeros(3), "running_var": torch.ones(3)}
    for module in (bncourse, nn):
        with pytest.raises(RuntimeError, match='"running_mean"'):
            module.InstanceNorm2d(3).load_state_dict(dict(state))


@all_cases(BATCH + INSTANCE)
def test_reset(case):
    layer = case.build()
    layer(case.input())
    layer.reset_running_stats()
    fresh = getattr(nn, case.name)(*case.arguments, **case.options).double().state_dict()
    for name in set(fresh) - {"weight", "bias"}:
        torch.testing.assert_close(layer.state_dict()[name], fresh[name])
    layer.reset_parameters()
    torch.testing.assert_close(dict(layer.state_dict()), dict(fresh))


# 3. Statistics


def test_tracking_switched_off_later():
    ours, theirs = (module.BatchNorm1d(3) for module in (bncourse, nn))
    for track, training in ((True, True), (False, True), (False, False), (True, False)):
        for layer in (ours, theirs):
            layer.track_running_stats = track
            layer.train(training)
        x = torch.randn(6, 3)
        torch.testing.assert_close(ours(x), theirs(x))
        torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()))


def test_running_averages_taken_away_later():
    """As people do to make a trained layer use the batch's statistics; the counter stays."""
    results = []
    for module in (bncourse, nn):
        layer = module.BatchNorm1d(3, momentum=None)
        layer.running_mean = layer.running_var = None
        results.append((layer(torch.arange(12.0).view(4, 3).cos()), layer.num_batches_tracked))
    torch.testing.assert_close(*results)


@all_cases(BATCH)
def test_buffers_keep_their_identity(case):
    layer = case.build()
    before = dict(layer.named_buffers())
    for seed in range(3):
        layer(case.input(seed=seed))
    assert all(tensor is before[name] for name, tensor in layer.named_buffers())


def test_update_bn_finds_our_layers():
    """torch's recalibration, and whatever else asks isinstance, takes our layer for a batch norm."""
    layers = [module.BatchNorm1d(3) for module in (bncourse, nn)]
    batches = torch.randn(5, 8, 3)
    for layer in layers:
        torch.optim.swa_utils.update_bn(batches, layer)
    torch.testing.assert_close(layers[0].running_var, layers[1].running_var)
    for case in ONE_EACH:
        if case.name != "SyncBatchNorm":  # DistributedDataParallel refuses torch's on a processor
            assert isinstance(case.build(), getattr(nn, case.name))


# 4. Errors


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("shape", [(3,), (4, 3), (4, 3, 2), (4, 3, 2, 2), (4, 3, 2, 2, 2), (4, 3, 2, 2, 2, 2)], ids=len)
@pytest.mark.parametrize("norm", ["BatchNorm", "InstanceNorm"])
@recent
def test_wrong_rank(norm, rank, shape):
    ours, theirs = (getattr(module, f"{norm}{rank}d")(3) for module in (bncourse, nn))
    x = torch.randn(shape)
    try:
        theirs(x)
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error)) + "$"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ours(x)
    else:
        ours(x)


@pytest.mark.parametrize(
    ("name", "arguments", "options", "shape", "training"),
    [
        ("BatchNorm1d", (3,), {}, (1, 3), True),
        ("BatchNorm2d", (3,), {}, (1, 3, 1, 1), True),
        ("BatchNorm1d", (3,), {"track_running_stats": False}, (1, 3), False),
        ("BatchNorm1d", (3,), {"eps": 0.0}, (4, 3), True),
        ("BatchNorm1d", (3,), {"eps": -1.0}, (4, 3), False),
        ("BatchNorm1d", (3,), {}, (4, 5), True),
        ("BatchNorm1d", (3,), {}, (4, 5), False),
        ("BatchNorm1d", (3,), {"track_running_stats": False}, (4, 5), True),
        ("InstanceNorm1d", (3,), {}, (4, 3, 1), True),
        ("InstanceNorm2d", (3,), {}, (3, 1, 1), True),
        ("InstanceNorm2d", (3,), {"affine": True}, (4, 5, 2, 2), True),
        ("InstanceNorm2d", (3,), {"affine": True}, (5, 2, 2), True),
        ("GroupNorm", (2, 6), {}, (4, 8, 3), True),
        ("GroupNorm", (4, 8), {"affine": False}, (4, 6, 3), True),
        ("GroupNorm", (2, 6), {}, (6,), True),
        ("GroupNorm", (6, 6), {}, (1, 6), True),
        ("LayerNorm", (5,), {}, (2, 3), True),
        ("LayerNorm", ((5, 3),), {}, (2, 3), True),
        ("SyncBatchNorm", (3,), {}, (3,), True),
        ("SyncBatchNorm", (3,), {}, (3, 0), True),
    ],
)
@recent
def test_wrong_shape_or_eps(name, arguments, options, shape, training):
    layers = [getattr(module, name)(*arguments, **options).train(training) for module in (bncourse, nn)]
    same_error(*(lambda layer=layer: layer(torch.randn(shape)) for layer in layers))


@recent
def test_wrong_groups():
    same_error(*(lambda module=module: module.GroupNorm(3, 10) for module in (bncourse, nn)))
    for groups in (0, -2):
        with pytest.raises(RuntimeError, match=f"Expected num groups to be greater than 0, got {groups}"):
            bncourse.functional.group_norm(torch.randn(4, 6, 2), groups)
    same_error(*(lambda module=module: module.GroupNorm(0, 6) for module in (bncourse, nn)))


@recent
def test_wrong_running_averages():
    x, mean, var = torch.randn(4, 6), torch.zeros(5), torch.ones(5)
    calls = [(x, mean, var, None, None, True), (x, None, None), (x, torch.zeros(6), None, None, None, True)]
    for arguments in calls[:1] + calls[2:]:
        same_error(
            *(lambda f=f, a=arguments: f(*a) for f in (bncourse.functional.batch_norm, nn.functional.batch_norm))
        )
    with pytest.raises(RuntimeError, match="must be defined in evaluation mode"):
        bncourse.functional.batch_norm(*calls[1])
    maps = torch.randn(2, 6, 4)
    for arguments in ((maps, torch.zeros(6)), (maps, None, torch.ones(6)), (maps, *[None] * 4, False)):
        same_error(
            *(lambda f=f, a=arguments: f(*a) for f in (bncourse.functional.instance_norm, nn.functional.instance_norm))
        )
    for key in ("weight", "bias"):
        for function in (bncourse.functional, nn.functional):
            with pytest.raises(RuntimeError, match=f"{key} should contain 6 elements not 5"):
                function.batch_norm(x, None, None, training=True, **{key: torch.ones(5)})
            with pytest.raises(RuntimeError, match=f"Expected {key} to be of same shape as normalized_shape"):
                function.layer_norm(x, (6,), **{key: torch.ones(5)})
            with pytest.raises(RuntimeError, match=f"Expected {key} to be a vector of size equal"):
                function.group_norm(x, 2, **{key: torch.ones(5)})


def test_instance_norm_without_affine_warns_of_other_channels():
    for module in (bncourse, nn):
        with pytest.warns(UserWarning, match="input's size at dim=1 does not match num_features"):
            module.InstanceNorm1d(3)(torch.randn(2, 5, 4))


@all_cases(ONE_EACH)
@recent
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_input_that_is_no_number_with_a_point(case, dtype):
    x = torch.ones(case.shape, dtype=dtype)
    ours, theirs = case.pair(dtype=torch.float32)
    message = same_error(lambda: ours(x), lambda: theirs(x), exact=False)
    assert str(dtype) in message


@all_cases([case for case in ONE_EACH if case.name != "RMSNorm"])
@recent
def test_mixed_types_and_devices(case):
    if case in INSTANCE:
        case = INSTANCE[2]
    for parameters, input in ((torch.float32, DOUBLE), (DOUBLE, torch.float32), (torch.bfloat16, torch.float32)):
        ours, theirs = case.pair(dtype=parameters)
        x = case.input(input)
        message = same_error(lambda: ours(x), lambda: theirs(x), exact=False)  # noqa: B023
        assert str(parameters) in message and str(input) in message
    ours, theirs = case.pair(dtype=torch.float32)
    x = case.input(torch.float32).to("meta")
    message = same_error(lambda: ours(x), lambda: theirs(x), exact=False)
    assert "meta" in message and "cpu" in message


# 5. Empty batch


@all_cases(ONE_EACH)
@pytest.mark.parametrize("training", [True, False])
def test_empty_batch(case, training):
    shape = (0, *case.shape[1:])
    for layer in case.pair()[: 1 if case in INSTANCE else 2]:  # torch's tracking InstanceNorm fails, or tracks NaN
        layer.train(training)
        before = copy.deepcopy(layer.state_dict())
        x = torch.randn(shape, dtype=DOUBLE, requires_grad=True)
        y = layer(x)
        assert y.shape == shape
        y.sum().backward()
        assert all(not p.grad.any() and p.grad.shape == p.shape for p in layer.parameters())
        assert x.grad.shape == shape
        after = layer.state_dict()
        counter = after.pop("num_batches_tracked", None)
        if counter is not None:
            assert counter == before.pop("num_batches_tracked") + int(training and case not in INSTANCE)
        torch.testing.assert_close(dict(after), dict(before))


# 6. Types


@all_cases(ALL)
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("parameters", ["float32", "same"])
def test_half_precision(case, dtype, parameters):
    """The input's type comes back; the statistics are those of float32."""
    ours, theirs = case.pair(dtype=torch.float32 if parameters == "float32" else dtype)
    results = [gradients(layer, case.input(dtype)) for layer in (ours, theirs)]
    exact = case.build(dtype=torch.float32)
    reference, _ = gradients(exact, case.input(dtype).detach().float().requires_grad_())
    assert results[0][0].dtype == dtype
    assert [g.dtype for g in results[0][1]] == [g.dtype for g in results[1][1]]
    if parameters == "float32":
        torch.testing.assert_close(results[0][0], reference.to(dtype), rtol=0, atol=0)
        for name, value in ours.named_buffers():
            torch.testing.assert_close(value, exact.get_buffer(name))
    tolerance = 0.1 if dtype == torch.bfloat16 else 0.02
    torch.testing.assert_close(results[0][1], results[1][1], rtol=tolerance, atol=tolerance)
    assert {n: b.dtype for n, b in ours.named_buffers()} == {n: b.dtype for n, b in theirs.named_buffers()}


@all_cases(ONE_EACH)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_passes_types_through(case, dtype):
    ours, theirs = case.pair(dtype=torch.float32)
    outside = ours(case.input(dtype))
    ours, theirs = case.pair(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, expected = ours(case.input(dtype)), theirs(case.input(dtype))
    assert y.dtype == dtype and (y.dtype == expected.dtype or not RECENT)
    torch.testing.assert_close(y, outside)


@pytest.mark.parametrize("input", [*HALF, torch.float32, DOUBLE])
@pytest.mark.parametrize("parameters", [*HALF, torch.float32, DOUBLE])
@pytest.mark.parametrize("compiled", [False, True])
@recent
def test_rms_norm_mixes_types(input, parameters, compiled):
    """As torch's, and only this layer: models keep float32 activations and bfloat16 weights."""
    case = next(case for case in ONE_EACH if case.name == "RMSNorm")
    ours, theirs = case.pair(dtype=parameters)
    if compiled:
        torch.compiler.reset()
        ours.compile(backend="aot_eager", fullgraph=True)
    tolerance = {torch.bfloat16: 0.03, torch.float16: 4e-3}.get(input, 1e-5)
    rounded = {torch.bfloat16: 0.03, torch.float16: 4e-3}.get(parameters, tolerance)
    (y, (dx, dweight)), (expected, (dx_expected, dweight_expected)) = (
        gradients(layer, case.input(input)) for layer in (ours, theirs)
    )
    torch.testing.assert_close((y, dx), (expected, dx_expected), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(
        dweight, dweight_expected, rtol=max(tolerance, rounded), atol=5 * max(tolerance, rounded)
    )


# 7. Layout


@all_cases(ALL)
def test_channels_last(case):
    memory_format = {4: torch.channels_last, 5: torch.channels_last_3d}.get(len(case.shape))
    if memory_format is None:
        pytest.skip("channels last is for four and five dimensions")
    ours, theirs = case.pair()
    x = case.input().detach().contiguous(memory_format=memory_format).requires_grad_()
    results = [gradients(layer, x) for layer in (ours, theirs)]
    torch.testing.assert_close(*results)
    assert results[0][0].stride() == results[1][0].stride()


@all_cases(ALL)
@pytest.mark.parametrize("layout", ["transposed", "strided", "expanded"])
def test_input_and_gradient_that_are_not_contiguous(case, layout):
    ours, theirs = case.pair()

    def lay_out(x):
        if layout == "transposed":
            return x.transpose(0, -1).contiguous().transpose(0, -1)
        if layout == "strided":
            return torch.stack([x, x], dim=-1)[..., 0]
        return x

    x = lay_out(case.input().detach()).requires_grad_()
    dy = lay_out(torch.randn(case.shape, dtype=DOUBLE))
    if layout == "expanded":
        dy = torch.ones(1, dtype=DOUBLE).expand(case.shape)
    results = [gradients(layer, x, dy) for layer in (ours, theirs)]
    torch.testing.assert_close(*results)
    assert results[0][0].stride() == results[1][0].stride() or not RECENT
    results[0][0].view(-1)  # as after torch's layer


# 8. Autograd


@all_cases(ALL)
@pytest.mark.parametrize("training", [True, False])
def test_derivatives(case, training):
    """First and second derivatives, forward and reverse mode, one by one and batched, of input and parameters."""
    layer = case.build().train(training)
    names = [name for name, _ in layer.named_parameters()]

    def function(x, *parameters):
        state = {name: buffer.clone() for name, buffer in layer.named_buffers()}
        return torch.func.functional_call(layer, {**dict(zip(names, parameters, strict=True)), **state}, (x,))

    inputs = (case.input(), *layer.parameters())
    options = {"check_batched_grad": True, "fast_mode": True}
    torch.autograd.gradcheck(function, inputs, check_forward_ad=True, **options)
    torch.autograd.gradgradcheck(function, inputs, check_fwd_over_rev=True, **options)


@all_cases(ONE_EACH)
def test_torch_func(case):
    layer = case.build().eval()
    state = dict(layer.state_dict())
    x = case.input().detach()

    def loss(weight, x):
        return torch.func.functional_call(layer, {**state, "weight": weight}, (x,)).square().sum()

    if "weight" in state:
        x_gradient, w_gradient = torch.func.grad(loss, (1, 0))(state["weight"], x)
        y = case.input()
        layer(y).square().sum().backward()
        torch.testing.assert_close((x_gradient, w_gradient), (y.grad, layer.weight.grad))
    stacked = torch.stack([x, 2 * x, x + 1])
    torch.testing.assert_close(torch.vmap(layer)(stacked), torch.stack([layer(x) for x in stacked]))
    tangent = torch.randn_like(x)
    _, forward = torch.func.jvp(layer, (x,), (tangent,))
    numeric = (layer(x + 1e-6 * tangent) - layer(x - 1e-6 * tangent)) / 2e-6
    torch.testing.assert_close(forward, numeric, rtol=1e-5, atol=1e-5)


def test_vectorized_seeds():
    """Many networks in one: parameters and running averages stacked, one shared input, gradients for each."""
    layers = [bncourse.BatchNorm1d(3, momentum=momentum) for momentum in (0.1, 0.1, 0.1)]
    for layer in layers:
        nn.init.normal_(layer.weight)
    parameters, buffers = torch.func.stack_module_state(layers)
    x = torch.randn(8, 3)

    def loss(parameters, buffers):
        return torch.func.functional_call(layers[0], (parameters, buffers), (x,)).pow(3).sum()

    found = torch.vmap(torch.func.grad(loss))(parameters, buffers)
    for number, layer in enumerate(layers):
        layer(x).pow(3).sum().backward()
        torch.testing.assert_close(found["weight"][number], layer.weight.grad)
        torch.testing.assert_close(buffers["running_var"][number], layer.running_var)
        assert buffers["num_batches_tracked"][number] == 1


@all_cases(ONE_EACH)
def test_frozen_no_grad_and_inference_mode(case):
    layer = case.build()
    expected = layer(case.input())
    with torch.no_grad():
        assert not layer(case.input()).requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(layer(case.input().detach()), expected.detach())
    frozen = case.build().requires_grad_(False)
    (dx,) = gradients(frozen, x := case.input())[1]
    torch.testing.assert_close(dx, gradients(case.build(), x)[1][0])
    assert not case.build().requires_grad_(False)(x.detach()).requires_grad
    assert case.build()(x.detach()).requires_grad == bool(list(layer.parameters()))


def test_no_graph_grows_through_the_running_averages():
    layer = bncourse.BatchNorm1d(3)
    for _ in range(3):
        layer(torch.randn(4, 3, requires_grad=True)).sum().backward()
    assert layer.running_mean.grad_fn is None and not layer.running_var.requires_grad
    copy.deepcopy(layer)
    layer.eval()
    layer(torch.randn(4, 3, requires_grad=True)).sum().backward()


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_jit_trace():
    for case in (BATCH[2], *ONE_EACH[-3:]):
        layer = case.build().eval()
        traced = torch.jit.trace(layer, case.input().detach())
        x = case.input(seed=5).detach()
        torch.testing.assert_close(traced(x), layer(x))
