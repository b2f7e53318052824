"""The runs behind the explorer of chapter 8; ``main`` writes them to batch_size.json.

Two networks, three norms, six batch sizes, five seeds, four epochs on ``digits``; about 5 minutes on one idle core.
"""

import json
from pathlib import Path

import torch
from tqdm import tqdm

from bncourse.data import digits
from bncourse.models import fc_network, small_cnn
from bncourse.surgery import recalibrate
from bncourse.training import evaluate, fit

SIZES = [2, 4, 8, 16, 32, 64]
SEEDS = 5
NORMS = ["batch", "group", "layer"]
NETWORKS = {
    "fully connected": lambda norm: fc_network([784, 96, 96, 96, 10], norm=norm),
    "convolutional": lambda norm: small_cnn(norm, channels=1, width=8),
}


def run(network: str, norm: str, size: int, seed: int) -> tuple[float, float]:
    """Test accuracy after four epochs, as trained and with BatchNorm's statistics taken anew from the training set.

    Every norm has the same learning rate, which grows with the square root of the batch size: 0.1 at 32.
    """
    data = digits(seed=seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = NETWORKS[network](norm)
    rate = 0.1 * (size / 32) ** 0.5
    trained = fit(model, data.train, data.test, epochs=4, batch_size=size, learning_rate=rate, seed=seed).accuracy
    if norm == "batch":
        recalibrate(model, data.train.images.split(200))
    return trained, evaluate(model, data.test).accuracy


def main() -> None:
    torch.set_num_threads(1)
    accuracy = {network: {norm: [] for norm in [*NORMS, "recalibrated"]} for network in NETWORKS}
    for seed in tqdm(range(SEEDS)):
        for network in NETWORKS:
            for norm in NORMS:
                trained, recalibrated = zip(*(run(network, norm, size, seed) for size in SIZES), strict=True)
                accuracy[network][norm].append([round(each, 4) for each in trained])
                if norm == "batch":
                    accuracy[network]["recalibrated"].append([round(each, 4) for each in recalibrated])
    kept = {"torch": torch.__version__, "seeds": SEEDS, "sizes": SIZES, "accuracy": accuracy}
    Path(__file__).with_name("batch_size.json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
