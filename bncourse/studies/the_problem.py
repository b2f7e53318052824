"""Chapter 1: what moves while networks train, with and without BatchNorm, and how smooth their loss is.

After Santurkar et al. 2018, "How Does Batch Normalization Help Optimization?": a BatchNorm whose outputs are made to
move (section 2), the shift measured by gradients (definition 2.1), and a walk along the gradient (figure 4). All of it
for many networks at once (``many_networks``).
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from bncourse.layers import BatchNorm1d
from bncourse.probes import outputs_of
from bncourse.studies.many_networks import ManyLinear, ManyNetworks, evaluate_many

__all__ = ["AtLoss", "GradientShift", "InputMoves", "NoisyBatchNorm1d", "add_noise", "likeness", "walk"]


class NoisyBatchNorm1d(BatchNorm1d):
    """BatchNorm, then, in training, noise whose distribution changes at every step.

    At every step each unit gets a shift of its own from U(-reach, reach) and a scale of
    its own from U(1 - reach/4, 1 + reach/4), so the next layer's inputs never settle.
    With ``per_sample`` each sample adds to that a shift and a scale of its own, the
    shift half as wide: then the noise also hides what the sample was. (N, C) to (N, C).
    """

    reach, per_sample = 0.0, False

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if not self.training:
            return y
        y = self._shaken(y, y[0], self.reach)
        return self._shaken(y, y, self.reach / 2) if self.per_sample else y

    def _shaken(self, y: Tensor, like: Tensor, shift: float) -> Tensor:
        return (1 + _uniform(like, self.reach / 4)) * y + _uniform(like, shift)


def _uniform(like: Tensor, reach: float) -> Tensor:
    return torch.empty_like(like, device="cpu").uniform_(-reach, reach).to(like.device)


def add_noise(model: nn.Module, reach: float = 2.0, per_sample: bool = False) -> nn.Module:
    """Make every ``BatchNorm1d`` of the model noisy, in place; returns the model."""
    for module in model.modules():
        if type(module) is BatchNorm1d:
            module.__class__ = NoisyBatchNorm1d
            module.reach, module.per_sample = reach, per_sample
    return model


class InputMoves:
    """Called at every step of ``train_many``: how far the inputs of one layer move, on a fixed batch of images.

    The networks see the batch in training mode. A move is the root mean square, over images and units, of what one
    image's input changed by, in units of the inputs' standard deviation over the images.

    Images that trade places move and leave the unit's distribution as it was. How far that moves is the Wasserstein
    distance of order 1 between a unit's values then and now (their root mean square over units, in the same units).

    Args:
        images: the fixed batch, (N, F) for all networks alike or (S, N, F).
        layer: which linear layer, counted from 0.

    Attributes:
        from_start: for each network the move since the object was made, (S,), in the standard deviation of then.
        distribution: how far the units' distributions moved since then, (S,), likewise.
        steps: for each step the move since the one before, in the standard deviation of then: (S,) each.
    """

    def __init__(self, networks: ManyNetworks, images: Tensor, layer: int = 2) -> None:
        self.networks, self.images, self.layer = networks, images, layer
        self.first = self.last = self._inputs()
        self.steps: list[Tensor] = []

    def __call__(self, step: int) -> None:
        now = self._inputs()
        self.steps.append(_move(self.last, now))
        self.last = now

    @property
    def from_start(self) -> Tensor:
        return _move(self.first, self.last)

    @property
    def distribution(self) -> Tensor:
        moves = (self.last.sort(1).values - self.first.sort(1).values).abs().mean(1)  # (S, F)
        return (moves.square().mean(1) / _variance(self.first)).sqrt()

    @torch.no_grad()
    def _inputs(self) -> Tensor:
        before = copy.deepcopy(_before(self.networks, self.layer))  # whose running averages may move
        return before.train()(self.images)


def _before(networks: ManyNetworks, layer: int) -> nn.Sequential:
    """What stands before that linear layer, counted from 0."""
    modules = list(networks)
    places = [place for place, module in enumerate(modules) if isinstance(module, ManyLinear)]
    return nn.Sequential(*modules[: places[layer]])


def _move(then: Tensor, now: Tensor) -> Tensor:
    return ((now - then).square().mean((1, 2)) / _variance(then)).sqrt()


def _variance(inputs: Tensor) -> Tensor:
    """Over the images, the mean of the units, (S,)."""
    return inputs.var(1, correction=0).mean(1)


class GradientShift:
    """Called at every step of ``train_many``: how one layer's gradient changes when only the layers before it step.

    That is internal covariate shift as Santurkar et al. 2018 define it (definition 2.1): the gradient of a layer's
    weights on one batch, before and after the layers before it are updated by their own gradients on that batch.

    Args:
        examples: the batch, images (S, N, F) and labels (S, N).
        rate: the learning rate of those steps.
        share: instead of such a step, the weights of each earlier linear layer move by this share of their own length.
        layer: which linear layer, counted from 0.
        every: measure at every so many steps.

    Attributes:
        mean: of the cosines of the two gradients, (S,); 1 means no shift. NaN before the first measurement.
        length: of the steps of the earlier layers' weights, as a share of their length, the mean, (S,); NaN likewise.
    """

    def __init__(
        self,
        networks: ManyNetworks,
        examples,
        rate: float = 0.0,
        *,
        share: float | None = None,
        layer: int = 2,
        every: int = 5,
    ) -> None:
        self.networks, self.examples, self.rate, self.share = networks, examples, rate, share
        self.layer, self.every = layer, every
        self.cosines: list[Tensor] = []
        self.lengths: list[Tensor] = []

    @property
    def mean(self) -> Tensor:
        return self._mean_of(self.cosines)

    @property
    def length(self) -> Tensor:
        return self._mean_of(self.lengths)

    def _mean_of(self, found: list[Tensor]) -> Tensor:
        return torch.stack(found).nanmean(0) if found else torch.full((len(self.networks.seeds),), torch.nan)

    def __call__(self, step: int) -> None:
        if step % self.every:
            return
        twin = copy.deepcopy(self.networks).train()
        earlier = _before(twin, self.layer)
        weight = twin[len(earlier)].weight
        weights = [module.weight for module in earlier if isinstance(module, ManyLinear)]
        moving = list(earlier.parameters()) if self.share is None else weights
        before, *gradients = torch.autograd.grad(_loss(twin, *self.examples).sum(), [weight, *moving])
        starts = [one.detach().clone() for one in weights]
        with torch.no_grad():
            for parameter, gradient in zip(moving, gradients, strict=True):
                rate = self.rate if self.share is None else self.share * _norm(parameter) / _norm(gradient)
                parameter -= rate * gradient
            moves = [_norm(one - start) / _norm(start) for one, start in zip(weights, starts, strict=True)]
        self.lengths.append(torch.stack(moves).mean(0).flatten())
        (after,) = torch.autograd.grad(_loss(twin, *self.examples).sum(), [weight])
        self.cosines.append(functional.cosine_similarity(before.flatten(1), after.flatten(1)))


class AtLoss:
    """Called at every step of ``train_many``: keeps each network as it was when its loss first fell to a level.

    Args:
        examples: what the loss is measured on, images (S, N, F) and labels (S, N), in eval mode.
        level: in nats.

    Attributes:
        networks: as they were then; NaN in those that never came so far.
        reached: which of them came so far, (S,).
    """

    def __init__(self, networks: ManyNetworks, examples, level: float) -> None:
        self.training, self.examples, self.level = networks, examples, level
        self.networks = copy.deepcopy(networks)
        for value in self.networks.state_dict().values():
            if value.dim():  # all but the count of batches have the networks in front
                value.fill_(torch.nan)
        self.reached = torch.zeros(len(networks.seeds), dtype=torch.bool)

    @torch.no_grad()
    def __call__(self, step: int) -> None:
        now = (evaluate_many(self.training, self.examples).loss <= self.level) & ~self.reached
        for kept, value in zip(self.networks.state_dict().values(), self.training.state_dict().values(), strict=True):
            if kept.dim():
                kept.view(len(now), -1)[now] = value.view(len(now), -1)[now]
        self.reached |= now


def walk(networks: ManyNetworks, examples, lengths: list[float]) -> tuple[Tensor, Tensor]:
    """The loss, and the gradient's relative change, after one step along the gradient; the networks stay as they are.

    Every linear layer's weights move along their own negative gradient by the same share of their own length, and a
    layer's gradient counts in units of its weights' length. So the result does not depend on the scale of weights that
    a norm cancels. At a fixed length of the *step*, larger weights would make such a network as smooth as you like.

    Args:
        examples: one batch, images (S, N, F) and labels (S, N); the networks run in training mode.
        lengths: of the step, as shares of the weights' length.

    Returns:
        the loss after each step, in nats, and ||gradient after - gradient before|| / ||gradient before||: (lengths, S).
    """
    twin = copy.deepcopy(networks).train()
    weights = [module.weight for module in twin if isinstance(module, ManyLinear)]
    starts = [weight.detach().clone() for weight in weights]
    sizes = [_norm(start) for start in starts]

    def gradient() -> tuple[Tensor, list[Tensor]]:
        loss = _loss(twin, *examples)
        gradients = torch.autograd.grad(loss.sum(), weights)
        return loss.detach(), [size * one for size, one in zip(sizes, gradients, strict=True)]

    before = gradient()[1]
    whole = torch.cat([one.flatten(1) for one in before], dim=1)
    losses, changes = [], []
    for length in lengths:
        with torch.no_grad():
            for weight, start, size, one in zip(weights, starts, sizes, before, strict=True):
                weight.copy_(start - length * size * one / _norm(one))
        loss, after = gradient()
        moved = torch.cat([one.flatten(1) for one in after], dim=1)
        losses.append(loss)
        changes.append((moved - whole).norm(dim=1) / whole.norm(dim=1))
    return torch.stack(losses), torch.stack(changes)


def _norm(values: Tensor) -> Tensor:
    return values.flatten(1).norm(dim=1).view(-1, 1, 1)


def _loss(networks: ManyNetworks, images: Tensor, labels: Tensor) -> Tensor:
    """Of each network, (S,)."""
    return functional.cross_entropy(networks(images).transpose(1, 2), labels, reduction="none").mean(1)


@torch.no_grad()
def likeness(networks: ManyNetworks, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """After each activation the mean cosine of two images of one class, and of two classes: (layers, S) each.

    Args:
        images, labels: one batch, (S, N, F) and (S, N).
    """
    twin = copy.deepcopy(networks).train()
    with outputs_of(twin, networks.activation) as calls:
        twin(images)
    one_class = labels.unsqueeze(1) == labels.unsqueeze(2)
    pairs = one_class & ~torch.eye(labels.shape[1], dtype=torch.bool), ~one_class
    directions = [functional.normalize(call.output, dim=2) for call in calls]
    cosines = [direction @ direction.mT for direction in directions]
    same, different = ([(c * p).sum((1, 2)) / p.sum((1, 2)) for c in cosines] for p in pairs)
    return torch.stack(same), torch.stack(different)
