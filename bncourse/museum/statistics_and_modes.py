"""A. Statistics and modes."""

import copy
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional

from bncourse.data import digits
from bncourse.museum.patients import (
    accuracy,
    accuracy_as_left,
    batches_of,
    cnn,
    images_and_labels,
    mean_loss,
    mlp,
    offset,
    share_right,
    shuffled,
    sorted_by_class,
    train,
    trained,
)
from bncourse.museum.specimen import Patient, specimen
from bncourse.surgery import freeze

ACCURACY = "accuracy on the test digits, %"


@specimen(
    before="with torch.no_grad(): validate(model)",
    after="model.eval(); with torch.no_grad(): validate(model)",
    damage=lambda patient: patient.session(patient),
    measure="accuracy that a validation on sorted digits reports, %",
    chapter=10,
    threads=[
        ("https://github.com/fxia22/pointnet.pytorch/pull/19", "2018-08-18"),
        ("https://github.com/princeton-vl/pytorch_stacked_hourglass/issues/44", "2023-05-10"),
    ],
    rules=("BN-W01",),
)
def validation_in_training_mode(fixed: bool) -> Patient:
    """The validation score depends on the batch size, and validating changes the model.

    Gradients are off, but the model is in training mode: each validation batch is normalized by itself, and moves the
    running statistics.
    """

    def validate(patient: Patient) -> float:
        patient.model.train(not fixed)
        with torch.no_grad():
            return share_right(patient.model, sorted_by_class())

    return Patient(trained(), batches_of("test"), session=validate)


@specimen(
    before="model.eval(); test(model)  # and on with the next epoch",
    after="model.eval(); test(model); model.train()",
    damage=offset,
    measure="distance of a running mean from its data, standard deviations",
    chapter=10,
    threads=[("https://github.com/HuiZeng/Grid-Anchor-based-Image-Cropping-Pytorch/issues/2", "2019-12-02")],
    rules=("BN-W06", "BN-F03"),
)
def training_goes_on_in_evaluation_mode(fixed: bool) -> Patient:
    """After the first epoch the running statistics never change again.

    The test function calls ``model.eval()``, and nothing calls ``model.train()`` after it: the weights go on learning
    with the statistics of the first epoch.
    """

    def epoch(patient: Patient) -> None:
        patient.model.train(fixed)
        train(patient.model, 20, optimizer=patient.optimizer)

    model = train(cnn(), 20)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train(fixed)
    train(model, 150, optimizer=optimizer)
    return Patient(model, batches_of(), optimizer, session=epoch)


@specimen(
    before="module.momentum = 0.0",
    after="module.momentum = None",
    damage=accuracy,
    measure=ACCURACY,
    chapter=3,
    threads=[
        ("https://github.com/Lightning-AI/pytorch-lightning/issues/14866", "2022-09-23"),
        ("https://github.com/svishwa/crowdcount-mcnn/issues/64", "2020-11-24"),
    ],
    rules=("BN-S01",),
)
def momentum_zero(fixed: bool) -> Patient:
    """Training looks fine, but the accuracy falls towards chance as soon as the model is evaluated.

    In torch the momentum is the weight of the new value: with 0 the running mean stays 0 and the running variance 1.
    ``None`` gives all batches the same weight.
    """
    model = cnn(lambda channels: nn.BatchNorm2d(channels, momentum=None if fixed else 0.0))
    return Patient(train(model, 150).eval(), batches_of())


@specimen(
    before="nn.BatchNorm1d(features, momentum=0.99)",
    after="nn.BatchNorm1d(features, momentum=0.01)",
    damage=mean_loss,
    measure="cross-entropy of the test digits, nats",
    chapter=3,
    threads=[
        ("https://github.com/r9y9/tacotron_pytorch/issues/19", "2019-05-09"),
        ("https://github.com/fastestimator/fastestimator/pull/1201", "2022-01-18"),
        ("https://github.com/ludwig-ai/ludwig/pull/2100", "2022-06-06"),
    ],
    rules=("BN-S02",),
)
def momentum_of_another_framework(fixed: bool) -> Patient:
    """The test loss jumps from epoch to epoch, although the training loss falls smoothly.

    TensorFlow's momentum is the share of the old value that is kept, torch's is the weight of the new one. Copied as it
    is, 0.99 makes the running statistics those of the last batch.
    """
    model = mlp(lambda features: nn.BatchNorm1d(features, momentum=0.01 if fixed else 0.99))
    train(model, 400, batches=shuffled(32))
    return Patient(train(model, 1, batches=shuffled(8)).eval(), batches_of())


