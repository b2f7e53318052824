"""Tools that take models apart, average or rerun them: torch.fx, fusion, scripts, update_bn, checkpoints."""

import copy
import functools
import inspect

import pytest
import torch
from norm_cases import RECENT, recent
from torch import fx, nn
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.utils.checkpoint import checkpoint

import bncourse
from bncourse import functional

LAYERS = [  # layer, input
    (bncourse.BatchNorm1d(6), (5, 6)),
    (bncourse.BatchNorm2d(6), (5, 6, 3, 2)),
    (bncourse.BatchNorm3d(6), (5, 6, 3, 2, 2)),
    (bncourse.LayerNorm([3, 2]), (5, 6, 3, 2)),
    (bncourse.RMSNorm(6), (5, 2, 6)),
    (bncourse.GroupNorm(3, 6), (5, 6, 3)),
    (bncourse.InstanceNorm1d(6, affine=True), (5, 6, 3)),
    (bncourse.InstanceNorm3d(6, track_running_stats=True), (5, 6, 3, 2, 2)),
    (bncourse.SyncBatchNorm(6), (5, 6, 3)),
    (bncourse.GhostBatchNorm(6, 3), (5, 6)),
    (bncourse.BatchRenorm(6), (5, 6, 3)),
    (bncourse.WeightStandardizedConv2d(6, 4, 3), (5, 6, 3, 3)),
]
BATCH_NORMS = [
    functools.partial(bncourse.BatchNorm1d, 2),
    functools.partial(bncourse.SyncBatchNorm, 2),
    functools.partial(bncourse.GhostBatchNorm, 2, 7),
    functools.partial(bncourse.BatchRenorm, 2),
]
layers = pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: type(value).__name__)
batch_norms = pytest.mark.parametrize("build", BATCH_NORMS, ids=lambda build: build.func.__name__)


@layers
def test_fx_takes_a_layer_as_one_step(layer, shape):
    """The graph holds the layer itself: it still has its two modes, its parameters and its memory."""
    model = nn.Sequential(nn.Identity(), layer).train()
    graph = fx.symbolic_trace(model)
    assert [node.target for node in graph.graph.nodes if node.op == "call_module"] == ["0", "1"]
    x = torch.randn(shape) + 3
    for mode in (True, False):
        model.train(mode), graph.train(mode)
        expected = copy.deepcopy(model)(x)
        torch.testing.assert_close(graph(x), expected)
    assert list(inspect.signature(layer.forward).parameters) == ["x" if isinstance(layer, nn.RMSNorm) else "input"]


def test_fx_does_not_skip_what_a_subclass_adds():
    """It is traced as a subclass of torch's layer is: through its own forward, which ends at the checks."""

    class WithActivation(bncourse.BatchNorm2d):
        def forward(self, input):
            return super().forward(input) + 1

    with pytest.raises(fx.proxy.TraceError):
        fx.symbolic_trace(nn.Sequential(WithActivation(3)))
    with pytest.raises(fx.proxy.TraceError):  # nor can fx look into a single layer
        fx.symbolic_trace(bncourse.BatchNorm2d(3))


def test_fx_takes_a_function_as_one_step():
    x = torch.randn(4, 6, 3)
    for norm, arguments in (
        (functional.batch_norm, (None, None, None, None, True)),
        (functional.layer_norm, ((6, 3),)),
        (functional.group_norm, (2,)),
        (functional.instance_norm, ()),
        (functional.rms_norm, ((3,),)),
    ):
        graph = fx.symbolic_trace(lambda input: norm(2 * input, *arguments))  # noqa: B023
        torch.testing.assert_close(graph(x), norm(2 * x, *arguments))


@batch_norms
def test_update_bn_finds_every_batch_norm(build):
    model = AveragedModel(nn.Sequential(nn.Linear(2, 2), build()))
    x = torch.randn(28, 2) * torch.tensor([1.0, 5.0]) - 4
    update_bn(x.split(14), model)
    y = model.module[0](x)
    torch.testing.assert_close(model.module[1].running_mean, y.mean(0))


