"""A. Statistics and modes."""

import torch

from bncourse.museum.patients import accuracy, batches_of, cnn, train, trained
from bncourse.museum.specimen import Patient, specimen


@specimen(
    before="def validate(model, batches): ...  # no model.eval()",
    after="def validate(model, batches): model.eval(); ...",
    damage=lambda patient: _moved_by_session(patient),
    measure="how far the session moves the running means, in standard deviations",
    chapter=10,
)
def validation_in_training_mode(fixed: bool) -> Patient:
    """The validation score depends on the batch size, and the model changes while it is only looked at.

    The validation loop turns gradients off but leaves the model in training mode, so that every batch of the
    validation set is normalized by itself and moves the running statistics.
    """

    def validate(patient: Patient) -> None:
        patient.model.train(not fixed)
        with torch.no_grad():
            for inputs, _ in patient.batches:
                patient.model(inputs)

    return Patient(trained(), batches_of("test"), session=validate)


def _moved_by_session(patient: Patient) -> float:
    norm = patient.model[1]
    mean, std = norm.running_mean.clone(), norm.running_var.sqrt()
    patient.session(patient)
    return ((norm.running_mean - mean) / std).abs().max().item()


@specimen(
    before="nn.BatchNorm2d(channels, momentum=0)",
    after="nn.BatchNorm2d(channels, momentum=0.1)",
    damage=accuracy,
    measure="accuracy in evaluation mode, %",
    chapter=3,
)
def momentum_zero(fixed: bool) -> Patient:
    """Training looks fine, and the accuracy falls to chance as soon as the model is in evaluation mode.

    ``momentum=0`` keeps the initial mean 0 and variance 1 for ever: in torch the momentum is the new value's weight.
    """
    model = cnn(lambda channels: torch.nn.BatchNorm2d(channels, momentum=0.1 if fixed else 0.0))
    return Patient(train(model, 150).eval(), batches_of("test"))