@specimen(
    before="train(model, steps=60)  # momentum=0.001",
    after="train(model, steps=60)  # momentum=0.1",
    damage=accuracy,
    measure=ACCURACY,
    chapter=3,
    threads=[("https://github.com/facebookresearch/schedule_free/issues/60", "2025-01-30")],
    rules=("BN-S03",),
)
def statistics_not_warmed_up(fixed: bool) -> Patient:
    """A short run ends with a good training loss and a useless model.

    The momentum suits runs of many thousands of steps. After 60 steps the running statistics are still 94% the
    initial 0 and 1.
    """
    model = cnn(lambda channels: nn.BatchNorm2d(channels, momentum=0.1 if fixed else 0.001))
    return Patient(train(model, 60).eval(), batches_of())


@specimen(
    before="nn.BatchNorm2d(channels)  # eps=1e-5, the weights come from Keras",
    after="nn.BatchNorm2d(channels, eps=1e-3)",
    damage=lambda patient: share_right(patient.model, _dim("test")),
    measure="accuracy on the test digits, %",
    chapter=13,
    threads=[
        ("https://github.com/gzuidhof/nn-transfer/pull/3", "2017-12-06"),
        ("https://github.com/qqwweee/keras-yolo3/issues/451", "2019-05-15"),
    ],
    rules=("BN-F12", "BN-S13"),
)
def eps_of_another_framework(fixed: bool) -> Patient:
    """A converted network gives different outputs from the original, although all weights were copied.

    The variances are small, and the original's eps is 1e-3 while torch's is 1e-5: what was divided by about the square
    root of eps is now divided by much less.
    """
    original = train(_with_eps(1e-3), 100, batches=shuffled(64, 0.03 * images_and_labels().images))
    model = _with_eps(1e-3 if fixed else 1e-5)
    model.load_state_dict(original.state_dict())
    return Patient(model.eval(), _dim("train"))


def _with_eps(eps: float) -> nn.Sequential:
    return cnn(lambda channels: nn.BatchNorm2d(channels, eps=eps))


def _dim(part: str) -> list[tuple[Tensor, Tensor]]:
    """Digits of little contrast."""
    return [(0.03 * images, labels) for images, labels in batches_of(part)]


@specimen(
    before="nn.BatchNorm2d(channels, track_running_stats=False)",
    after="nn.BatchNorm2d(channels)",
    damage=accuracy_as_left,
    measure="accuracy on the test digits, sorted by class, %",
    chapter=3,
    threads=[
        ("https://github.com/xu-ji/IIC/issues/10", "2019-05-08"),
        ("https://github.com/TengdaHan/DPC/issues/21", "2020-12-21"),
    ],
    rules=("BN-S09", "BN-F04"),
)
def no_running_statistics(fixed: bool) -> Patient:
    """A sample's prediction changes with the other samples in its batch, even in evaluation mode.

    Without running statistics the layer has nothing else to use: it normalizes with the batch's statistics in both
    modes.
    """
    model = cnn(lambda channels: nn.BatchNorm2d(channels, track_running_stats=fixed))
    return Patient(train(model, 150).eval(), batches_of("test"))


def _brighter(part: str = "train") -> Tensor:
    """The digits as another camera takes them: less contrast, brighter."""
    return 0.4 * images_and_labels(part).images + 1.5


@specimen(
    before="backbone.requires_grad_(False)",
    after="surgery.freeze(backbone)",
    damage=accuracy,
    measure="accuracy on the old task after fine-tuning on the new one, %",
    chapter=13,
    threads=[
        ("https://github.com/pytorch/pytorch/issues/86590", "2022-10-10"),
        ("https://github.com/lightly-ai/lightly/issues/1438", "2023-11-29"),
    ],
    rules=("BN-S14", "BN-W02"),
)
def frozen_parameters_moving_statistics(fixed: bool) -> Patient:
    """The backbone is frozen, and yet the old task gets worse while the new head trains.

    Running statistics are buffers: ``requires_grad`` does nothing to them. In training mode they follow the new data.
    """
    model = trained()
    model[:-1].requires_grad_(False)
    if fixed:
        freeze(model[:-1])

    def fine_tune(patient: Patient) -> None:
        train(patient.model, 10, optimizer=patient.optimizer, batches=new)

    new = shuffled(64, _brighter())
    head = copy.deepcopy(model[-1])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.003)
    old, model[-1] = model[-1], head
    train(model, 60, optimizer=optimizer, batches=new)
    model[-1] = old  # the old task has its own head
    return Patient(model, batches_of(), torch.optim.Adam(old.parameters(), lr=0.0), session=fine_tune)


