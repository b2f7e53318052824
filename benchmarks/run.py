"""How fast are the layers? Measure a training step of each against torch.nn's in the same run; write the tables.

    python benchmarks/run.py [--quick] [--threads 2] [--no-compile] [--no-peers] [--only NAME]

Every round runs each variant once, one after the other, so that a disturbance of the machine hits all of them; a
ratio is taken within its round. Reported are medians, and quartiles of the ratios. Writes benchmarks/results.json,
benchmarks/results.md, and the table of the README between its marks.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import torch
from torch import nn

import bncourse
from bncourse.models import CNNWithBatchNorm
from bncourse.studies.fast_layers import milliseconds, saved_bytes

HERE = Path(__file__).parent
PEERS = HERE / ".peers"
ROUND_SECONDS = 0.02  # a variant runs at least so long in a round
MAPS = [(64, 64, 32, 32), (8, 256, 56, 56)]
FLAT, TEXT = (256, 512), (8, 512, 768)
CASES = [  # the layer's name, its arguments, the input's shape
    *[("BatchNorm2d", (shape[1],), shape) for shape in MAPS],
    ("BatchNorm1d", (FLAT[1],), FLAT),
    *[(name, (shape[-1],), shape) for name in ("LayerNorm", "RMSNorm") for shape in (TEXT, FLAT)],
    *[("GroupNorm", (32, shape[1]), shape) for shape in MAPS],
    *[("InstanceNorm2d", (shape[1],), shape) for shape in MAPS],
]
TARGETS = {  # layer, input: ratio to torch.nn's eager layer, at most: (eager, compiled)
    **{("BatchNorm2d", shape): (1.0, 0.65) for shape in MAPS},
    ("BatchNorm1d", FLAT): (1.5, 1.8),
    **{("InstanceNorm2d", shape): (1.0, None) for shape in MAPS},
    **{("RMSNorm", shape): (0.4, None) for shape in (TEXT, FLAT)},
    **{("GroupNorm", shape): (2.2, 1.7) for shape in MAPS},
    **{("LayerNorm", shape): (3.8, 1.8) for shape in (TEXT, FLAT)},
    ("CNNWithBatchNorm, whole step", (64, 3, 32, 32)): (1.0, None),
}


def training_step(layer: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """Forward and backward of a layer: gradients of the input and the parameters."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    wanted, dy = (x, *layer.parameters()), torch.randn_like(x)

    def step() -> None:
        torch.autograd.grad(layer(x), wanted, dy)

    return step