@batch_norms
@pytest.mark.parametrize("reentrant", [True, False])
def test_counter_and_averages_move_together_under_checkpointing(build, reentrant):
    """With momentum=None, whatever is computed again: every batch weighs the same."""
    layer = build(momentum=None)
    batches = [torch.tensor([[mean, -mean]]) + torch.tensor([[-1.0], [1.0]]).repeat(7, 2) for mean in (1.0, 5.0, 12.0)]
    for batch in batches:
        checkpoint(layer, batch.requires_grad_(), use_reentrant=reentrant).square().sum().backward()
    torch.testing.assert_close(layer.running_mean, torch.tensor([6.0, -6.0]), rtol=0, atol=0.3)
    assert not layer.num_batches_tracked % 3  # as often for each batch


def test_a_batch_that_is_refused_does_not_count():
    layer = bncourse.BatchNorm1d(3)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        layer(torch.randn(1, 3))
    assert layer.num_batches_tracked == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_script(tmp_path):
    """torch.jit.script compiles torch's layer with our tensors, so that it can be saved too; or it says what to do."""
    for layer, shape in LAYERS[:8]:
        model, x = nn.Sequential(nn.Identity(), layer), torch.randn(shape)
        with pytest.warns(UserWarning, match=f"puts torch.nn.{type(layer).__name__} in the place"):
            scripted = torch.jit.script(copy.deepcopy(model))
        for mode in (True, False):
            model.train(mode), scripted.train(mode)
            torch.testing.assert_close(scripted(x), model(x))
        torch.jit.save(scripted, tmp_path / "model.pt")
        torch.testing.assert_close(torch.jit.load(tmp_path / "model.pt")(x), model(x))
    for layer, _ in LAYERS[8:]:
        with pytest.raises(NotImplementedError, match=f"cannot compile {type(layer).__name__}.*torch.export"):
            torch.jit.script(nn.Sequential(layer))


@recent
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fusion():
    """fx's fusion leaves our layers as they are; the eager one finds them by exact class, which one can tell it."""
    from torch.ao.quantization import fuse_modules
    from torch.ao.quantization.fuser_method_mappings import fuse_conv_bn_relu
    from torch.fx.experimental.optimization import fuse

    model = nn.Sequential(nn.Conv2d(3, 4, 1), bncourse.BatchNorm2d(4), nn.ReLU()).eval()
    nn.init.normal_(model[1].running_mean), nn.init.uniform_(model[1].running_var, 0.5, 2)
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(fuse(model)(x), model(x))
    mapping = {(nn.Conv2d, bncourse.BatchNorm2d, nn.ReLU): fuse_conv_bn_relu}
    fused = fuse_modules(model, [["0", "1", "2"]], fuse_custom_config_dict={"additional_fuser_method_mapping": mapping})
    assert isinstance(fused[1], nn.Identity)
    torch.testing.assert_close(fused(x), model(x))


@pytest.mark.skipif(not RECENT, reason="older versions of torch cannot do as much with nested tensors")
@pytest.mark.parametrize("layer", [bncourse.LayerNorm(4), bncourse.RMSNorm(4), bncourse.LayerNorm([3, 4])], ids=str)
def test_sequences_of_different_lengths(layer):
    layer = layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    inside = layer.normalized_shape
    sequences = [torch.randn(length, *inside, dtype=torch.float64, requires_grad=True) for length in (3, 1, 6)]
    nested = torch.nested.as_nested_tensor(sequences, layout=torch.jagged)
    y = layer(nested)
    assert y.shape[1] == nested.shape[1]  # one ragged axis: they can be added
    wanted = (*sequences, *layer.parameters())
    found = torch.autograd.grad((y * y + nested).values().sum(), wanted)
    expected = [layer(sequence) for sequence in sequences]
    torch.testing.assert_close(list(y.unbind()), expected)
    loss = sum((y * y).sum() + x.sum() for y, x in zip(expected, sequences, strict=True))
    torch.testing.assert_close(found, torch.autograd.grad(loss, wanted))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_that_no_norm_takes():
    jagged = torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(4, 3)], layout=torch.jagged)
    strided = torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(4, 3)])
    for call in (lambda: bncourse.LayerNorm(3)(strided), lambda: functional.layer_norm(jagged, (4, 3))):
        with pytest.raises(NotImplementedError, match=r"layer_norm takes a nested tensor in the layout torch\.jagged"):
            call()
    with pytest.raises(NotImplementedError, match="batch_norm does not take nested tensors"):
        functional.batch_norm(jagged, None, None, training=True)
