"""B. Shapes and batches."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from bncourse.layers import MaskedBatchNorm1d
from bncourse.museum.patients import accuracy, batches_of, images_and_labels, mlp, shuffled, train
from bncourse.museum.specimen import Patient, specimen


def pooled(norm: nn.Module) -> nn.Sequential:
    """Convolutions, the mean over the whole map, a 1x1 convolution followed by ``norm``, and the scores."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(32, 32, 1, bias=False),
        norm,
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


@specimen(
    before="nn.AdaptiveAvgPool2d(1), nn.Conv2d(C, C, 1), nn.BatchNorm2d(C)  # batches of 2",
    after="nn.AdaptiveAvgPool2d(1), nn.Conv2d(C, C, 1), nn.GroupNorm(1, C)",
    damage=lambda patient: _variety_of_sizes(patient),
    measure="how much the sizes of normalized values vary, standard deviation over mean",
    chapter=8,
    threads=[
        ("https://github.com/pytorch/vision/issues/1491", "2019-10-18"),
        ("https://github.com/zhanghang1989/ResNeSt/issues/46", "2020-05-05"),
        ("https://github.com/chenjun2hao/DDRNet.pytorch/issues/29", "2023-10-23"),
    ],
    rules=("BN-F05", "BN-W11"),
)
def norm_after_global_pooling(fixed: bool) -> Patient:
    """With two large images in a batch, the branch with the global pooling seems blind to them.

    After pooling to 1x1, a batch of 2 has two values for each channel. Normalized, they are +1 and -1: their signs are
    all that is left.
    """
    model = pooled(nn.GroupNorm(1, 32) if fixed else nn.BatchNorm2d(32))
    train(model, 60, batches=shuffled(2))
    return Patient(model, batches_of(size=2, count=8))


@specimen(
    before="DataLoader(digits, batch_size=64, shuffle=True)  # 257 samples",
    after="DataLoader(digits, batch_size=64, shuffle=True, drop_last=True)",
    damage=lambda patient: _share_of_the_epoch(patient),
    measure="share of the epoch that runs before it ends with an error, %",
    chapter=8,
    threads=[
        ("https://github.com/fastai/fastai/issues/1352", "2018-12-17"),
        ("https://github.com/YudeWang/deeplabv3plus-pytorch/issues/34", "2019-08-18"),
        ("https://github.com/openvinotoolkit/nncf/pull/379", "2020-12-29"),
    ],
    rules=("BN-F17", "BN-F05"),
)
def last_batch_of_one(fixed: bool) -> Patient:
    """Training stops in the last batch of the first epoch: "Expected more than 1 value per channel when training".

    The number of samples leaves a remainder of one, which has no variance.
    """
    images, labels = (part[:257] for part in images_and_labels())
    batches = list(zip(images.split(64), labels.split(64), strict=True))
    batches = batches[:-1] if fixed else batches
    model = mlp()
    return Patient(model, batches, torch.optim.Adam(model.parameters(), lr=0.003))


def _share_of_the_epoch(patient: Patient) -> float:
    for number, batch in enumerate(patient.batches):
        try:
            train(patient.model, 1, optimizer=patient.optimizer, batches=[batch])
        except ValueError:
            return 100 * number / len(patient.batches)
    return 100


@torch.no_grad()
def _variety_of_sizes(patient: Patient) -> float:
    model = patient.model.train()
    sizes = [((model[:7](images)[:, :, 0, 0] - model[6].bias) / model[6].weight).abs() for images, _ in patient.batches]
    return (torch.cat(sizes).std() / torch.cat(sizes).mean()).item()


class Rows(nn.Module):
    """Reads a digit as a sequence of 14 rows: (N, 1, 14, 14) to (N, 10). ``norm`` sees (N, rows, columns)."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm
        self.recurrent = nn.GRU(14, 32, batch_first=True)
        self.scores = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.scores(self.recurrent(self.norm(images.squeeze(1)))[0][:, -1])


class FeaturesLast(nn.Module):
    """A norm of (N, C, L) applied to (N, L, C)."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


def _uneven_columns(images: Tensor) -> Tensor:
    """Digits whose columns are measured in different units, from 1/100 to 100."""
    return images * torch.logspace(-2, 2, 14)


@torch.no_grad()
def _spread_of_features(patient: Patient) -> float:
    x = patient.model.train().norm(_uneven_columns(images_and_labels("test").images).squeeze(1))
    std = x.flatten(0, 1).std(0)
    return (std.max() / std[std > 0].median()).item()