def network_step(network: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """Forward, loss, backward and an update of a whole network."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    labels = torch.arange(len(x), device=x.device) % 10

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), labels).backward()
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
    sys.path.append(str(PEERS))


def summarize(times: dict[str, list[float]]) -> dict[str, dict]:
    """Median milliseconds, and the ratios to torch.nn in the same round: median and quartiles."""
    summary = {}
    for name, values in times.items():
        ratios = [value / base for value, base in zip(values, times["torch.nn"], strict=True)]
        low, _, high = quantiles(ratios, n=4)
        summary[name] = {"ms": median(values), "ratio": median(ratios), "low": low, "high": high}
    return summary


def copy_bandwidth(device: torch.device, nbytes: int = 2**28) -> float:
    """Bytes a second that a copy moves, read and written."""
    source = torch.empty(nbytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = milliseconds({"copy": lambda: target.copy_(source)}, 5, ROUND_SECONDS)
    return 2 * nbytes / (median(times["copy"]) / 1000)


def measure_layer(name, arguments, shape, options, device, dtype=torch.float32, channels_last=False) -> dict:
    x = torch.randn(shape, device=device, dtype=dtype)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)

    def build(module):
        return getattr(module, name)(*arguments).to(device)

    variants = {"torch.nn": training_step(build(nn), x), "ours": training_step(build(bncourse), x)}
    if options.compile:
        torch.compiler.reset()
        for key, module in (("ours, compiled", bncourse), ("torch.nn, compiled", nn)):
            variants[key] = training_step(torch.compile(build(module), dynamic=False, fullgraph=True), x)
    other = peer(name, arguments) if options.peers else None
    if other is not None:
        variants["labml-nn"] = training_step(other.to(device), x)
    row = {"layer": name, "shape": shape, "dtype": str(dtype)[6:], "channels_last": channels_last}
    row["variants"] = summarize(milliseconds(variants, options.rounds, ROUND_SECONDS))
    leaf = x.detach().requires_grad_()
    ours, theirs = (saved_bytes(partial(build(module), leaf)) for module in (bncourse, nn))
    row["kept"] = ours / theirs
    if device.type == "cuda":  # 3 x the input's bytes forward, 5 x backward: what a step that caches nothing moves
        row["bandwidth"] = copy_bandwidth(device)
        for value in row["variants"].values():
            value["share"] = 8 * x.nbytes / (value["ms"] / 1000) / row["bandwidth"]
    return row


def measure_network(options, device) -> dict:
    shape = (64, 3, 32, 32)
    x = torch.randn(shape, device=device)
    ours, theirs = CNNWithBatchNorm().to(device), CNNWithBatchNorm(nn).to(device)
    variants = {"torch.nn": network_step(theirs, x), "ours": network_step(ours, x)}
    row = {"layer": "CNNWithBatchNorm, whole step", "shape": shape, "dtype": "float32", "channels_last": False}
    row["variants"] = summarize(milliseconds(variants, options.rounds, ROUND_SECONDS))
    leaf = x.detach().requires_grad_()
    row["kept"] = saved_bytes(partial(ours, leaf)) / saved_bytes(partial(theirs, leaf))
    return row


def target_of(row: dict) -> tuple:
    plain = row["dtype"] == "float32" and not row["channels_last"]
    return TARGETS.get((row["layer"], tuple(row["shape"])), (None, None)) if plain else (None, None)


def tables(result: dict) -> str:
    """The results as Markdown."""
    machine = result["machine"]
    lines = [
        f"A training step (forward and backward), time relative to `torch.nn`'s eager layer in the same run: median, "
        f"quartiles in brackets. float32, {machine['device']}, {machine['threads']} threads, torch {machine['torch']}, "
        f"{result['rounds']} rounds, load average {machine['load_before']:.1f} before and {machine['load_after']:.1f} "
        f"after ({machine['cores']} cores). *kept*: bytes kept for backward, relative to torch's.",
        "",
        "| layer | input | torch.nn, ms | ours | ours, compiled | torch.nn, compiled | labml-nn | kept |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        variants, goals = row["variants"], target_of(row)

        def cell(name, goal=None, variants=variants):
            if name not in variants:
                return "–"
            value = variants[name]
            mark = "" if goal is None else " ✓" if value["ratio"] <= goal else f" (goal {goal})"
            share = f", {value['share']:.0%} of bandwidth" if "share" in value else ""
            return f"{value['ratio']:.2f} [{value['low']:.2f}, {value['high']:.2f}]{mark}{share}"

        extra = "" if row["dtype"] == "float32" else f", {row['dtype']}"
        extra += ", channels last" if row["channels_last"] else ""
        lines.append(
            f"| {row['layer']}{extra} | {tuple(row['shape'])} | {variants['torch.nn']['ms']:.3g} | "
            f"{cell('ours', goals[0])} | {cell('ours, compiled', goals[1])} | {cell('torch.nn, compiled')} | "
            f"{cell('labml-nn')} | {row['kept']:.2f} |"
        )
    if not machine["cuda"]:
        lines += ["", "Not measured on a GPU."]
    return "\n".join(lines) + "\n"


def write_readme(text: str, readme: Path = HERE.parent / "README.md") -> None:
    """Put the table between the README's marks, if it has them."""
    start, end = "<!-- bench -->", "<!-- /bench -->"
    content = readme.read_text()
    if start in content and end in content:
        before, rest = content.split(start, 1)
        readme.write_text(f"{before}{start}\n{text}{end}{rest.split(end, 1)[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count()))
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing compiled, nothing written")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument("--only", default="", help="cases whose name or shape contains this")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.compile, options.peers = 7, False, False
    if options.peers:
        install_peers()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine(),
        "cuda": device.type == "cuda",
        "threads": options.threads,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan"),
    }
    layouts = [(torch.float32, False)]
    if device.type == "cuda":
        layouts += [(torch.float32, True), (torch.bfloat16, False), (torch.bfloat16, True)]
    rows = []
    for name, arguments, shape in CASES:
        for dtype, channels_last in layouts:
            if options.only in f"{name} {shape}" and not (channels_last and len(shape) != 4):
                rows.append(measure_layer(name, arguments, shape, options, device, dtype, channels_last))
                ratios = {key: round(value["ratio"], 2) for key, value in rows[-1]["variants"].items()}
                print(name, shape, str(dtype)[6:], "channels last" if channels_last else "", ratios, flush=True)
    if options.only in "CNNWithBatchNorm":
        rows.append(measure_network(options, device))
    machine["load_after"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    result = {"machine": machine, "rounds": options.rounds, "rows": rows}
    text = tables(result)
    print("\n" + text)
    if not options.quick and not options.only:
        (HERE / "results.json").write_text(json.dumps(result, indent=1) + "\n")
        (HERE / "results.md").write_text(text)
        write_readme(text)


if __name__ == "__main__":
    main()
