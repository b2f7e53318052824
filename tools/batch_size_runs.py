"""The runs behind the explorer of chapter 8.

usage: python -m tools.batch_size_runs        (writes bncourse/explorers/figures/batch_size.json)

Two networks, three norms, six batch sizes, five seeds, four epochs on ``digits``; about 5 minutes on one idle core.
"""

import json
from itertools import product

import torch
from tqdm import tqdm

from bncourse.data import digits
from bncourse.explorers.figures.batch_size import NETWORKS, NORMS, RUNS, SEEDS, SIZES
from bncourse.surgery import recalibrate
from bncourse.training import evaluate, fit


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
    for seed, network, norm in tqdm(list(product(range(SEEDS), NETWORKS, NORMS))):
        runs = [run(network, norm, size, seed) for size in SIZES]
        accuracy[network][norm].append([round(trained, 4) for trained, _ in runs])
        if norm == "batch":
            accuracy[network]["recalibrated"].append([round(recalibrated, 4) for _, recalibrated in runs])
    kept = {"torch": torch.__version__, "seeds": SEEDS, "sizes": SIZES, "accuracy": accuracy}
    RUNS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
