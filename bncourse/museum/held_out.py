"""Held out.

Ten bugs, each in two networks, found by somebody who knew neither the doctor's rules nor the other specimens.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from bncourse import layers
from bncourse.museum.patients import (
    accuracy,
    batches_of,
    cnn,
    excess_variance,
    images_and_labels,
    mlp,
    residual,
    share_right,
    shuffled,
    train,
    trained,
)
from bncourse.museum.specimen import Patient, specimen
from bncourse.probes import outputs_of
from bncourse.surgery import recalibrate
from bncourse.training import in_evaluation

ACCURACY = "accuracy on the test digits, %"
MISFIT = "distance of running means from those of their inputs, standard deviations"
Norm = Callable[[int], nn.Module]


def our_mlp() -> nn.Sequential:
    """The perceptron with our layers."""
    return mlp(layers.BatchNorm1d)


def our_cnn() -> nn.Sequential:
    """The convolutional network with our layers."""
    return cnn(layers.BatchNorm2d)


def our_residual() -> nn.Sequential:
    """The residual network with our layers."""
    return residual(layers.BatchNorm2d)


class UNet(nn.Module):
    """A U-Net of three levels, 14x14, 7x7 and 1x1, that gives class scores: (N, 1, 14, 14) to (N, 10)."""

    def __init__(self, norm: Norm, bottom: Norm, width: int = 8):
        super().__init__()

        def block(inputs: int, outputs: int, norm: Norm, kernel: int = 3, stride: int = 1) -> nn.Sequential:
            convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
            return nn.Sequential(convolution, norm(outputs), nn.ReLU())

        self.fine = block(1, width, norm)
        self.coarse = block(width, 2 * width, norm, stride=2)
        self.bottom = nn.Sequential(nn.AdaptiveAvgPool2d(1), block(2 * width, 2 * width, bottom, kernel=1))
        self.up = block(4 * width, width, norm)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8 * width, 10))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        coarse = self.coarse(fine)
        up = self.up(torch.cat([coarse, self.bottom(coarse).expand_as(coarse)], 1))
        return self.head(torch.cat([fine, functional.interpolate(up, scale_factor=2.0)], 1))


def unet(norm: Norm = nn.BatchNorm2d, bottom: Norm = layers.BatchNorm2d) -> UNet:
    """A U-Net with torch's layers, and ours at the bottom."""
    return UNet(norm, bottom)


