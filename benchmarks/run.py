"""How fast are the layers? Measure each beside torch.nn's, alone and in whole networks; write the tables.

    python benchmarks/run.py [--quick] [--threads 2] [--no-compile] [--no-peers] [--only TEXT]

Each row is measured in a process of its own, because what runs before decides which memory is warm. Within it, every
round runs each variant once, in random order; a ratio is taken within its round. Reported are medians, and quartiles
of the ratios; pages that the system had to bring in, for each step (*faults*); and the bandwidth: the bytes that a step
moves at least, in its time. ~ marks a ratio whose quartiles lie apart by more than a quarter: the machine was busy, and
the number is worth nothing. Writes benchmarks/results.json, benchmarks/results.md and the table of the README.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import torch
from networks import NETWORKS as OTHERS
from torch import nn

import bncourse
from bncourse.models import CNNWithBatchNorm
from bncourse.studies.fast_layers import page_faults, saved_bytes

HERE = Path(__file__).parent
PEERS = HERE / ".peers"
ROUND_SECONDS = 0.02  # a variant runs at least so long in a round
MAPS = [(64, 64, 32, 32), (8, 256, 56, 56)]
FLAT, TEXT = (256, 512), (8, 512, 768)
NETWORKS = {**OTHERS, "the text's CNN": (CNNWithBatchNorm, (64, 3, 32, 32))}
LAYERS = [  # the layer's name, its arguments, the input's shape
    *[("BatchNorm2d", (shape[1],), shape) for shape in MAPS],
    ("BatchNorm1d", (FLAT[1],), FLAT),
    *[(name, (shape[-1],), shape) for name in ("LayerNorm", "RMSNorm") for shape in (TEXT, FLAT)],
    *[("GroupNorm", (32, shape[1]), shape) for shape in MAPS],
    *[("InstanceNorm2d", (shape[1],), shape) for shape in MAPS],
]
GOALS = {  # mode, layer, input: ratio to torch.nn, at most
    **{("training", "BatchNorm2d", shape): 0.85 for shape in MAPS},
    **{("training", *case): goal for case, goal in zip(
        [("BatchNorm1d", FLAT), ("LayerNorm", FLAT), ("RMSNorm", FLAT)], (1.8, 2.5, 0.8), strict=True)},
    **{("evaluation", "BatchNorm2d", shape): 1.1 for shape in MAPS},
    **{("evaluation", *case): goal for case, goal in zip(
        [("BatchNorm1d", FLAT), ("LayerNorm", FLAT), ("RMSNorm", FLAT)], (1.3, 2.2, 1.4), strict=True)},
    **{("channels last", "BatchNorm2d", shape): 1.5 for shape in MAPS},
    **{("beside a busy process", "BatchNorm2d", shape): 1.2 for shape in MAPS},
}  # fmt: skip
GOAL_COMPILED, GOAL_KEPT = 1.05, 1.0
GOALS_NETWORKS = {"training": 1.0, "evaluation": 1.05, "channels last": 1.1}  # medians over the networks
BYTES_MOVED = {"evaluation": 2}  # times the input's; a training step that caches nothing: 3 forward and 5 backward


def training_step(layer: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """Forward and backward of a layer: gradients of the input and the parameters."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    wanted, dy = (x, *layer.parameters()), torch.randn_like(x)

    def step() -> None:
        torch.autograd.grad(layer(x), wanted, dy)

    return step


