"""Run the lab's presets in a browser, and judge each preset's sentence by the book's rule.

usage: python -m tools.lab_presets [PRESET ...]

Each preset is run on ten seeds that its design was not chosen on. What was measured is kept in
bncourse/lab/measured.json, and the lab shows it beside a reader's own run. Without names it runs those presets that
have changed since, or all if the engine has. Exits with 1 if a sentence does not hold. Needs Debian's chromium.
"""

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence

from bncourse import lab
from bncourse.claims import verdict
from bncourse.experiments import Runs, Splits, interval
from tools.toc import ROOT

FIRST_SEED = 20
KEPT = ROOT / "bncourse" / "lab" / "measured.json"

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


def measure(evaluate: Callable, preset: dict) -> Runs:
    """The preset's number for each of its ten seeds, from a page that has the engine and the digits."""
    first = preset.get("seeds", FIRST_SEED)
    seeds = range(first, first + 10)
    pairs = evaluate(RUN, {"states": [state(preset, seed) for seed in seeds], "measure": preset["measure"]})
    values = [{"A": a, "B": b, "A - B": a - b}[preset["of"]] for a, b in pairs]
    return Runs(values, seeds, Splits("digits").overlap)  # each seed divides the digits anew


def design(preset: dict) -> str:
    """A name for all that decides what is measured: the engine's source, the settings, the measure and the rule."""
    rule = [preset.get(name) for name in ("measure", "of", "predicts", "than", "d", "seeds")]
    return hashlib.sha256(json.dumps([lab.engine(), state(preset, 0), rule]).encode()).hexdigest()[:12]


def judge(preset: dict, values: Runs) -> dict:
    """What ``measured.json`` keeps of a preset."""
    measured, than = interval(values), preset.get("than", 0)
    found, _ = verdict(preset["predicts"], measured.low - than, measured.high - than, preset["d"])
    ends = {name: float(f"{getattr(measured, name):.4g}") for name in ("mean", "low", "high")}
    return ends | {"count": measured.count, "verdict": found, "design": design(preset)}


def main(names: Sequence[str]) -> int:
    from playwright.sync_api import sync_playwright

    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    names = names or [name for name, one in lab.presets().items() if kept.get(name, {}).get("design") != design(one)]
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        load(page)
        for name in names:
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
    parser.add_argument(
        "names", nargs="*", metavar="PRESET", choices=[[], *lab.presets()], help="default: those that have changed"
    )
    sys.exit(main(parser.parse_args().names))
