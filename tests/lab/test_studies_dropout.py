"""The dropout study: formula against simulation."""

import pytest
import torch
from torch import nn

from bncourse.models import fc_network
from bncourse.studies.dropout import measured_ratio, ratios_around_training, stopped_early, variance_ratio
from bncourse.studies.many_networks import ManyNetworks, evaluate_many


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_ratio_is_that_of_dropped_values(keep, shift):
    torch.manual_seed(0)
    x = torch.randn(400_000) + shift
    dropped = nn.functional.dropout(x, 1 - keep)
    assert variance_ratio(x, keep) == pytest.approx((x.var() / dropped.var()).item(), rel=0.02)


def test_ratio_of_standard_cases():
    torch.manual_seed(0)
    x = torch.randn(400_000)
    assert variance_ratio(x, 0.5) == pytest.approx(0.5, abs=0.005)  # zero mean: the keep probability itself
    pi = torch.pi  # a rectified normal: mean square 1/2, squared mean 1/(2 pi)
    assert variance_ratio(x.relu(), 0.5) == pytest.approx((0.5 - 0.5 / pi) / (1 - 0.5 / pi), abs=0.005)


@pytest.mark.parametrize("keep", [0, -1, 1.5])
def test_keep_out_of_range(keep):
    with pytest.raises(ValueError, match="keep must be above 0"):
        variance_ratio(torch.randn(3), keep)


def test_measured_ratio_of_dropout_right_before_a_norm():
    torch.manual_seed(0)
    model = fc_network([20, 30, 2], "relu dropout batch", drop=0.5)
    images = torch.randn(4000, 20)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        features = model[1](images).relu()
    expected = sum(variance_ratio(feature, 0.5) for feature in features.T) / 30
    assert measured_ratio(model, model[4], images) == pytest.approx(expected, abs=0.02)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_stopping_early_takes_the_test_accuracy_of_the_lowest_validation_loss():
    """With a validation set whose labels turn out wrong, the best epoch is the first look, before training."""
    torch.manual_seed(0)
    images = torch.randn(2, 60, 4)
    labels = (images[..., 0] > 0).long()
    networks = ManyNetworks([4, 8, 2], [0, 1], "none")
    start = evaluate_many(networks, (images, labels)).accuracy
    sets = (images, labels), (images, 1 - labels), (images, labels)
    found = stopped_early(networks, *sets, batch_size=20, epochs=8, rate=0.5)
    assert found.epoch.tolist() == [0, 0]
    torch.testing.assert_close(found.early, start)
    torch.testing.assert_close(found.last, evaluate_many(networks, (images, labels)).accuracy)
    right = stopped_early(networks, *[(images, labels)] * 3, batch_size=20, epochs=8, rate=0.5)
    assert (right.epoch > 0).all() and (right.memorized > 0.9).all()


def test_ratios_before_training_are_those_of_the_fresh_network_and_shuffled_weights_change_them():
    images, labels = torch.randn(60, 12), torch.randint(10, (60,))
    found = ratios_around_training(16, images, labels, seed=3, epochs=1)
    torch.manual_seed(3)
    fresh = fc_network([12, 16, 64, 10], "batch relu dropout", drop=0.5)
    assert found.untrained == pytest.approx(measured_ratio(fresh, fresh[6], images))
    assert len({*found}) == 3 and all(0 < ratio < 1 for ratio in found)
