"""Run the lab's presets in a browser, and judge each preset's sentence by the book's rule.

usage: python -m tools.lab_presets [PRESET ...]

Each preset is run on ten seeds that its design was not chosen on. What was measured is kept in
bncourse/lab/measured.json, and the lab shows it beside a reader's own run. Exits with 1 if a sentence does not hold.
Needs Debian's chromium.
"""

import argparse
import json
import math
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence

from scipy import stats

from bncourse import lab
from tools.toc import ROOT

FIRST_SEED = 20
KEPT = ROOT / "bncourse" / "lab" / "measured.json"
OVERLAP = 397 / 1797  # each seed divides the digits anew: a test set shares this part of another's images

RUN = """({states, measure}) => states.map((state) => {
    const experiment = new Experiment(state, digits, 1);
    for (const _ of experiment.train());
    return experiment.runs.map(([run]) => MEASURES[measure](run));
})"""


def state(preset: dict, seed: int) -> dict:
    """All settings of a preset with one seed, as the engine takes them."""
    start = {"network": {}, "both": {}}
    for name, setting in lab.settings().items():
        start[setting["of"]][name] = setting["start"]
    base = start["network"] | preset.get("base", {})
    shared = start["both"] | preset.get("both", {}) | {"seed": seed, "seeds": 1}
    return {"a": base | preset.get("a", {}), "b": base | preset.get("b", {}), "shared": shared}


def measure(evaluate: Callable, preset: dict) -> list[float]:
    """The preset's number for each of its ten seeds, from a page that has the engine and the digits."""
    first = preset.get("seeds", FIRST_SEED)
    seeds = range(first, first + 10)
    pairs = evaluate(RUN, {"states": [state(preset, seed) for seed in seeds], "measure": preset["measure"]})
    return [{"A": a, "B": b, "A - B": a - b}[preset["of"]] for a, b in pairs]


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and ends of the 95% interval of Student's t, wider where splits overlap (Nadeau and Bengio 2003)."""
    mean, count = statistics.fmean(values), len(values)
    error = statistics.stdev(values) * math.sqrt(1 / count + OVERLAP / (1 - OVERLAP))
    reach = float(stats.t.ppf(0.975, count - 1)) * error
    return mean, mean - reach, mean + reach


def verdict(predicts: str, low: float, high: float, d: float) -> str:
    """The book's rule, for an effect with this interval."""
    if predicts == "less":
        low, high = -high, -low
    if predicts == "the same":
        return "holds" if -d < low and high < d else "does not hold" if low >= d or high <= -d else "undecided"
    return "holds" if low >= d else "does not hold" if high < d else "undecided"


def judge(preset: dict, values: Sequence[float]) -> dict:
    """What ``measured.json`` keeps of a preset."""
    mean, low, high = interval(values)
    than = preset.get("than", 0)
    found = verdict(preset["predicts"], low - than, high - than, preset["d"])
    ends = {name: float(f"{end:.4g}") for name, end in (("mean", mean), ("low", low), ("high", high))}
    return ends | {"count": len(values), "verdict": found}


def main(names: Sequence[str]) -> int:
    from playwright.sync_api import sync_playwright

    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        load(page)
        for name in names or lab.presets():
            started = time.perf_counter()
            kept[name] = found = judge(lab.presets()[name], measure(page.evaluate, lab.presets()[name]))
            print(f"{name}: {found} ({time.perf_counter() - started:.0f} s)", flush=True)
            KEPT.write_text(json.dumps({one: kept[one] for one in lab.presets() if one in kept}, indent=1) + "\n")
        browser.close()
    wrong = [name for name in lab.presets() if kept.get(name, {}).get("verdict") != "holds"]
    print(f"{len(lab.presets()) - len(wrong)} sentences hold; not: {', '.join(wrong) or 'none'}")
    return 1 if wrong else 0


def load(page) -> None:
    """Put the engine and the digits into a page."""
    page.set_content("<!doctype html><title>The lab's engine</title>")
    page.add_script_tag(content=lab.engine())
    page.evaluate("(packed) => { window.digits = unpackDigits(packed); }", lab.digits.packed_digits())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="PRESET", choices=[[], *lab.presets()], help="default: all")
    sys.exit(main(parser.parse_args().names))