def evaluation_step(model: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    def step() -> None:
        with torch.no_grad():
            model(x)

    model.eval()
    return step


def network_step(network: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """Forward, loss, backward and an update of a whole network."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()

    return step


def peer(name: str, arguments: tuple) -> nn.Module | None:
    """labml-nn's layer, where there is one. It flattens space itself; its LayerNorm takes the shape as a list."""
    try:
        from labml_nn.normalization import batch_norm, group_norm, instance_norm, layer_norm
    except ImportError:
        return None
    return {
        "BatchNorm1d": lambda: batch_norm.BatchNorm(*arguments),
        "BatchNorm2d": lambda: batch_norm.BatchNorm(*arguments),
        "InstanceNorm2d": lambda: instance_norm.InstanceNorm(*arguments, affine=False),
        "LayerNorm": lambda: layer_norm.LayerNorm([*arguments]),
        "GroupNorm": lambda: group_norm.GroupNorm(*arguments),
    }.get(name, lambda: None)()


def install_peers() -> None:
    """Into a folder of their own: nothing but this benchmark sees them."""
    if not PEERS.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(PEERS)]
        if subprocess.run([*command, "-r", str(HERE / "requirements.txt")]).returncode:
            print("the peers could not be installed: measuring without them")


def measure(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, dict]:
    """Of each step: median and longest milliseconds, page faults, and its ratios to the first step in a round."""

    def once(step: Callable[[], None], calls: int = 1) -> tuple[float, float]:
        synchronize()
        faults, start = page_faults(), time.perf_counter()
        for _ in range(calls):
            step()
        synchronize()
        seconds = time.perf_counter() - start
        return 1000 * seconds / calls, (page_faults() - faults) / calls

    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    calls, found = {}, {name: [] for name in steps}
    for name, step in steps.items():
        once(step)  # warm up; compile
        calls[name] = max(1, round(ROUND_SECONDS / (once(step)[0] / 1000)))
    for _ in range(rounds):
        for name in random.sample(list(steps), len(steps)):
            found[name].append(once(steps[name], calls[name]))
    base = [milliseconds for milliseconds, _ in next(iter(found.values()))]
    summary = {}
    for name, values in found.items():
        times, faults = zip(*values, strict=True)
        low, middle, high = quantiles([value / other for value, other in zip(times, base, strict=True)], n=4)
        summary[name] = {"ms": median(times), "longest": max(times), "faults": median(faults)}
        summary[name] |= {"ratio": middle, "low": low, "high": high}
    return summary


def beside_busy(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, dict]:
    """The same while another process computes without a pause."""
    neighbour = multiprocessing.get_context("spawn").Process(target=spin, daemon=True)
    neighbour.start()
    try:
        return measure(steps, rounds)
    finally:
        neighbour.kill()


def spin() -> None:
    while True:
        pass


def rows_of_layer(name, arguments, shape, options, device, dtype="float32", channels_last=False) -> list[dict]:
    x = torch.randn(shape, device=device, dtype=getattr(torch, dtype))
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    bandwidth = copy_bandwidth(device)

    def build(module):
        return getattr(module, name)(*arguments).to(device)

    def row(mode: str, variants: dict[str, dict]) -> dict:
        for variant in variants.values():
            seconds = variant["ms"] / 1000
            variant["bandwidth"] = BYTES_MOVED.get(mode, 8) * x.nbytes / seconds / bandwidth
        return {"mode": mode, "what": name, "shape": shape, "dtype": dtype, "variants": variants}

    def pair(step: Callable) -> dict[str, Callable[[], None]]:
        return {"torch.nn": step(build(nn), x), "ours": step(build(bncourse), x)}

    steps = pair(training_step)
    if channels_last:
        return [row("channels last", measure(steps, options.rounds))]
    other = peer(name, arguments) if options.peers else None
    others = {"labml-nn": training_step(other.to(device), x)} if other else {}
    rows = [row("training", measure(steps | others, options.rounds))]
    leaf = x.detach().requires_grad_()
    ours, theirs = (saved_bytes(partial(build(module), leaf)) for module in (bncourse, nn))
    rows[0]["kept"] = ours / theirs
    rows.append(row("evaluation", measure(pair(evaluation_step), options.rounds)))
    if name == "BatchNorm2d":
        rows.append(row("beside a busy process", beside_busy(steps, options.rounds)))
    if options.compile and (shape in (MAPS[0], FLAT) or name == "RMSNorm"):
        compiled = lambda layer, x: training_step(torch.compile(layer, dynamic=False, fullgraph=True), x)  # noqa: E731
        rows.append(row("compiled", measure(pair(compiled), options.rounds)))
    return rows


def rows_of_network(name: str, options, device) -> list[dict]:
    build, shape = NETWORKS[name]
    x = torch.randn(shape, device=device)
    rounds, rows = max(5, options.rounds // 3), []
    modes = [("training", network_step), ("evaluation", evaluation_step)]
    modes += [("channels last", network_step)] if x.dim() == 4 else []
    for mode, step in modes:
        if mode == "channels last":
            x = x.to(memory_format=torch.channels_last)
            build = lambda module, build=build: build(module).to(memory_format=torch.channels_last)  # noqa: E731
        pair = {"torch.nn": step(build(nn).to(device), x), "ours": step(build(bncourse).to(device), x)}
        variants = measure(pair, rounds)
        rows.append({"mode": mode, "what": f"{name}, whole", "shape": shape, "dtype": "float32", "variants": variants})
    leaf = x.detach().requires_grad_()
    ours, theirs = (saved_bytes(partial(build(module).to(device), leaf)) for module in (bncourse, nn))
    rows[0]["kept"] = ours / theirs
    return rows


def copy_bandwidth(device: torch.device, nbytes: int = 2**27) -> float:
    """Bytes a second that a copy moves, read and written: the best of ten."""
    source = torch.empty(nbytes, dtype=torch.uint8, device=device)
    copies = {"copy": partial(torch.empty_like(source).copy_, source)}
    return 2 * nbytes / (min(measure(copies, 2)["copy"]["ms"] for _ in range(5)) / 1000)


def worker(case: list, options) -> None:
    """Measure one row's case and print its rows as JSON, the last line."""
    sys.path.append(str(PEERS))
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    random.seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, *rest = case
    if kind == "network":
        rows = rows_of_network(*rest, options, device)
    else:
        name, arguments, shape, dtype, channels_last = rest
        rows = rows_of_layer(name, tuple(arguments), tuple(shape), options, device, dtype, channels_last)
    print(json.dumps(rows))


def goal_of(row: dict) -> float | None:
    if row["mode"] == "compiled":
        return GOAL_COMPILED
    return GOALS.get((row["mode"], row["what"], tuple(row["shape"]))) if row["dtype"] == "float32" else None


def cell(value: dict, goal: float | None = None) -> str:
    worthless = " ~" if value["high"] - value["low"] > 0.25 * value["ratio"] else ""
    mark = "" if goal is None else " ✓" if value["ratio"] <= goal else f" (goal {goal})"
    return f"{value['ratio']:.2f} [{value['low']:.2f}, {value['high']:.2f}]{worthless}{mark}"


def tables(result: dict) -> str:
    """The results as Markdown."""
    machine = result["machine"]
    lines = [
        "Time of ours relative to `torch.nn`'s in the same run: median, quartiles in brackets, ~ where a busy machine "
        f"makes them worthless. {machine['device']}, {machine['threads']} threads, torch {machine['torch']}, "
        f"{result['rounds']} rounds; load average {machine['load_before']:.1f} before and {machine['load_after']:.1f} "
        f"after ({machine['cores']} cores). Training is forward and backward; evaluation runs under `no_grad`; "
        "*compiled* is relative to `torch.nn` compiled. *GB/s*: the share of this machine's copying speed at which the "
        "bytes that a step must move pass. *faults*: pages brought in for each step (torch.nn, ours). *kept*: bytes "
        "kept for backward, relative to torch's.",
        "",
        "| | input | torch.nn, ms | ours / torch.nn | GB/s: torch.nn, ours | faults: both | kept | labml-nn |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(result["rows"], key=lambda row: list(MODES).index(row["mode"])):
        theirs, ours = row["variants"]["torch.nn"], row["variants"]["ours"]
        share = f"{theirs['bandwidth']:.0%}, {ours['bandwidth']:.0%}" if "bandwidth" in ours else ""
        kept = f"{row['kept']:.2f}" if "kept" in row else ""
        other = cell(row["variants"]["labml-nn"]) if "labml-nn" in row["variants"] else ""
        extra = "" if row["dtype"] == "float32" else f", {row['dtype']}"
        longest = ""
        if row["mode"] == "beside a busy process":
            longest = (
                f"; longest {ours['longest'] / ours['ms']:.0f} medians, torch's {theirs['longest'] / theirs['ms']:.0f}"
            )
        lines.append(
            f"| {row['what']}{extra}, {row['mode']} | {tuple(row['shape'])} | {theirs['ms']:.3g} | "
            f"{cell(ours, goal_of(row))}{longest} | {share} | {theirs['faults']:.0f}, {ours['faults']:.0f} | {kept} | "
            f"{other} |"
        )
    lines.append("")
    for mode, goal in GOALS_NETWORKS.items():
        ratios = [
            row["variants"]["ours"]["ratio"] for row in result["rows"] if "whole" in row["what"] and row["mode"] == mode
        ]
        if ratios:
            mark = "✓" if median(ratios) <= goal else f"(goal {goal})"
            lines.append(f"{len(ratios)} whole networks, {mode}: median {median(ratios):.2f} {mark}  ")
    if not machine["cuda"]:
        lines += ["", "Not measured on a GPU."]
    return "\n".join(lines) + "\n"


MODES = ("training", "evaluation", "channels last", "compiled", "beside a busy process")


def write_readme(text: str, readme: Path = HERE.parent / "README.md") -> None:
    """Put the table between the README's marks, if it has them."""
    start, end = "<!-- bench -->", "<!-- /bench -->"
    content = readme.read_text()
    if start in content and end in content:
        before, rest = content.split(start, 1)
        readme.write_text(f"{before}{start}\n{text}{end}{rest.split(end, 1)[1]}")


def cases(cuda: bool) -> list[list]:
    layouts = [("float32", True)] + ([("bfloat16", False), ("bfloat16", True)] if cuda else [])
    found = [["layer", *layer, "float32", False] for layer in LAYERS]
    found += [
        ["layer", *layer, *layout] for layout in layouts for layer in LAYERS if len(layer[2]) == 4 or not layout[1]
    ]
    return found + [["network", name] for name in NETWORKS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count()))
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing compiled, nothing written")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument("--only", default="", help="cases whose name or shape contains this")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.compile, options.peers = 7, False, False
    if options.case:
        return worker(json.loads(options.case), options)
    if options.peers:
        install_peers()
    cuda = torch.cuda.is_available()
    machine = {
        "device": torch.cuda.get_device_name() if cuda else processor(),
        "cuda": cuda,
        "threads": options.threads,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "load_before": os.getloadavg()[0],
    }
    rows = []
    for case in cases(cuda):
        if options.only not in str(case):
            continue
        command = [sys.executable, __file__, *sys.argv[1:], "--case", json.dumps(case)]
        rows += json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        for row in rows[-5:]:
            if row["what"].startswith(case[1]) and "said" not in row:
                row["said"] = True
                print(f"{row['what']}, {row['mode']} {row['shape']}: {cell(row['variants']['ours'])}", flush=True)
    machine["load_after"] = os.getloadavg()[0]
    result = {"machine": machine, "rounds": options.rounds, "rows": rows}
    text = tables(result)
    print("\n" + text)
    if not options.quick and not options.only:
        (HERE / "results.json").write_text(json.dumps(result, indent=1) + "\n")
        (HERE / "results.md").write_text(text)
        write_readme(text)


def processor() -> str:
    """The processor's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