class Residually(nn.Sequential):
    """Adds what its modules make of the input to the input."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


@torch.no_grad()
def misfit(patient: Patient) -> float:
    """How far running means are from the means of what they normalize: the mean over channels, the worst call of all.

    In standard deviations, over the test digits in evaluation mode.
    """

    def distance(norm: nn.Module, x: Tensor) -> float:
        x = x.movedim(1, -1).flatten(0, -2)
        return ((x.mean(0) - norm.running_mean) / norm.running_var.sqrt()).abs().mean().item()

    kinds = tuple({type(module) for module in patient.model.modules() if hasattr(module, "running_mean")})
    with in_evaluation(patient.model), outputs_of(patient.model, kinds) as calls:
        patient.model(images_and_labels("test").images)
    return max(distance(call.layer, call.input) for call in calls)


# Mode: a forward pass that nobody counts as one


@specimen(
    networks=[cnn, our_mlp],
    before="print(summary(model)); model.eval()",
    after="model.eval(); print(summary(model))",
    damage=misfit,
    measure=MISFIT,
    chapter=10,
    rules=("BN-W01",),
    threads=[
        ("https://github.com/sksq96/pytorch-summary/issues/67", "2019-05-09"),
        ("https://github.com/TylerYep/torchinfo/issues/21", "2020-12-23"),
    ],
)
def summary_in_training_mode(fixed: bool, network: Callable[[], nn.Module]) -> Patient:
    """The accuracy of a finished model falls by a few percent if its table of layers is printed before the evaluation.

    To learn the shapes, the summary sends random numbers through the model. In training mode each such pass moves the
    running statistics a tenth of the way to those of noise.
    """

    def look_and_evaluate(patient: Patient) -> None:
        patient.model.train(not fixed)
        with torch.no_grad():
            for _ in range(2):  # a table of layers, and one of operations
                patient.model(torch.rand(2, 1, 14, 14))
        patient.model.eval()

    patient = Patient(trained(network), batches_of(), session=look_and_evaluate)
    look_and_evaluate(patient)
    return patient


# Statistics: one norm for inputs of several kinds


class Pyramid(nn.Module):
    """A head that all levels of a pyramid of maps share, except perhaps for its norms."""

    def __init__(self, norms: list[nn.Module]):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.downs = nn.ModuleList(nn.Conv2d(8, 8, 3, stride=2, padding=1) for _ in norms)
        self.head = nn.Conv2d(8, 16, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(norms)
        self.classify = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        level, scores = functional.relu(self.stem(x)), torch.zeros(())
        for down, norm in zip(self.downs, self.norms, strict=True):
            level = functional.relu(down(level))
            scores = scores + self.classify(functional.relu(norm(self.head(level))).mean((2, 3)))
        return scores


class Recurrent(nn.Module):
    """A recurrent network that reads the image row by row."""

    def __init__(self, norms: list[nn.Module]):
        super().__init__()
        self.read = nn.Linear(14, 32, bias=False)
        self.remember = nn.Linear(32, 32, bias=False)
        self.norms = nn.ModuleList(norms)
        self.classify = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 32)
        for row, norm in zip(x[:, 0].unbind(1), self.norms, strict=True):
            state = functional.relu(norm(self.read(row) + self.remember(state)))
        return self.classify(state)


def pyramid(apart: bool = True) -> Pyramid:
    """A pyramid of three levels whose head has a norm for each of them, or one for all."""
    return Pyramid([nn.BatchNorm2d(16) for _ in range(3)] if apart else [nn.BatchNorm2d(16)] * 3)


def recurrent(apart: bool = True) -> Recurrent:
    """A recurrent network that has a norm for each of 14 steps, or one for all."""
    return Recurrent([layers.BatchNorm1d(32) for _ in range(14)] if apart else [layers.BatchNorm1d(32)] * 14)


@specimen(
    networks=[pyramid, recurrent],
    before="for level in levels: scores += head(norm(level))",
    after="for level, norm in zip(levels, norms): scores += head(norm(level))",
    damage=misfit,
    measure=MISFIT,
    chapter=10,
    rules=(
        "BN-F10",
        "BN-W05",
        "BN-W03",
    ),
    threads=[
        ("https://github.com/open-mmlab/mmdetection/issues/6515", "2021-11-16"),
        ("https://github.com/open-mmlab/mmdetection/issues/6991", "2022-01-12"),
    ],
)
def one_norm_for_all_levels(fixed: bool, network: Callable[[bool], nn.Module]) -> Patient:
    """With batch norm in place of group norm, the detector's head trains just as well, but detects much worse.

    The levels of the pyramid (or the steps of a recurrent network) go through one batch norm in turn. In training each
    is normalized by its own batch; the running statistics are a mixture that fits none of them.
    """

    def work(patient: Patient) -> None:
        train(patient.model.train(), 10)
        patient.model.eval()

    return Patient(train(network(fixed), 100).eval(), batches_of(), session=work)


# Shapes: statistics of a single number


def group_mlp(groups: int = 8) -> nn.Sequential:
    """A perceptron with group norms."""
    return mlp(lambda features: nn.GroupNorm(groups, features), width=32)


def group_unet(groups: int = 8) -> UNet:
    """A U-Net with group norms, whose bottom has one pixel."""
    return unet(lambda channels: layers.GroupNorm(4, channels), lambda channels: nn.GroupNorm(groups // 2, channels))


@torch.no_grad()
def spread(patient: Patient) -> float:
    """How much the output of any group norm differs between the test digits: the least standard deviation of all."""
    with outputs_of(patient.model, (nn.GroupNorm, layers.GroupNorm)) as calls:
        patient.model(images_and_labels("test").images)
    return min(call.output.std(0).mean().item() for call in calls)


@specimen(
    networks=[group_mlp, group_unet],
    before="nn.GroupNorm(32, 32)(pooled)  # (N, 32)",
    after="nn.GroupNorm(8, 32)(pooled)",
    damage=spread,
    measure="least spread of a norm's output over the images, standard deviations",
    chapter=8,
    rules=("BN-F06",),
    threads=[("https://github.com/pytorch/pytorch/issues/94288", "2023-02-07")],
)
def groups_of_one_value(fixed: bool, network: Callable[[int], nn.Module]) -> Patient:
    """A layer learns nothing: its output is the same for every input, and nothing complains.

    There are as many groups as channels, and the map has one pixel: each group is a single number, which becomes 0
    when its own mean is subtracted. What is left is the shift. (With one sample torch raises an error; with more it
    does not.)
    """
    return Patient(train(network(8 if fixed else 32), 60), batches_of())


# Optimizer: parameters told apart by names


class Mixer(nn.Module):
    """Rows of the image as tokens, mixed by two layers with pre-norms: (N, 1, 14, 14) to (N, 10)."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(14, 32)
        self.ln_1 = layers.LayerNorm(32)
        self.tokens = nn.Linear(14, 14)
        self.ln_2 = layers.LayerNorm(32)
        self.features = nn.Linear(32, 32)
        self.classify = nn.Linear(14 * 32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x[:, 0])
        x = x + functional.gelu(self.tokens(self.ln_1(x).transpose(1, 2))).transpose(1, 2)
        x = x + functional.gelu(self.features(self.ln_2(x)))
        return self.classify(x.flatten(1))


