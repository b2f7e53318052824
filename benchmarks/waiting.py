"""What a reader waits for: a step of the lab, the next picture of an explorer, a set of photo digits.

    python -m benchmarks.waiting

Prints milliseconds, and where there is something to compare with, the ratio within this run. The goals, on a machine
that does nothing else: 5 ms for a step of 64-64-64-64-64-10 at a batch of 64, forward and backward; 1/60 s from a
slider's event to the picture; 2 s for 5,000 photo digits.
"""

import time
from collections.abc import Callable
from statistics import median

import numpy as np

from bncourse import data, explorers, lab
from tools.browser import program, started
from tools.lab_presets import load

LAB_STEPS = """(settings) => {
    const shared = {data: "plain", images: 1400, order: "shuffled", testbatch: 64};
    const run = new Run(settings, shared, digits, 0), times = [];
    for (let i = 0; i < 120; i++) {
        const start = performance.now();
        run.step();
        times.push(performance.now() - start);
    }
    return times.slice(40);
}"""
FRAMES = """async () => {
    const root = document.querySelector(".bn-explorer[role=group]"), times = [];
    for (const control of root.querySelectorAll("input")) {
        control.focus();
        await new Promise((resolve) => setTimeout(resolve, 500));
        for (let value = 0; value <= Number(control.max); value++) {
            if (Number(control.value) === value) continue;
            const start = performance.now();
            control.value = value;
            control.dispatchEvent(new Event("input", {bubbles: true}));
            await root.querySelector("img").decode();
            times.push(performance.now() - start);
        }
    }
    return times;
}"""


def milliseconds(step: Callable[[], object], times: int) -> list[float]:
    """Of each of so many calls."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        step()
        taken.append(1000 * (time.perf_counter() - start))
    return taken


def numpy_step() -> Callable[[], None]:
    """The lab's step without a norm, in numpy's float32."""
    random = np.random.default_rng(0)
    weights = [random.standard_normal((64, 64), dtype=np.float32) * 0.18 for _ in range(4)]
    weights.append(random.standard_normal((10, 64), dtype=np.float32) * 0.18)
    biases = [np.zeros(len(w), np.float32) for w in weights]
    x, labels = random.random((64, 64), dtype=np.float32), random.integers(0, 10, 64)

    def step() -> None:
        kept, value = [], x
        for w, b in zip(weights, biases, strict=True):
            kept.append(value)
            value = value @ w.T + b
            if len(w) == 64:
                value = np.maximum(value, 0)
        shares = np.exp(value - value.max(1, keepdims=True))
        gradient = shares / shares.sum(1, keepdims=True)
        gradient[np.arange(64), labels] -= 1
        gradient /= 64
        for w, b, entered in zip(weights[::-1], biases[::-1], kept[::-1], strict=True):
            dw, db = gradient.T @ entered, gradient.sum(0)
            gradient = (gradient @ w) * (entered > 0)
            w -= 0.01 * dw
            b -= 0.01 * db

    return step


def lab_steps(browser) -> None:
    start = {name: one["start"] for name, one in lab.settings().items()} | {"width": 64, "depth": 4, "batch": 64}
    reference = median(milliseconds(numpy_step(), 100))
    print(f"a step of the lab: numpy {reference:.2f} ms")
    for norm in lab.settings()["norm"]["choices"]:
        page = browser.new_page()  # of its own: code that has seen another norm is slower
        load(page)
        taken = median(page.evaluate(LAB_STEPS, start | {"norm": norm}))
        print(f"  {norm:6} {taken:6.2f} ms  {taken / reference:5.1f} times numpy's")
        page.close()


def frames(browser) -> None:
    print("the next picture of an explorer")
    for name in explorers.__all__:
        page = browser.new_page()
        page.set_content(getattr(explorers, name)().html)
        print(f"  {name:24} {median(page.evaluate(FRAMES)):6.2f} ms")
        page.close()


def main() -> None:
    path = program()
    if path is None:
        raise SystemExit("no chromium was found")
    with started(path) as browser:
        lab_steps(browser)
        frames(browser)
    made = milliseconds(lambda: data.photo_digits(train=4000, test=1000), 3)
    print(f"5,000 photo digits: {median(made):.0f} ms")


if __name__ == "__main__":
    main()
