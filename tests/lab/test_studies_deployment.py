"""The study of deployment: costs counted by hand."""

import torch
from torch import nn

from bncourse.data import digits
from bncourse.studies.deployment import macs, shifted_domain


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