@specimen(
    before="freeze_bn(model)  # eval() on each norm; then model.train() in every epoch",
    after="surgery.freeze(model)  # stays frozen whatever train() says",
    damage=lambda patient: _after_session(patient),
    measure="accuracy on the old data after two epochs on the new, %",
    chapter=13,
    threads=[
        ("https://github.com/jfzhang95/pytorch-deeplab-xception/issues/140", "2019-11-26"),
        ("https://github.com/pgniewko/gt-pyg/issues/112", "2026-09-05"),
    ],
    rules=("BN-S14", "BN-W02", "BN-W09"),
)
def freezing_undone_by_train(fixed: bool) -> Patient:
    """Frozen batch norms move after all, although the check for frozen layers still passes.

    ``eval()`` was called once on the frozen norms. ``model.train()`` at the start of every epoch reaches all modules
    and undoes it.
    """
    model = trained()
    model[:-1].requires_grad_(False)
    for module in model[:-1]:
        module.eval()
    if fixed:
        freeze(model[:-1])
    optimizer = torch.optim.Adam(model[-1].parameters(), lr=0.0)

    def two_epochs(patient: Patient) -> None:
        for _ in range(2):
            patient.model.train()
            train(patient.model, 22, optimizer=patient.optimizer, batches=shuffled(64, _brighter()))

    return Patient(model, batches_of(), optimizer, session=two_epochs)


def _after_session(patient: Patient) -> float:
    patient.session(patient)
    return accuracy(patient)


class Distillation(nn.Module):
    """A student and the teacher that it learns from."""

    def __init__(self, student: nn.Module, teacher: nn.Module):
        super().__init__()
        self.student, self.teacher = student, teacher

    def forward(self, images: Tensor) -> Tensor:
        return self.student(images)


@specimen(
    before="with torch.no_grad(): targets = teacher(images)  # no_grad: the teacher is not updated",
    after="teacher.eval(); with torch.no_grad(): targets = teacher(images)",
    damage=lambda patient: _teacher_after(patient),
    measure="accuracy of the teacher after teaching on noisy images, %",
    chapter=10,
    threads=[
        ("https://github.com/facebookresearch/unbiased-teacher/issues/47", "2021-09-14"),
        ("https://github.com/jbwang1997/CrossKD/issues/13", "2024-07-02"),
        ("https://github.com/vrvlive/knowlege-distillation/issues/2", "2024-09-10"),
    ],
    rules=("BN-W01",),
)
def teacher_in_training_mode(fixed: bool) -> Patient:
    """The fixed teacher gets worse while the student learns from it.

    ``no_grad`` protects the weights, not the buffers: in training mode each batch that the teacher labels moves its
    running statistics.
    """
    model = Distillation(cnn(), trained())
    optimizer = torch.optim.Adam(model.student.parameters(), lr=0.003)

    def distill(patient: Patient) -> None:
        patient.model.train()
        if fixed:
            patient.model.teacher.eval()
        for images, _ in islice(shuffled(), 40):
            noisy = images + 2 * torch.randn_like(images)
            with torch.no_grad():
                targets = patient.model.teacher(noisy).softmax(1)
            patient.optimizer.zero_grad()
            functional.cross_entropy(patient.model(noisy), targets).backward()
            patient.optimizer.step()

    return Patient(model, batches_of(), optimizer, session=distill)


def _teacher_after(patient: Patient) -> float:
    patient.session(patient)
    return accuracy(Patient(patient.model.teacher))


