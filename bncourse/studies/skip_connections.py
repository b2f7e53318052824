"""Chapter 6: blocks with a skip connection and a norm in one of three places, before training."""

from torch import Tensor, nn
from torch.nn import functional

from bncourse.layers import BatchNorm1d
from bncourse.models import initialize

__all__ = ["PLACES", "ResidualBlock", "at_initialization"]

PLACES = ("post", "pre", "peri")
NORMS = {"before": ("pre", "peri"), "end": ("peri",), "after": ("post",)}  # of the branch, and after the addition


class ResidualBlock(nn.Module):
    """The stream plus a branch F (linear, ReLU, linear), with batch norms.

    Args:
        width: the features of its input and its output, (N, width).
        place: "post" is norm(x + F(x)), "pre" is x + F(norm(x)), "peri" is
            x + norm(F(norm(x))).
    """

    def __init__(self, width: int, place: str) -> None:
        super().__init__()
        norm = {name: BatchNorm1d(width) if place in places else nn.Identity() for name, places in NORMS.items()}
        self.before, self.end, self.after = norm["before"], norm["end"], norm["after"]
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def branch(self, x: Tensor) -> Tensor:
        return self.end(self.layers(self.before(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(x + self.branch(x))


def at_initialization(place: str, examples: tuple[Tensor, Tensor], depth: int = 32, width: int = 64) -> list[list]:
    """Of an untrained residual network, for each of its blocks: three lists of ``depth`` numbers.

    They are the variance of the stream that the block receives; the share of the branch in the variance of what it
    passes on, before a norm after the addition; and the norm of the gradient of the branch's first weights. Weights are
    He's, drawn from torch's global generator.

    Args:
        examples: images (N, ...) and labels (N,), in one batch.
    """
    images, labels = examples
    first = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), width), BatchNorm1d(width))
    blocks = nn.ModuleList(ResidualBlock(width, place) for _ in range(depth))
    scores = nn.Sequential(nn.Identity() if place == "post" else BatchNorm1d(width), nn.Linear(width, 10))
    initialize(nn.ModuleList([first, blocks, scores]))
    stream = [first(images)]
    for block in blocks:
        stream.append(block(stream[-1]))
    functional.cross_entropy(scores(stream[-1]), labels).backward()
    variances = [_variance(x) for x in stream[:-1]]
    shares, gradients = [], []
    for block, x in zip(blocks, stream, strict=False):
        branch = block.branch(x)
        shares.append(_variance(branch) / _variance(x + branch))
        gradients.append(block.layers[0].weight.grad.norm().item())
    return [variances, shares, gradients]


def _variance(x: Tensor) -> float:
    """Across the examples; the mean over the features."""
    return x.detach().var(0, correction=0).mean().item()
