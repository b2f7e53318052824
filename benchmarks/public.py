"""Public architectures with random weights, to see what the static rules say of code that is right."""

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path

import torch
from torch import nn

__all__ = ["ARCHITECTURES", "RIGHT", "architectures", "versions"]

HERE = Path(__file__).parent
ZOO = HERE / ".zoo"
OPERATORS = (  # of torchvision; declared, it can be imported beside a torch for the CPU
    *("nms", "qnms", "roi_align", "qroi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d"),
    *("_roi_align_backward", "_roi_pool_backward", "_ps_roi_align_backward", "_ps_roi_pool_backward"),
    "_deform_conv2d_backward",
)
ARCHITECTURES = {
    "torchvision": """
        resnet18 resnext50_32x4d vgg11_bn densenet121 googlenet inception_v3 mobilenet_v2 mobilenet_v3_small mnasnet0_5
        shufflenet_v2_x0_5 efficientnet_b0 regnet_y_400mf convnext_tiny vit_b_32 swin_t maxvit_t
    """,
    "timm": """
        resnetv2_50x1_bit nf_resnet26 ghostnet_100 repvgg_a0 levit_128s hrnet_w18_small rexnet_100 mixer_s32_224
        deit_tiny_patch16_224 mobilenetv4_conv_small botnet26t_256 eca_nfnet_l0
    """,
    "pytorchcv": """
        resnet20_cifar10 preresnet20_cifar10 bninception squeezenet_v1_1 pyramidnet110_a48_cifar10 darknet_ref
        sepreresnet20_cifar10 igcv3_wd4 menet108_8x1_g3 shufflenet_g1_wd4 xdensenet40_2_k24_bc_cifar10
    """,
    "transformers": "bert gpt2 t5 resnet mobilenet_v1 mobilenet_v2 vit convnext",
}

RIGHT = {  # alarms that are right: TensorFlow's momentum, 0.9997 and 0.997, in torch's layers
    "transformers mobilenet_v1": ["BN-S02"],
    "transformers mobilenet_v2": ["BN-S02"],
}


def architectures() -> dict[str, Callable[[], nn.Module]]:
    """How to make each model, by its name with its library. What is not yet there is downloaded."""
    if not ZOO.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(ZOO)]
        subprocess.run([*command, "-r", str(HERE / "doctor-requirements.txt")], check=True)
    sys.path.append(str(ZOO))
    _declare_operators()
    return {
        f"{library} {name}": (lambda library=library, name=name: _makers()[library](name))
        for library, names in ARCHITECTURES.items()
        for name in names.split()
    }


def versions() -> dict[str, str]:
    return {library: metadata.version(library) for library in ("torch", *ARCHITECTURES)}


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "DEF")
    _declare_operators.library = library  # it lasts as long as this object
    for name in OPERATORS:
        library.define(f"{name}(Tensor x) -> Tensor")


def _makers() -> dict[str, Callable[[str], nn.Module]]:
    return {
        "torchvision": lambda name: import_module("torchvision.models").get_model(name, weights=None),
        "timm": lambda name: import_module("timm").create_model(name, pretrained=False),
        "pytorchcv": lambda name: import_module("pytorchcv.model_provider").get_model(name, pretrained=False),
        "transformers": _transformer,
    }


def _transformer(name: str) -> nn.Module:
    transformers = import_module("transformers")
    return transformers.AutoModel.from_config(transformers.AutoConfig.for_model(name))
