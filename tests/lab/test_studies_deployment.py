"""The study of deployment: costs counted by hand, cameras, adaptation against the same thing step by step."""

import copy

import pytest
import torch
from torch import nn

from bncourse.data import Examples, digits
from bncourse.models import fc_network
from bncourse.studies.deployment import adapted_accuracy, macs, quantized, shifted_domain


def test_macs_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    found = macs(model, torch.zeros(2, 3, 8, 8))
    assert found == {"linear and convolution": 2 * (4 * 36 * 27 + 5 * 4 * 36), "batch norm": 2 * 4 * 36}
    assert not any(module._forward_hooks for module in model.modules())


def test_another_camera_changes_contrast_brightness_and_noise_only():
    data = digits(train=50, test=20)
    other = shifted_domain(data)
    for before, after in ((data.train, other.train), (data.test, other.test)):
        noise = after.images - (before.images / 2 + 0.25)
        assert torch.equal(after.labels, before.labels)
        assert abs(noise.mean().item()) < 0.01 and abs(noise.std().item() - 0.1) < 0.01
    assert torch.equal(shifted_domain(data).test.images, other.test.images)


def test_the_other_cameras():
    data = digits(train=50, test=20)
    images = data.test.images
    gamma, moved, negative = (shifted_domain(data, camera=name).test.images for name in ("gamma", "moved", "negative"))
    torch.testing.assert_close(gamma, images**0.3)
    torch.testing.assert_close(moved[..., 3:], images[..., :-3])
    torch.testing.assert_close(negative, 1 - images)
    with pytest.raises(ValueError, match="camera must be one of dull, gamma, moved, negative, got 'blind'"):
        shifted_domain(data, camera="blind")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return fc_network([6, 8, 3])


def examples(count=40):
    torch.manual_seed(1)
    return Examples(torch.randn(count, 6), torch.arange(count) % 3)


def test_a_network_adapts_to_each_batch_and_is_left_as_it_was(network):
    before, some = copy.deepcopy(network.state_dict()), examples()
    whole = adapted_accuracy(network, some, 40)
    assert whole == pytest.approx((network(some.images).argmax(1) == some.labels).double().mean().item())
    network.load_state_dict(before)
    order = some.labels.argsort()
    whole_batches = order.split(16)[:2]  # not the last 8
    right = [network(some.images[part]).argmax(1) == some.labels[part] for part in whole_batches]
    network.load_state_dict(before)
    found = adapted_accuracy(network, some, 16, in_order=True)
    assert found == pytest.approx(torch.cat(right).double().mean().item())
    torch.testing.assert_close(network.state_dict(), before)


def test_entropy_falls_in_gamma_and_beta_alone(network, monkeypatch):
    seen = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: seen.append(self) or step(self))
    before = copy.deepcopy(network.state_dict())
    adapted_accuracy(network, examples(400), 40, rate=0.01)
    assert len(seen) == 10
    (group,) = seen[0].param_groups
    assert [tuple(parameter.shape) for parameter in group["params"]] == [(8,), (8,)]
    torch.testing.assert_close(network.state_dict(), before)


def test_rounded_weights_have_few_levels_and_the_largest_stays():
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 2))
    for per_channel in (False, True):
        rounded = quantized(network, 4, per_channel)
        for before, after in ((network[0].weight, rounded[0].weight), (network[2].weight, rounded[2].weight)):
            rows = after.flatten(1) if per_channel else after.flatten()[None]
            assert all(len(row.unique()) <= 15 for row in rows)
            torch.testing.assert_close(after.abs().max(), before.abs().max())
            step = before.abs().max() / 7
            assert (after - before).abs().max() <= step / 2 + 1e-6
        assert torch.equal(rounded[2].bias, network[2].bias)
