"""How good is the doctor? What it finds in the museum, and what it says of healthy models.

    python -m benchmarks.doctor [--only museum] [--only trained] [--only public] [--only folded]

*Named*: a rule that names the cause speaks on the sick model, and not on its fixed twin. *Noticed*: another error or
warning does. A false alarm is an error or a warning on a healthy model; notes are counted apart. *Folded* are the
public architectures' norms, by ``surgery.fold`` and by torch. Writes benchmarks/doctor.json, which the book's pages on
the doctor and the museum print.
"""

import argparse
import json
import platform
import time
import warnings
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks.healthy import HEALTHY, made_healthy
from benchmarks.public import RIGHT, architectures, versions
from benchmarks.public_runs import SHOWN, folded, shown, speed
from bncourse.doctor import RULES, Finding, diagnose, watch
from bncourse.museum import HELD_OUT, SPECIMENS, Patient, Specimen

RESULTS = Path(__file__).with_suffix(".json")
SEEDS = range(3)
PARTS = ("museum", "held_out", "trained", "public", "folded", "shown")
VERDICTS = ("named", "noticed", "missed")  # the best first


def findings_on(patient: Patient) -> list[Finding]:
    """What the doctor finds: static and with the patient's batches, then while its session runs."""
    found = diagnose(
        patient.model,
        list(patient.batches) or None,
        optimizer=patient.optimizer,
        loss=patient.loss,
        averaged=patient.averaged,
    ).findings
    if patient.session is not None:
        with watch(patient.model, patient.optimizer) as seen:
            patient.session(patient)
        found = found + seen.findings
    return found


def rules_of(findings: list[Finding], notes: bool = True) -> list[str]:
    """The rules that spoke, each once; without ``notes`` those that gave an error or a warning."""
    return list(dict.fromkeys(one.rule for one in findings if notes or one.severity != "note"))


def verdict(specimen: Specimen, seed: int = 0) -> dict[str, Any]:
    """Whether the doctor named the cause, noticed something, or missed it; and what it said of the fixed twin."""
    try:
        sick, well = findings_on(specimen.broken(seed)), findings_on(specimen.fixed(seed))
    except Exception as error:  # the doctor's own
        return {
            "verdict": "missed",
            "rules": [],
            "others": [],
            "twin": [],
            "raised": f"{type(error).__name__}: {error}",
        }
    new = [rule for rule in rules_of(sick) if rule not in rules_of(well)]
    named = [rule for rule in new if rule in specimen.rules]
    others = [rule for rule in rules_of(sick, notes=False) if rule in new and rule not in named]
    found = "named" if named else "noticed" if others else "missed"
    return {"verdict": found, "rules": named, "others": others, "twin": rules_of(well, notes=False)}


def judged(specimen: Specimen) -> dict[str, Any]:
    """The worst verdict of three seeds, and the damage with each: of the broken patient, of the fixed one."""
    verdicts = [verdict(specimen, seed) for seed in SEEDS]
    worst = max(verdicts, key=lambda one: VERDICTS.index(one["verdict"]))
    damages = list(zip(*[specimen.measured(seed) for seed in SEEDS], strict=True))
    twin = sorted({rule for one in verdicts for rule in one["twin"]})
    return {
        "damage": damages,
        **worst,
        "twin": twin,
    }


def trained(name: str) -> dict[str, Any]:
    """What the doctor says of a healthy model: as training leaves it, evaluated, and while it goes on."""
    patient, steps, losses = made_healthy(name)
    patient.model.eval()
    found = diagnose(patient.model, list(patient.batches)).findings
    patient.model.train()
    found = found + findings_on(patient)
    return {"steps": steps, "losses": losses, **_alarms(found)}


def public(name: str, make) -> dict[str, Any]:
    """What the static rules say of an architecture, as it is made and in evaluation mode."""
    model = make()
    found = diagnose(model.train()).findings + diagnose(model.eval()).findings
    return {"right": RIGHT.get(name, []), **_alarms(found)}


def _alarms(found: list[Finding]) -> dict[str, Any]:
    serious = {one.rule: one.measured for one in found if one.severity != "note"}
    notes = [rule for rule in rules_of(found) if rule not in serious]
    return {"alarms": serious, "notes": notes}


def _in_short(row: dict[str, Any]) -> str:
    if "alarms" in row:
        return ", ".join(row["alarms"]) or "quiet"
    return row.get("verdict") or ", ".join(f"{key} {value}" for key, value in row.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=PARTS)
    chosen = parser.parse_args().only or PARTS
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    zoo = architectures() if {"public", "folded", "shown"} & set(chosen) else {}
    works = {
        "museum": [(one.name, lambda one=one: judged(one)) for one in SPECIMENS],
        "held_out": [(one.name, lambda one=one: judged(one)) for one in HELD_OUT],
        "trained": [(name, lambda name=name: trained(name)) for name in HEALTHY],
        "public": [(name, lambda name=name, make=make: public(name, make)) for name, make in zoo.items()],
        "folded": [(name, lambda name=name, make=make: folded(name, make)) for name, make in zoo.items()],
        "shown": [(SHOWN, lambda: shown(zoo[SHOWN])), ("speed, torchvision resnet50", speed)],
    }
    measured = {}
    for part in chosen:
        rows = []
        for name, work in works[part]:
            started = time.perf_counter()
            row = work()
            seconds = time.perf_counter() - started
            if row is not None:
                rows.append({"name": name, **row})
                print(f"{part}: {name}: {_in_short(row)} ({seconds:.1f} s)", flush=True)
        measured[part] = rows
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    kept |= measured
    kept["date"] = date.today().isoformat()
    kept["rules"] = len(RULES)
    own = {"python": platform.python_version(), "torch": metadata.version("torch")}
    kept["versions"] = kept.get("versions", {}) | own | (versions() if zoo else {})
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
