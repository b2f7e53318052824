"""Chapter 13: what a network costs to run, and images of another camera, with what adapts a network to them."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bncourse.data import DataSet, Examples
from bncourse.moved import names_of
from bncourse.probes import outputs_of
from bncourse.surgery import BATCH_NORMS

__all__ = ["CAMERAS", "adapted_accuracy", "macs", "quantized", "shifted_domain"]


@torch.no_grad()
def macs(model: nn.Module, images: torch.Tensor) -> dict[str, int]:
    """Multiply-adds of one forward pass of ``images`` (N, ...): in linear and convolution layers, and in batch norms.

    An output of the first kind takes one for each weight that it reads; one of a batch norm in evaluation takes one.
    """
    with outputs_of(model) as calls, FlopCounterMode(display=False) as counter:
        model(images)
    norms = sum(call.output.numel() for call in calls if isinstance(call.layer, BATCH_NORMS))
    return {"linear and convolution": counter.get_total_flops() // 2, "batch norm": norms}


CAMERAS = {  # what each makes of images and of noise of their shape
    "dull": lambda images, noise: images / 2 + 0.25 + 0.1 * noise,
    "gamma": lambda images, noise: images.clamp(0, 1) ** 0.3,
    "moved": lambda images, noise: images.roll(3, -1),
    "negative": lambda images, noise: 1 - images,
}


def shifted_domain(data: DataSet, seed: int = 0, camera: str = "dull") -> DataSet:
    """The data set as another camera would have taken it.

    Args:
        seed: of the noise.
        camera: "dull" (half the contrast, a quarter brighter, noise of standard deviation 0.1 in each pixel), "gamma"
            (each value between 0 and 1 to the power of 0.3), "moved" (by three pixels) or "negative".

    Raises:
        ValueError: another camera.
    """
    if camera not in CAMERAS:
        raise ValueError(f"camera must be one of {', '.join(CAMERAS)}, got {camera!r}")
    rng = torch.Generator().manual_seed(seed)

    def photograph(examples: Examples) -> Examples:
        noise = torch.randn(examples.images.shape, generator=rng).to(examples.images.device)
        return Examples(CAMERAS[camera](examples.images, noise), examples.labels)

    return DataSet(f"{data.name}, another camera", photograph(data.train), photograph(data.test))


def adapted_accuracy(
    network: nn.Module, examples: Examples, batch_size: int, rate: float = 0.0, in_order: bool = False
) -> float:
    """The accuracy of a network that takes its statistics from the test batches themselves, one pass; left as it was.

    Args:
        rate: after each batch Adam takes a step with this rate, in the norms' gamma and beta alone, that lowers the
            entropy of the predictions (Tent: Wang et al. 2021, arXiv 2006.10726); 0 takes none.
        in_order: the images come sorted by their class instead of mixed. A last, smaller batch is left out.
    """
    network = copy.deepcopy(network).train()
    norms = [module for module in network.modules() if isinstance(module, BATCH_NORMS)]
    optimizer = torch.optim.Adam([p for norm in norms for p in norm.parameters()], lr=rate)
    mixed = torch.randperm(len(examples.labels), generator=torch.Generator().manual_seed(0))
    right = []
    for batch in (examples.labels.argsort() if in_order else mixed).split(batch_size):
        if len(batch) == batch_size:
            scores = network(examples.images[batch])
            right.append(scores.argmax(1) == examples.labels[batch])
            if rate:
                optimizer.zero_grad()
                torch.distributions.Categorical(logits=scores).entropy().mean().backward()
                optimizer.step()
    return torch.cat(right).double().mean().item()


@torch.no_grad()
def quantized(network: nn.Module, bits: int, per_channel: bool) -> nn.Module:
    """A copy whose linear and convolution weights are rounded to 2^bits - 1 levels, the same for each sign.

    Args:
        per_channel: the largest weight of each output channel sets its step; otherwise that of the whole tensor.
    """
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            size = module.weight.abs().flatten(1).amax(1) if per_channel else module.weight.abs().max().view(1)
            step = (size / (2 ** (bits - 1) - 1)).view(-1, *[1] * (module.weight.dim() - 1))
            module.weight.copy_((module.weight / step).round() * step)
    return network


__getattr__ = names_of(__name__)
