"""Chapter 4: the noise of batch statistics, layer by layer, and small training sets on which it can matter."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from bncourse.data import DataSet, Examples
from bncourse.devices import seeded
from bncourse.probes import Call, watch
from bncourse.standardize import standardize
from bncourse.studies.many_networks import ManyLinear, ManyNetworks, SideBySide
from bncourse.training import Evaluation

__all__ = [
    "Rotation",
    "at_best_temperature",
    "dropout_by_layer",
    "noise_by_layer",
    "normalized_in_batches",
    "predicted_noise",
    "small_sets",
    "thumbnails",
    "with_wrong_labels",
]


def normalized_in_batches(
    z: Tensor, sample: int, batch_size: int, batches: int, generator: torch.Generator | None = None
) -> Tensor:
    """One sample's values, each time normalized with others drawn at random.

    The result is (batches, features).

    Args:
        z: the outputs of a layer for many samples, (N, features).
        sample: which of them to watch; it is in every batch.
        batch_size: the samples of a batch, the watched one included.

    Raises:
        ValueError: fewer than two samples in a batch.
    """
    if batch_size < 2:
        raise ValueError(f"batch_size must be at least 2, got {batch_size}")
    others = torch.randint(len(z), (batches, batch_size - 1), generator=generator)
    # (batches, batch_size, features)
    together = torch.cat([z[sample].expand(batches, 1, -1), z[others]], dim=1)
    return standardize(together, (1,))[0][:, 0]


def predicted_noise(z: Tensor, sample: int, batch_size: int) -> float:
    """The variance of ``normalized_in_batches``, to first order in the errors of mean and variance (its feature mean).

    (1 + s u + (k - 1) u² / 4) / batch_size, for the sample's standardized value u and a feature of skewness s and
    kurtosis k over ``z`` (N, features).
    """
    u = (z - z.mean(0)) / z.std(0, correction=0)
    factor = 1 + (u**3).mean(0) * u[sample] + ((u**4).mean(0) - 1) / 4 * u[sample] ** 2
    return factor.mean().item() / batch_size


@torch.no_grad()
def noise_by_layer(networks: ManyNetworks, images: Tensor, *, samples: int = 4, batches: int = 64) -> Tensor:
    """The variance that a sample's normalized values have because its batch differs, in every layer: (layers, S).

    The mean over features and ``samples``, in units of the variance of x-hat (γ² is divided out). What enters a layer
    is noisy by the layers before.

    Args:
        networks: with a ``ghost_size``, which is the batch size.
        images: (S, N, F); the first ``samples`` are watched, each in ``batches`` with others drawn at random.
    """
    size = networks[1].norm.ghost_size
    drawn = torch.randint(images.shape[1], (samples, batches, size), generator=torch.Generator().manual_seed(0))
    drawn[:, :, 0] = torch.arange(samples).unsqueeze(1)
    return _varies(networks, images[:, drawn.flatten()], slice(0, None, size), samples)


@torch.no_grad()
def dropout_by_layer(networks: ManyNetworks, images: Tensor, *, samples: int = 4, draws: int = 16) -> Tensor:
    """``noise_by_layer`` of dropout: the variance of the normalized values over what dropout draws, (layers, S).

    The batch is all images, and the copies of a few, so its statistics hardly vary. Dropout comes after the activation,
    so the first norm sees none.

    Args:
        networks: with ``dropout``.
        images: (S, N, F); the first ``samples`` are watched, each in ``draws`` copies.
    """
    copies = images[:, :samples].repeat_interleave(draws, 1)
    with seeded(0):
        return _varies(networks, torch.cat([images, copies], 1), slice(images.shape[1], None), samples)


def _varies(networks: ManyNetworks, batch: Tensor, watched: slice, samples: int) -> Tensor:
    """Of each of the ``samples``, which stand in the batch as often: over its copies, in every layer (layers, S)."""
    found = []

    def note(call: Call) -> None:
        copies = call.output[:, watched].unflatten(1, (samples, -1))  # (S, samples, copies, F)
        gamma = call.layer.norm.weight.view(len(batch), 1, -1)
        found.append((copies.var(2) / gamma**2).mean((1, 2)))

    networks.train()
    with watch(networks, SideBySide, note):
        networks(batch)
    return torch.stack(found)


@torch.no_grad()
def at_best_temperature(networks: ManyNetworks, examples) -> Evaluation:
    """``evaluate_many`` with the scores of each network divided by the number that makes its loss on them smallest."""
    images, labels = examples
    training = networks.training
    scores = networks.eval()(images)
    networks.train(training)
    losses = [
        functional.cross_entropy((scores / 2 ** (power / 8)).transpose(1, 2), labels, reduction="none").mean(1)
        for power in range(-24, 25)
    ]
    return Evaluation(torch.stack(losses).amin(0).cpu(), (scores.argmax(2) == labels).float().mean(1).cpu())


class Rotation:
    """Called at every step of ``train_many``: decays the weights, and measures how far they have turned.

    Args:
        decay: the weight decay λ of each network; w becomes (1 - ηλ) w.
        rate: the learning rate η of each network.

    Attributes:
        angles: of each step, in radians, the mean over the layers that a norm follows: (S,).
    """

    def __init__(self, networks: ManyNetworks, rate: Sequence[float], decay: Sequence[float]) -> None:
        self.weights = [module.weight for module in networks if isinstance(module, ManyLinear)][:-1]
        self.kept = 1 - (torch.tensor(rate) * torch.tensor(decay)).view(-1, 1, 1)
        self.angles: list[Tensor] = []
        self.last = self._directions()

    @torch.no_grad()
    def __call__(self, step: int) -> None:
        for weight in self.weights:
            weight *= self.kept.to(weight.device)
        now = self._directions()
        chords = torch.stack([(new - old.to(new.device)).norm(dim=1) for new, old in zip(now, self.last, strict=True)])
        self.angles.append((2 * torch.asin(chords / 2)).mean(0))
        self.last = now

    def _directions(self) -> list[Tensor]:
        return [functional.normalize(weight.detach().flatten(1), dim=1) for weight in self.weights]


def thumbnails(examples: Examples, side: int = 8) -> Tensor:
    """The images averaged down to ``side`` x ``side`` and flattened: (N, C * side * side)."""
    return functional.adaptive_avg_pool2d(examples.images, side).flatten(1)


def with_wrong_labels(
    labels: Tensor, share: float, classes: int = 10, generator: torch.Generator | None = None
) -> Tensor:
    """The labels (N,), each replaced with probability ``share`` by one of the other classes."""
    shift = torch.randint(1, classes, labels.shape, generator=generator)
    shift[torch.rand(labels.shape, generator=generator) >= share] = 0
    return (labels + shift.to(labels.device)) % classes


def small_sets(
    split: Callable[[int], DataSet], seeds: Sequence[int], count: int, wrong: float = 0.0
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A small training set for each seed, some of its labels wrong, and a clean test set for each, as thumbnails.

    Args:
        split: the data as each seed divides them, such as ``bncourse.experiments.Splits``.
        count: the examples that each seed draws from its training images.
        wrong: the share of them (on average) whose label becomes one of the other classes, at random.

    Returns:
        train: images (seeds, count, features), standardized, and labels (seeds, count).
        test: images (seeds, M, features) and labels (seeds, M).

    Raises:
        ValueError: fewer training examples than ``count``.
    """
    drawn = {seed: _small_set(split(seed), seed, count, wrong) for seed in dict.fromkeys(seeds)}
    train, test = zip(*(drawn[seed] for seed in seeds), strict=True)
    (train_images, train_labels), (test_images, test_labels) = (
        tuple(map(torch.stack, zip(*part, strict=True))) for part in (train, test)
    )
    return (train_images, train_labels), (test_images, test_labels)


def _small_set(
    data: DataSet, seed: int, count: int, wrong: float
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """That of one seed."""
    images, labels = thumbnails(data.train), data.train.labels
    if count > len(labels):
        raise ValueError(f"count must be at most the {len(labels)} training examples of {data.name}, got {count}")
    mean, std, classes = images.mean(), images.std(), int(labels.max()) + 1
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(labels), generator=generator)[:count]
    train = (images[chosen] - mean) / std, with_wrong_labels(labels[chosen], wrong, classes, generator)
    return train, ((thumbnails(data.test) - mean) / std, data.test.labels)
