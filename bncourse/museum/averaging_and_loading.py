"""E. Averaging and loading."""

import copy

import torch
from torch.optim.swa_utils import AveragedModel

from bncourse.museum.patients import (
    accuracy,
    batches_of,
    cnn,
    disagreement,
    images_and_labels,
    mlp,
    shuffled,
    train,
    trained,
)
from bncourse.museum.specimen import Patient, specimen
from bncourse.surgery import recalibrate


def _accuracy_of_the_average(patient: Patient) -> float:
    return accuracy(Patient(patient.averaged))


@specimen(
    before="for e, p in zip(ema.parameters(), model.parameters()): e.lerp_(p, 0.05)",
    after="... and the same for the floating-point buffers: surgery.average(model, decay=0.95)",
    damage=_accuracy_of_the_average,
    measure="accuracy of the averaged model, %",
    chapter=13,
    threads=[
        ("https://github.com/YU1ut/MixMatch-pytorch/issues/16", "2019-08-07"),
        ("https://github.com/pytorch/ignite/issues/2590", "2022-06-03"),
    ],
    rules=("BN-S27", "BN-F15"),
)
def average_of_the_parameters_only(fixed: bool) -> Patient:
    """The exponential average of the weights is much worse than the weights themselves.

    ``parameters()`` has no running statistics: the average keeps those of the model that it was copied from.
    """
    model = cnn()
    average = copy.deepcopy(model)

    @torch.no_grad()
    def follow() -> None:
        for kept, new in zip(average.parameters(), model.parameters(), strict=True):
            kept.lerp_(new, 0.05)
        if fixed:
            for kept, new in zip(average.buffers(), model.buffers(), strict=True):
                kept.copy_(torch.lerp(kept.float(), new.float(), 0.05) if kept.is_floating_point() else new)

    train(model, 150, after_step=follow)
    return Patient(model.eval(), batches_of(), averaged=average.eval())


@specimen(
    before="averaged.update_parameters(model); test(averaged)",
    after="averaged.update_parameters(model); recalibrate(averaged, batches); test(averaged)",
    damage=_accuracy_of_the_average,
    measure="accuracy of the averaged model, %",
    chapter=13,
    threads=[
        ("https://github.com/leela-zero/leela-zero/pull/1064", "2018-03-20"),
        ("https://github.com/timgaripov/swa/issues/8", "2019-01-29"),
    ],
    rules=("BN-S27", "BN-F15"),
)
def average_with_the_last_statistics(fixed: bool) -> Patient:
    """Averaging the weights of the last epochs makes the model worse instead of better.

    A network with averaged weights has its own activations, but the running statistics that come with it are those of
    the last weights.
    """
    model = train(cnn(), 20)
    averaged = AveragedModel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(6):
        train(model, 20, optimizer=optimizer)
        averaged.update_parameters(model)
    if fixed:
        recalibrate(averaged, [images_and_labels().images])
    return Patient(model.eval(), batches_of(), averaged=averaged.eval())


@specimen(
    before="target.parameters() <- model.parameters()",
    after="target.load_state_dict(model.state_dict())",
    damage=lambda patient: disagreement(patient.model, patient.averaged),
    measure="share of inputs for which the target network answers differently, %",
    chapter=13,
    threads=[
        ("https://github.com/DLR-RM/stable-baselines3/issues/996", "2022-08-03"),
        ("https://github.com/Stable-Baselines-Team/stable-baselines3-contrib/pull/99", "2022-08-25"),
        ("https://github.com/UoA-CARES/cares_reinforcement_learning/pull/242", "2025-01-21"),
    ],
    rules=("BN-S27", "BN-F15"),
)
def target_network_without_statistics(fixed: bool) -> Patient:
    """A reinforcement learner with batch norm is unstable, although its target network is a copy.

    The copy is made from ``parameters()``: the target's running statistics stay as they were at the start.
    """
    model = mlp()
    target = copy.deepcopy(model)
    train(model, 100)
    if fixed:
        target.load_state_dict(model.state_dict())
    else:
        for kept, new in zip(target.parameters(), model.parameters(), strict=True):
            kept.data.copy_(new.data)
    return Patient(model.eval(), batches_of(), averaged=target.eval())