@specimen(
    before="model.train()  # switches dropout on for sampling",
    after="model.eval(); [m.train() for m in model.modules() if isinstance(m, nn.Dropout)]",
    damage=lambda patient: _after_session(patient),
    measure="accuracy after predictions for another camera, %",
    chapter=9,
    threads=[("https://github.com/lightning-uq-box/lightning-uq-box/pull/173", "2024-08-13")],
    rules=("BN-W01",),
)
def monte_carlo_dropout_switches_the_norm(fixed: bool) -> Patient:
    """Uncertainty estimates from dropout depend on the batch, and each prediction changes the model.

    Training mode was meant for the dropout layers. It also lets the batch norms use, and remember, the test batch.
    """
    network = nn.Sequential(*cnn()[:-1], nn.Dropout(0.2), nn.Linear(64, 10))
    model = train(network, 150).eval()

    @torch.no_grad()
    def sample(patient: Patient) -> list[Tensor]:
        patient.model.train(not fixed)
        patient.model[-2].train()
        return [sum(patient.model(images).softmax(1) for _ in range(5)) / 5 for images in _brighter("test").split(32)]

    return Patient(model, batches_of("test"), session=sample)


class NormPerDomain(nn.Module):
    """A batch norm for each domain; ``domain`` says which one is used."""

    def __init__(self, channels: int):
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)])
        self.domain = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.norms[self.domain](x)


@specimen(
    before="model(source); model(target)  # the same norms",
    after="model(source, domain=0); model(target, domain=1)  # a norm for each domain",
    damage=accuracy,
    measure="accuracy on the source's test digits, %",
    chapter=10,
    threads=[
        ("https://github.com/adapt-python/adapt/issues/92", "2022-12-15"),
        ("https://github.com/scikit-adaptation/skada/issues/252", "2024-10-15"),
    ],
    rules=("BN-F10", "BN-W05"),
)
def one_norm_for_two_domains(fixed: bool) -> Patient:
    """Training goes well on both domains, but in evaluation both do worse than either would alone.

    In training, each domain's batches are normalized separately. The running statistics are a mixture of the two that
    fits neither.
    """
    model = cnn(NormPerDomain if fixed else nn.BatchNorm2d)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    target = -2 * images_and_labels().images + 3

    def both(steps: int) -> None:
        source, other = shuffled(), shuffled(64, target)
        for _ in range(steps):
            optimizer.zero_grad()
            for domain, batches in enumerate((source, other)):
                _choose(model, domain)
                inputs, labels = next(batches)
                functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        _choose(model, 0)

    both(120)
    return Patient(model, batches_of(), optimizer, session=lambda patient: both(5))


def _choose(model: nn.Module, domain: int) -> None:
    for module in model.modules():
        if isinstance(module, NormPerDomain):
            module.domain = domain


class PartlyFrozen(nn.Module):
    """A network whose ``train`` keeps its first convolution in evaluation mode; ``broken`` forgets the other half."""

    def __init__(self, network: nn.Sequential, broken: bool):
        super().__init__()
        self.network, self.broken = network, broken

    def train(self, mode: bool = True) -> "PartlyFrozen":
        if not self.broken:
            return super().train(mode)
        self.training = mode
        for part in self.network[:1]:
            part.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


@specimen(
    before="def train(self, mode=True): self.training = mode; self.first.eval()",
    after="def train(self, mode=True): super().train(mode); self.first.eval()",
    damage=accuracy_as_left,
    measure="accuracy on the sorted test digits after model.eval(), %",
    chapter=10,
    threads=[("https://github.com/roytseng-tw/Detectron.pytorch/issues/104", "2018-07-07")],
    rules=("BN-S16", "BN-S15"),
)
def eval_that_does_not_arrive(fixed: bool) -> Patient:
    """``model.eval()`` was called and ``model.training`` is False, but the scores still depend on the batch.

    The model overrides ``train`` to keep some layers frozen and does not pass the mode on to the others, whose norms
    stay in training mode.
    """
    return Patient(PartlyFrozen(trained(), not fixed).eval(), batches_of("test"))


@specimen(
    before="scores = model(image)  # pixels from 0 to 255",
    after="scores = model((image / 255 - mean) / std)",
    damage=lambda patient: share_right(patient.model, patient.batches),
    measure="accuracy of the deployed model, %",
    chapter=13,
    threads=[("https://github.com/bearpaw/pytorch-pose/issues/4", "2017-07-07")],
    rules=("BN-F02",),
)
def inputs_prepared_in_another_way(fixed: bool) -> Patient:
    """Validation in training mode is fine, but in evaluation mode the network fails.

    The second program does not prepare its images as training did. The batch's own statistics hide that; the running
    ones cannot.
    """
    raw, standard = digits().test, digits().standardized().test
    images = functional.avg_pool2d(standard.images if fixed else 255 * raw.images, 2)
    model = trained().eval()
    return Patient(model, list(zip(images.split(64), raw.labels.split(64), strict=True)))
