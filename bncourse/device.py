"""The best device there is, in one place."""

import os

import torch

__all__ = ["best_device"]


def best_device() -> torch.device:
    """CUDA if there is one, then Apple's MPS, then the CPU; the variable ``BNCOURSE_DEVICE`` overrides.

    Raises:
        ValueError: ``BNCOURSE_DEVICE`` names no device of torch.
        RuntimeError: ``BNCOURSE_DEVICE`` names a device that this machine does not have.
    """
    wanted = os.environ.get("BNCOURSE_DEVICE", "")
    if not wanted:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise ValueError(
            f"BNCOURSE_DEVICE={wanted!r} is no device; expected for example 'cpu', 'cuda:0', 'mps'"
        ) from error
    try:
        torch.zeros(1, device=device).item()  # .item(): "meta" has no numbers to compute with
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).split(". ")[0]  # more of it is a list of all that torch was built with
        raise RuntimeError(f"BNCOURSE_DEVICE={wanted!r} is not available here: {reason}") from error
    return device