def mixer() -> Mixer:
    """A mixer with our layer norms."""
    return Mixer()


def group_residual() -> nn.Sequential:
    """The residual network with torch's group norms."""
    return residual(lambda channels: nn.GroupNorm(4, channels))


def scale(patient: Patient) -> float:
    """The mean of the scales of all norms."""
    scales = [one for name, one in patient.model.named_parameters() if one.dim() == 1 and name.endswith("weight")]
    return torch.cat(scales).mean().item()


@specimen(
    networks=[mixer, group_residual],
    before='no_decay = [p for name, p in named if "bias" in name or "LayerNorm.weight" in name]',
    after="no_decay = [p for name, p in named if p.dim() == 1]",
    damage=scale,
    measure="mean scale of the norms",
    chapter=10,
    rules=("BN-S23",),
    threads=[
        ("https://github.com/huggingface/transformers/issues/16908", "2022-04-23"),
        ("https://github.com/deepspeedai/DeepSpeedExamples/pull/755", "2023-10-03"),
    ],
)
def decay_by_name(fixed: bool, network: Callable[[], nn.Module]) -> Patient:
    """The scales of the norms shrink throughout training, though the script exempts norms from weight decay.

    The script recognizes the norms by the name ``LayerNorm.weight``, which they have in one model. In this one they are
    called ``ln_1`` or ``norm1``, and nobody notices that the list contains only biases.
    """

    def exempt(name: str, parameter: nn.Parameter) -> bool:
        return parameter.dim() == 1 if fixed else "bias" in name or "LayerNorm.weight" in name

    model = network()
    groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for name, parameter in model.named_parameters():
        groups[exempt(name, parameter)].append(parameter)
    decays = [{"params": groups[False], "weight_decay": 1.0}, {"params": groups[True], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(decays, lr=0.003)
    train(model, 80, optimizer=optimizer)
    return Patient(model, batches_of(), optimizer, session=lambda patient: train(model, 10, optimizer=optimizer))


# Averaging: statistics of an average are no average of statistics


def excess_of_average(patient: Patient) -> float:
    """The running variance of the averaged model over that of its data: the median channel of the worst norm."""
    return excess_variance(Patient(patient.averaged, patient.batches))


@specimen(
    networks=[mlp, our_cnn],
    before="soup.load_state_dict(mean_of(checkpoints))",
    after="soup.load_state_dict(mean_of(checkpoints)); recalibrate(soup, batches)",
    damage=excess_of_average,
    measure="running variance over that of the data, ratio",
    chapter=11,
    rules=(
        "BN-F01",
        "BN-F15",
        "BN-S27",
    ),
    threads=[("https://github.com/leela-zero/leela-zero/pull/1064", "2018-03-20")],
)
def soup_with_averaged_statistics(fixed: bool, network: Callable[[], nn.Module]) -> Patient:
    """The mean of several finished models gains less than expected, although its running statistics were also averaged.

    Everything that the models hold is averaged. But the activations of averaged weights vary less than the models'
    activations do on average: the averaged variances are too large.
    """
    start = network()
    runs = [copy.deepcopy(start) for _ in range(3)]
    for run in runs:
        train(run, 60, optimizer=torch.optim.Adam(run.parameters(), lr=0.02)).eval()
    states = [run.state_dict() for run in runs]
    soup = copy.deepcopy(start).eval()
    soup.load_state_dict({key: torch.stack([state[key] for state in states]).float().mean(0) for key in states[0]})
    if fixed:
        recalibrate(soup, [images for images, _ in batches_of(count=8)])
    return Patient(runs[0], batches_of(), averaged=soup)


# Loading: names that the loader takes for old ones


class LayerNormOfChannels(nn.Module):
    """Layer norm over the channels of (N, C, ...), the last layer of a branch; its scale and shift have these names."""

    def __init__(self, channels: int, scale: str, shift: str):
        super().__init__()
        self.names = scale, shift
        self.register_parameter(scale, nn.Parameter(torch.zeros(channels)))  # a branch begins as nothing
        self.register_parameter(shift, nn.Parameter(torch.zeros(channels)))

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = (getattr(self, name) for name in self.names)
        return functional.layer_norm(x.movedim(1, -1), scale.shape, scale, shift).movedim(-1, 1)


def convnext(scale: str = "weight", shift: str = "bias") -> nn.Sequential:
    """Residual blocks of a depthwise and two pointwise convolutions."""

    def block() -> Residually:
        depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        pointwise = nn.Conv2d(16, 32, 1), nn.GELU(), nn.Conv2d(32, 16, 1)
        return Residually(depthwise, *pointwise, LayerNormOfChannels(16, scale, shift))

    stem = nn.Conv2d(1, 16, 2, stride=2)
    return nn.Sequential(stem, block(), block(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10))


def branched_mlp(scale: str = "weight", shift: str = "bias") -> nn.Sequential:
    """A perceptron of two residual blocks that sees the image coarsely, in 4 x 4 fields."""

    def block() -> Residually:
        return Residually(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32), LayerNormOfChannels(32, scale, shift))

    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, 32), block(), block(), nn.Linear(32, 10))