@specimen(
    before="nn.BatchNorm1d(14)(x)  # x: (N, 14 steps, 14 features)",
    after="nn.BatchNorm1d(14)(x.transpose(1, 2)).transpose(1, 2)",
    damage=_spread_of_features,
    measure="largest standard deviation of a feature after the norm, over the median",
    chapter=7,
    threads=[
        ("https://github.com/ruotianluo/self-critical.pytorch/issues/44", "2018-05-18"),
        (
            "https://github.com/xieyulai/LSTM-for-Human-Activity-Recognition-using-2D-Pose_Pytorch/issues/2",
            "2021-09-26",
        ),
    ],
    rules=("BN-F07",),
)
def features_on_the_last_axis(fixed: bool) -> Patient:
    """The norm is there, the shapes fit, and the features keep their different scales.

    ``BatchNorm1d`` normalizes axis 1. Fed (N, steps, features), it normalizes each time step over all features. Nobody
    notices, because the number of steps happens to equal ``num_features``; elsewhere people set ``num_features`` to the
    number of steps.
    """
    norm = nn.BatchNorm1d(14)
    model = Rows(FeaturesLast(norm) if fixed else norm)
    train(model, 40, batches=shuffled(64, _uneven_columns(images_and_labels().images)))
    return Patient(model, [(_uneven_columns(images), labels) for images, labels in batches_of()])


class Speech(nn.Module):
    """Classifies padded sequences: a convolution, a norm, the mean over the valid steps."""

    def __init__(self, masked: bool):
        super().__init__()
        self.masked = masked
        self.convolution = nn.Conv1d(8, 16, 3, padding=1)
        self.norm = MaskedBatchNorm1d(16) if masked else nn.BatchNorm1d(16)
        self.scores = nn.Linear(16, 4)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        mask = torch.arange(x.shape[2]) < lengths[:, None]
        x = self.convolution(x) * mask[:, None]
        x = self.norm(x, mask) if self.masked else self.norm(x)
        return self.scores((x.relu() * mask[:, None]).sum(2) / lengths[:, None])


def _sequences(count: int, size: int = 32) -> list[tuple[tuple[Tensor, Tensor], Tensor]]:
    """Batches of sequences of 5 to 60 steps in 60, zero where they have ended; the class is the loudest channel."""
    batches = []
    for _ in range(count):
        lengths = torch.randint(5, 61, (size,))
        x = torch.randn(size, 8, 60) + 1
        labels = torch.randint(0, 4, (size,))
        x[torch.arange(size), labels] += 0.5
        x *= (torch.arange(60) < lengths[:, None])[:, None]
        batches.append(((x, lengths), labels))
    return batches


@torch.no_grad()
def _variance_of_valid_steps(patient: Patient) -> float:
    model, ((x, lengths), _) = patient.model, patient.batches[0]
    valid = torch.arange(60) < lengths[:, None]
    values = model.convolution(x).movedim(1, 2)[valid]
    return (model.norm.running_var / values.var(0)).median().item()


@specimen(
    before="self.norm(x)  # nn.BatchNorm1d on padded sequences",
    after="self.norm(x, mask)  # MaskedBatchNorm1d",
    damage=_variance_of_valid_steps,
    measure="running variance over the variance of the valid steps",
    chapter=7,
    threads=[
        ("https://github.com/pytorch/pytorch/issues/25910", "2019-09-10"),
        ("https://github.com/pytorch/pytorch/issues/70529", "2021-12-30"),
        ("https://github.com/Tomiinek/Multilingual_Text_to_Speech/issues/81", "2022-10-14"),
    ],
    rules=("BN-F08",),
)
def padding_in_the_statistics(fixed: bool) -> Patient:
    """The longer the longest sequence in a batch, the louder the others come out of the norm.

    The padding counts as data. A batch that is mostly padding has almost no variance, and the valid steps are divided
    by its square root.
    """
    model = Speech(masked=fixed)

    def session(patient: Patient) -> None:
        for (x, lengths), labels in _sequences(40):
            patient.optimizer.zero_grad()
            functional.cross_entropy(patient.model(x, lengths), labels).backward()
            patient.optimizer.step()

    patient = Patient(model, _sequences(4), torch.optim.Adam(model.parameters(), lr=0.003))
    session(patient)
    return patient


class Forecast(nn.Module):
    """Predicts the next value of a series from those before it: (N, 16, L) to (N, 1, L), with causal convolutions."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 16, 3), nn.Conv1d(16, 1, 3)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(functional.pad(x, (2, 0))).relu())
        return self.second(functional.pad(x, (2, 0)))


class EachStep(nn.Module):
    """A norm of the last axis applied to each step of (N, C, L)."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


