"""The two networks of the source, with torch's layers, as the source writes them, and what is in them."""

import torch
import torch.nn as nn

__all__ = ["CNNWithBatchNorm", "FCNetworkWithBatchNorm", "layer_table"]


class FCNetworkWithBatchNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(784, 256),
            nn.BatchNorm1d(256),  # BatchNorm1d for FC layers
            nn.ReLU(),
            nn.Linear(256, 128),
            nn.BatchNorm1d(128),
            nn.ReLU(),
            nn.Linear(128, 10),
        )

    def forward(self, x):
        return self.network(x)


class CNNWithBatchNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=3, padding=1),
            nn.BatchNorm2d(64),  # BatchNorm2d for conv layers
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 128, kernel_size=3, padding=1),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )

        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(128 * 8 * 8, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 10)
        )

    def forward(self, x):
        x = self.features(x)
        return self.classifier(x)


@torch.no_grad()
def layer_table(model: nn.Module, x: torch.Tensor) -> str:
    """A Markdown table of the model's layers: what each gives for the input ``x``, and how much it holds.

    Parameters are what the optimizer changes; buffers are what else is saved with the model.
    """
    rows = ["| layer | output | parameters | buffers |", "|---|---|---|---|"]

    def note(layer: nn.Module, _inputs, output: torch.Tensor) -> None:
        parameters, buffers = (sum(t.numel() for t in held) for held in (layer.parameters(), layer.buffers()))
        shape = " × ".join(map(str, output.shape))
        rows.append(f"| {type(layer).__name__} | {shape} | {parameters:,} | {buffers:,} |")

    handles = [m.register_forward_hook(note) for m in model.modules() if not list(m.children())]
    training = model.training
    try:
        model.eval()(x)
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
    parameters, buffers = (sum(t.numel() for t in held) for held in (model.parameters(), model.buffers()))
    return "\n".join([*rows, f"| **all** | | **{parameters:,}** | **{buffers:,}** |"])