def from_pretrained(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Load what has a place in ``model``; names of old checkpoints are brought up to date."""
    renamed = {key.replace("gamma", "weight").replace("beta", "bias"): value for key, value in state.items()}
    model.load_state_dict(renamed, strict=False)
    return model


@specimen(
    networks=[convnext, branched_mlp],
    before="self.gamma = nn.Parameter(torch.zeros(channels))",
    after="self.weight = nn.Parameter(torch.zeros(channels))",
    damage=accuracy,
    measure=ACCURACY,
    chapter=11,
    rules=("BN-S26",),
    threads=[
        ("https://github.com/huggingface/transformers/issues/29554", "2024-03-09"),
        ("https://github.com/2noise/ChatTTS/issues/732", "2024-08-29"),
    ],
)
def gamma_renamed_by_the_loader(fixed: bool, network: Callable[[str, str], nn.Module]) -> Patient:
    """A model saved and loaded again is worse than before; a warning says that some weights are newly initialized.

    The loader takes every ``gamma`` and ``beta`` to be an old name for a ``weight`` and ``bias``. Here they are the
    current names, so the values find no place, and the norms' scales and shifts stay as they were before training.
    """
    names = ("weight", "bias") if fixed else ("gamma", "beta")
    finished = train(network(*names), 100)
    return Patient(from_pretrained(network(*names), finished.state_dict()).eval(), batches_of())


# Distributed, in one process: replicas whose statistics are dropped


def other_scanner(images: Tensor) -> Tensor:
    """The same images, paler and brighter."""
    return 0.4 * images + 1.0


def data_parallel(model: nn.Module, images: Tensor) -> Tensor:
    """Halve the batch as torch's ``DataParallel`` does: the model takes a half, and a passing replica the other."""
    mine, others = images.chunk(2)
    replica = dict(model.named_parameters()) | {name: one.clone() for name, one in model.named_buffers()}
    return torch.cat([model(mine), functional_call(model, replica, (others,))])


def accuracy_on_both(patient: Patient) -> float:
    """Accuracy on the test digits of both scanners in evaluation mode, in %."""
    images, labels = images_and_labels("test")
    with in_evaluation(patient.model):
        return share_right(patient.model, [(images, labels), (other_scanner(images), labels)])


@specimen(
    networks=[cnn, our_mlp],
    before="x = torch.cat([source, target])",
    after="x = torch.cat([source, target])[torch.randperm(len(x))]",
    damage=accuracy_on_both,
    measure="accuracy on the test digits of both domains, %",
    chapter=14,
    rules=(
        "BN-F01",
        "BN-F10",
        "BN-W05",
    ),
    threads=[("https://github.com/pytorch/pytorch/issues/1051", "2017-03-20")],
)
def first_replica_keeps_the_statistics(fixed: bool, network: Callable[[], nn.Module]) -> Patient:
    """On two devices the training loss falls for both domains, but the evaluation fails for the second.

    ``DataParallel`` gives the first half of the batch to the first device and keeps only the running statistics of that
    device. The batch is sorted, source before target, so the target's statistics are thrown away at each step.
    """

    def batch(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        half = len(images) // 2
        both = torch.cat([images[:half], other_scanner(images[half:])])
        order = torch.randperm(len(both)) if fixed else torch.arange(len(both))
        return both[order], labels[order]

    def work(patient: Patient, steps: int = 10) -> None:
        patient.model.train()
        for (images, labels), _ in zip(shuffled(128), range(steps), strict=False):
            images, labels = batch(images, labels)
            patient.optimizer.zero_grad()
            functional.cross_entropy(data_parallel(patient.model, images), labels).backward()
            patient.optimizer.step()

    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    patient = Patient(model, [batch(*one) for one in batches_of(size=128)], optimizer, session=work)
    work(patient, 100)
    return patient


# Precision: squares that half precision cannot hold


class RootMeanSquareNorm(nn.Module):
    """RMS norm over the channels of (N, C, ...), its mean square in single precision or in that of the input."""

    def __init__(self, channels: int, single: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.single = single

    def forward(self, x: Tensor) -> Tensor:
        square = (x.float() if self.single else x).pow(2).mean(1, keepdim=True)
        x = (x * torch.rsqrt(square + 1e-6)).to(x.dtype)
        return x * self.weight.reshape(-1, *[1] * (x.dim() - 2))


def rms_mlp(single: bool = True) -> nn.Sequential:
    """A perceptron of residual blocks with RMS norms before each."""

    def block() -> Residually:
        return Residually(RootMeanSquareNorm(64, single), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 64))

    last = RootMeanSquareNorm(64, single)
    return nn.Sequential(nn.Flatten(), nn.Linear(196, 64), block(), block(), last, nn.Linear(64, 10))


def rms_cnn(single: bool = True) -> nn.Sequential:
    """Two convolutions with RMS norms over the channels."""
    return cnn(lambda channels: RootMeanSquareNorm(channels, single))


def raw(images: Tensor) -> Tensor:
    """The images as the camera gives them, in counts."""
    return 1000 * images


@specimen(
    networks=[rms_mlp, rms_cnn],
    before="x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + eps)",
    after="x * torch.rsqrt(x.float().pow(2).mean(1, keepdim=True) + eps)",
    damage=lambda patient: share_right(patient.model, patient.batches),
    measure="accuracy on the test digits in half precision, %",
    chapter=13,
    rules=("BN-F13",),
    threads=[
        ("https://github.com/pytorch/pytorch/pull/133085", "2024-08-09"),
        ("https://github.com/xlite-dev/LeetCUDA/pull/335", "2025-06-09"),
    ],
)
def squares_overflow_in_half_precision(fixed: bool, network: Callable[[bool], nn.Module]) -> Patient:
    """In half precision, the model gives the same answer whatever the input; in single precision, it is right.

    The largest number in half precision is 65504, so the square of anything above 256 is infinite. The norm divides by
    its root, and what comes out is 0, without any NaN to see.
    """
    batches = ((raw(images), labels) for images, labels in shuffled())
    model = train(network(fixed), 100, batches=batches).eval().half()
    return Patient(model, [(raw(images).half(), labels) for images, labels in batches_of("test")])


# Conversion: statistics that have a factor of their own


@specimen(
    networks=[unet, our_residual],
    before="norm.running_mean.copy_(blobs[0])",
    after="norm.running_mean.copy_(blobs[0] / blobs[2])",
    damage=accuracy,
    measure=ACCURACY,
    chapter=13,
    rules=(
        "BN-F01",
        "BN-S30",
    ),
    threads=[
        ("https://github.com/BVLC/caffe/issues/4885", "2016-10-24"),
        ("https://github.com/pierluigiferrari/caffe_weight_converter/issues/7", "2018-10-26"),
        ("https://github.com/apache/mxnet/pull/6176", "2017-05-09"),
    ],
)
def caffe_statistics_without_their_factor(fixed: bool, network: Callable[[], nn.Module]) -> Patient:
    """A model converted from Caffe differs from the original from its first batch norm on.

    Caffe keeps decaying sums of the batches' means and variances, and as a third blob the sum of their weights, close
    to 1000 after long training. The statistics are the sums divided by that blob.
    """
    source, model = trained(network), network().eval()
    model.load_state_dict(source.state_dict())
    for norm in model.modules():
        if hasattr(norm, "running_mean"):
            factor = torch.tensor(999.98)
            blobs = norm.running_mean * factor, norm.running_var * factor, factor
            divisor = blobs[2] if fixed else 1.0
            norm.running_mean.copy_(blobs[0] / divisor)
            norm.running_var.copy_(blobs[1] / divisor)
    return Patient(model, batches_of())


# Data: silence that is counted


class Frames(nn.Module):
    """Scores from the mean over the frames that are no padding: (N, 14, T) to (N, 10)."""

    def __init__(self, *modules: nn.Module):
        super().__init__()
        self.layers = nn.Sequential(*modules)
        self.classify = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        heard = (x != 0).any(1, keepdim=True)
        return self.classify((self.layers(x) * heard).sum(2) / heard.sum(2))


def wave_encoder() -> Frames:
    """Convolutions over time, with a group for each channel in the group norms."""
    return Frames(
        *(nn.Conv1d(14, 32, 5, padding=2), nn.GroupNorm(32, 32), nn.GELU()),
        *(nn.Conv1d(32, 32, 5, padding=2), nn.GroupNorm(32, 32), nn.GELU()),
    )


def instance_conformer() -> Frames:
    """Residual blocks of depthwise convolutions over time, with our instance norms."""

    def block() -> Residually:
        convolution = nn.Conv1d(32, 32, 5, padding=2, groups=32)
        return Residually(convolution, layers.InstanceNorm1d(32, affine=True), nn.SiLU(), nn.Conv1d(32, 32, 1))

    return Frames(nn.Conv1d(14, 32, 1), block(), block())


@specimen(
    networks=[wave_encoder, instance_conformer],
    before="batch = pad_sequence(utterances)",
    after="batch = torch.stack(utterances_of_one_length)",
    damage=lambda patient: share_right(patient.model, patient.batches),
    measure="accuracy on the test digits read as sequences, %",
    chapter=8,
    rules=("BN-F08",),
    threads=[
        ("https://github.com/facebookresearch/fairseq/issues/3118", "2021-01-08"),
        ("https://github.com/facebookresearch/fairseq/issues/3227", "2021-02-10"),
        ("https://github.com/pytorch/audio/issues/2242", "2022-02-16"),
        ("https://github.com/huggingface/transformers/issues/21534", "2023-02-09"),
    ],
)
def padding_in_the_statistics(fixed: bool, network: Callable[[], nn.Module]) -> Patient:
    """An utterance is understood alone, but not in a batch with a longer one.

    Short utterances are padded with zeros. The mask keeps them out of the sum at the end, but the norms take their mean
    and variance over all frames: with much padding they are those of silence.
    """
    sequences = ((images[:, 0], labels) for images, labels in shuffled())
    model = train(network(), 100, batches=sequences).eval()
    padding = 0 if fixed else 84
    batches = [(functional.pad(images[:, 0], (0, padding)), labels) for images, labels in batches_of("test")]
    return Patient(model, batches)