def _series(count: int = 4) -> list[tuple[Tensor, Tensor]]:
    walks = torch.randn(count, 32, 1, 41).cumsum(3)
    return [(walk[..., :-1], walk[..., 1:]) for walk in walks]


def _influence_of_the_future(patient: Patient) -> float:
    x = _series(1)[0][0].requires_grad_()
    output = patient.model(x)[:, :, 10].sum()
    gradient = torch.autograd.grad(output, x)[0]
    return (gradient[..., 11:].abs().sum() / gradient.abs().sum()).item()


@specimen(
    before="nn.GroupNorm(1, C)(x)  # x: (N, C, time) in a causal network",
    after="nn.LayerNorm(C)(x.transpose(1, 2)).transpose(1, 2)  # each step by itself",
    damage=_influence_of_the_future,
    measure="share of a prediction's gradient that comes from later steps",
    chapter=7,
    threads=[
        ("https://github.com/google-deepmind/dm-haiku/issues/700", "2023-07-19"),
        ("https://github.com/lucidrains/x-transformers/pull/321", "2025-04-20"),
    ],
)
def future_leaks_through_the_norm(fixed: bool) -> Patient:
    """A forecast is excellent in tests but poor in use.

    Every layer is causal except the norm, whose mean and variance include the steps that are to be predicted.
    """
    model = Forecast(EachStep(nn.LayerNorm(16)) if fixed else nn.GroupNorm(1, 16))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for inputs, targets in _series(40):
        optimizer.zero_grad()
        functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()
    return Patient(model, _series(), optimizer, loss=functional.mse_loss)


@specimen(
    before="nn.GroupNorm(64, 64)  # in place of BatchNorm1d(64)",
    after="nn.GroupNorm(8, 64)",
    damage=accuracy,
    measure="accuracy on the test digits, %",
    chapter=7,
    threads=[
        ("https://github.com/pytorch/pytorch/issues/19250", "2019-04-14"),
        ("https://github.com/meta-pytorch/opacus/issues/567", "2023-02-21"),
    ],
    rules=("BN-F06",),
)
def one_value_in_each_group(fixed: bool) -> Patient:
    """After BatchNorm was replaced with GroupNorm, the model gives the same answer for every input.

    There are as many groups as features, and no other axis: each group has one value, which becomes 0 when its mean is
    subtracted.
    """
    model = mlp(lambda features: nn.GroupNorm(8 if fixed else features, features))
    return Patient(train(model, 100), batches_of())


class Tokens(nn.Module):
    """Reads the rows of a digit as 14 tokens, each normalized and mapped, then averaged: (N, 1, 14, 14) to (N, 10)."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.embedding, self.norm = nn.Linear(14, 32), norm
        self.hidden, self.scores = nn.Linear(32, 32), nn.Linear(14 * 32, 10)

    def tokens(self, images: Tensor) -> Tensor:
        return self.norm(self.embedding(images.squeeze(1)))

    def forward(self, images: Tensor) -> Tensor:
        return self.scores(self.hidden(self.tokens(images)).relu().flatten(1))


@torch.no_grad()
def _influence_of_other_tokens(patient: Patient) -> float:
    images = images_and_labels("test").images
    others = images.clone()
    others[:, :, 1:] *= 3
    before, after = patient.model.tokens(images)[:, 0], patient.model.tokens(others)[:, 0]
    return ((after - before).norm() / before.norm()).item()


@specimen(
    before="nn.LayerNorm(x.shape[1:])  # (tokens, features)",
    after="nn.LayerNorm(x.shape[-1])  # features",
    damage=_influence_of_other_tokens,
    measure="change of a token's output when the others are tripled, share of its size",
    chapter=7,
    threads=[
        ("https://github.com/jadore801120/attention-is-all-you-need-pytorch/pull/17", "2017-07-15"),
        ("https://github.com/reczoo/FuxiCTR/issues/23", "2022-05-12"),
        ("https://github.com/Qualcomm-AI-research/geometric-algebra-transformer/pull/8", "2024-08-26"),
    ],
    rules=("BN-S22",),
)
def layer_norm_over_the_tokens(fixed: bool) -> Patient:
    """The baseline transformer is worse than published, and accepts inputs of only one length.

    LayerNorm normalizes over all axes whose sizes it is given. With (tokens, features), a token's output depends on all
    other tokens.
    """
    model = Tokens(nn.LayerNorm(32) if fixed else nn.LayerNorm([14, 32]))
    return Patient(train(model, 60), batches_of())
