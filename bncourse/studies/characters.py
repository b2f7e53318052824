"""Chapter 7: a small language model, and how far its batches' statistics are from its running averages."""

from functools import cache
from importlib.resources import files

import torch
from torch import Tensor, nn
from torch.nn import functional

from bncourse.devices import seeded
from bncourse.experiments import one_thread
from bncourse.probes import outputs_of
from bncourse.studies.variants import AttentionBlock, TokenBatchNorm
from bncourse.training import quick

__all__ = ["CharacterModel", "batch_of_text", "fluctuation", "text", "train_on_text"]

LENGTH = 32  # characters that the model sees at once
FEATURES = 32


@cache
def text() -> tuple[Tensor, Tensor, int]:
    """The descriptions of scikit-learn's data sets as whole numbers, 85% to learn from and 15%; how many characters."""
    pages = sorted(page.name for page in files("sklearn.datasets.descr").iterdir() if page.name.endswith(".rst"))
    written = "".join(files("sklearn.datasets.descr").joinpath(page).read_text(encoding="utf-8") for page in pages)
    characters = sorted(set(written))
    numbers = torch.tensor([characters.index(character) for character in written])
    cut = int(0.85 * len(numbers))
    return numbers[:cut], numbers[cut:], len(characters)


class CharacterModel(nn.Sequential):
    """Two causal ``AttentionBlock``s that predict the next of ``count`` characters: (N, LENGTH) to (N, LENGTH, count).

    Args:
        norm: makes a norm from the number of features.
    """

    def __init__(self, norm, count: int) -> None:
        blocks = [AttentionBlock(norm, FEATURES, causal=True) for _ in range(2)]
        super().__init__(Positions(count), *blocks, norm(FEATURES), nn.Linear(FEATURES, count))


class Positions(nn.Module):
    """A vector for each character, plus one for its position."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.of_character = nn.Embedding(count, FEATURES)
        self.of_position = nn.Parameter(0.1 * torch.randn(LENGTH, FEATURES))

    def forward(self, characters: Tensor) -> Tensor:
        return self.of_character(characters) + self.of_position


def batch_of_text(numbers: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """``size`` random passages and, for each of their characters, the next one: (size, LENGTH) both."""
    starts = torch.randint(len(numbers) - LENGTH, (size, 1), generator=generator)
    passages = numbers[starts + torch.arange(LENGTH + 1)]
    return passages[:, :-1], passages[:, 1:]


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The mean cross-entropy of the next character, in nats."""
    return functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


@one_thread()
def train_on_text(norm, seed: int, steps: int = 100, size: int = 32) -> nn.Module:
    """A ``CharacterModel`` after some ``steps`` of Adam at rate 0.01, each with ``size`` passages."""
    learn, _, count = text()
    with seeded(seed):
        model = CharacterModel(norm, count)
    optimizer, generator = torch.optim.Adam(model.parameters(), lr=0.01), torch.Generator().manual_seed(seed)
    for _ in range(2 if quick() else steps):
        optimizer.zero_grad()
        loss_of(model, batch_of_text(learn, size, generator)).backward()
        optimizer.step()
    return model


@torch.no_grad()
def fluctuation(model: nn.Module, batches) -> float:
    """How far batch means lie from the mean of all, as a multiple of what as many independent values would show.

    The root mean square over batches, features and norms, for a ``model`` in training mode.
    """
    with outputs_of(model, TokenBatchNorm) as calls:
        for x, _ in batches:
            model(x)
    found = []
    for name in {call.name for call in calls}:
        values = torch.stack([call.input.flatten(0, -2) for call in calls if call.name == name])  # (batches, n, F)
        away = values.mean(1) - values.mean((0, 1))
        found.append((away.square() * values.shape[1] / values.var((0, 1))).mean())
    return torch.stack(found).mean().sqrt().item()
