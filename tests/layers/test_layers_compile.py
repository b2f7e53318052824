"""torch.compile without graph breaks, and torch.export, in training and evaluation; momentum=None too."""

import shutil

import pytest
import torch
from norm_cases import ALL, BATCH, ONE_EACH, Case, gradients, recent

import bncourse

NO_AVERAGE = Case("BatchNorm2d", (3,), {"momentum": None}, (4, 3, 5, 5))
VARIANTS = [
    Case("GhostBatchNorm", (3, 2), {}, (4, 3, 5, 5)),
    Case("BatchRenorm", (3,), {}, (4, 3, 5, 5)),
]
slow = pytest.mark.skipif(shutil.which("gcc") is None and shutil.which("clang") is None, reason="no C compiler")


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("case", "training"),
    [(case, True) for case in [*ALL, NO_AVERAGE, *VARIANTS]] + [(case, False) for case in [*ONE_EACH, NO_AVERAGE]],
    ids=str,
)
def test_one_graph_forward_and_backward(case, training):
    """The whole layer and its gradients are traced into one graph each (traced, not made machine code)."""
    plain, compiled = (case.build().train(training) for _ in range(2))
    traced = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    for seed in range(2):
        torch.testing.assert_close(
            gradients(traced, case.input(seed=seed)), gradients(plain, case.input(seed=seed)), rtol=1e-7, atol=1e-7
        )
    torch.testing.assert_close(dict(compiled.state_dict()), dict(plain.state_dict()))


@slow
@pytest.mark.parametrize("case", [BATCH[0], NO_AVERAGE], ids=str)
def test_machine_code(case):
    plain, compiled = (case.build(dtype=torch.float32) for _ in range(2))
    traced = torch.compile(compiled, fullgraph=True)
    x = case.input(torch.float32)
    torch.testing.assert_close(gradients(traced, x), gradients(plain, x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dict(compiled.state_dict()), dict(plain.state_dict()))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", [*ONE_EACH, NO_AVERAGE, *VARIANTS], ids=str)
def test_export(case, training):
    plain, other = (case.build().train(training) for _ in range(2))
    x = case.input().detach()
    exported = torch.export.export(other, (x,)).module()
    torch.testing.assert_close(exported(x), plain(x))
    expected = plain.state_dict()  # some versions of torch leave unused buffers out of the exported state
    for name, value in exported.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=lambda m: f"{case}, {name}: {m}")  # noqa: B023


def test_export_with_any_batch_size():
    layer = bncourse.BatchNorm2d(3).eval()
    x = torch.randn(4, 3, 5, 5)
    exported = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2, max=64)},))
    torch.testing.assert_close(exported.module()(x[:3]), layer(x[:3]))


@recent
def test_compiled_transforms():
    """torch.func inside torch.compile: vmap, gradient and forward mode of a layer."""
    layer, x = bncourse.LayerNorm(6), torch.randn(4, 3, 6)
    functions = [
        torch.vmap(layer),
        lambda x: torch.func.grad(lambda x: layer(x).pow(3).sum())(x),
        lambda x: torch.func.jvp(layer, (x,), (2 * x + 1,))[1],
    ]
    for function in functions:
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), function(x))