@specimen(
    before="server.parameters() <- mean of the clients' parameters()",
    after="server.load_state_dict(mean of the clients' floating-point state)",
    damage=accuracy,
    measure="accuracy of the server's model, %",
    chapter=14,
    threads=[
        ("https://github.com/SymbioticLab/FedScale/issues/57", "2021-11-23"),
        ("https://github.com/APPFL/APPFL/issues/94", "2022-08-30"),
        ("https://github.com/owkin/FLamby/issues/260", "2022-11-25"),
        ("https://github.com/TsingZ0/PFLlib/issues/260", "2025-12-15"),
    ],
    rules=("BN-S28",),
)
def federated_average_of_the_parameters(fixed: bool) -> Patient:
    """The federated model is poor and unstable, and more so the more the clients' data differ.

    The server averages ``parameters()``. Its running statistics are those of whichever client came first.
    """
    images = images_and_labels().images
    start = train(mlp(), 60)
    clients = []
    lights = (images - 1, images + 1)  # one takes pictures in the dark, the other in the sun
    for lit in lights:
        clients.append(train(copy.deepcopy(start), 40, batches=shuffled(64, lit)).eval())
    server = copy.deepcopy(clients[0])
    states = [client.state_dict() for client in clients]
    names = [name for name, _ in server.named_parameters()]
    if fixed:
        names = [name for name, value in server.state_dict().items() if value.is_floating_point()]
    server.load_state_dict({name: (states[0][name] + states[1][name]) / 2 for name in names}, strict=False)
    return Patient(server.eval(), batches_of(), averaged=clients)


@specimen(
    before="model.load_state_dict(checkpoint, strict=False)  # only parameters were saved",
    after="model.load_state_dict(checkpoint)  # of model.state_dict()",
    damage=accuracy,
    measure="accuracy on the test digits, %",
    chapter=13,
    threads=[
        ("https://github.com/NVIDIA/DIGITS/issues/496", "2016-01-07"),
        ("https://github.com/torch/nn/issues/1165", "2017-03-08"),
        ("https://github.com/TengdaHan/DPC/issues/10", "2019-11-20"),
    ],
    rules=("BN-S04", "BN-S06"),
)
def statistics_not_in_the_checkpoint(fixed: bool) -> Patient:
    """The model was good when it was saved and is bad when it is loaded.

    The checkpoint has the parameters, not the buffers. ``strict=False`` hides that, and the running statistics are 0
    and 1.
    """
    source, model = trained(), cnn()
    checkpoint = source.state_dict() if fixed else dict(source.named_parameters())
    model.load_state_dict(checkpoint, strict=fixed)
    return Patient(model.eval(), batches_of())


@specimen(
    before="running_var = checkpoint_var - eps  # old version, says the loader",
    after="running_var = checkpoint_var",
    damage=accuracy,
    measure="accuracy on the test digits, %",
    chapter=13,
    threads=[
        ("https://github.com/shicai/MobileNet-Caffe/issues/87", "2021-05-31"),
        ("https://github.com/facebookresearch/detectron2/pull/3160", "2021-06-17"),
    ],
    rules=("BN-S29",),
)
def eps_subtracted_from_the_variance(fixed: bool) -> Patient:
    """A model is fine until it is saved and loaded; then its output is NaN.

    The loader subtracts eps from the running variance, as if the checkpoint's format had added it. A channel that is
    almost constant has a variance below eps.
    """
    model = trained()
    with torch.no_grad():
        model[0].weight[0] = 0  # a channel that has died
    recalibrate(model, [images_and_labels().images])
    if not fixed:
        for norm in (model[1], model[4]):
            norm.running_var -= norm.eps
    return Patient(model.eval(), batches_of())
