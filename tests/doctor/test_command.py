"""``bncourse doctor`` from the shell, and the forms of its answer."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from bncourse.cli import main
from bncourse.doctor import RULES, SEVERITIES, Diagnosis, Finding, diagnose
from bncourse.doctor.diagnosis import sorted_and_merged

SHOP = """
import torch
from torch import nn
from bncourse.models import small_cnn

network = small_cnn(channels=1)
number = 3

def healthy():
    return small_cnn(channels=1)

def sick():
    model = small_cnn(channels=1)
    model[0][1].momentum = 0.99
    return model

def breaks():
    raise RuntimeError("no weights here")

def nothing():
    return "a model"

def leaves():
    raise SystemExit("usage: train.py")

def talks():
    print("loading ...")
    return sick()

def empty():
    with torch.device("meta"):
        return small_cnn(channels=1)
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A folder with a module of models, where the shell is."""
    (tmp_path / "shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("shop", None)
    yield tmp_path
    sys.modules.pop("shop", None)


def doctor(*arguments):
    return main(["doctor", *map(str, arguments)])


def test_in_a_process_of_its_own(shop):
    command = [sys.executable, "-m", "bncourse.cli", "doctor", "shop:sick", "--input", "8,1,28,28"]
    done = subprocess.run([*command, "--fail-on", "warning", "--json"], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["examined"] == "2 batch norms"
    assert {"rule", "severity", "module", "measured", "fix", "chapter", "modules"} <= found["findings"][0].keys()
    assert found["findings"][0]["rule"] == "BN-S02" and found["findings"][0]["module"] == "0.1"


def test_exit_codes(shop, capsys):
    assert doctor("shop:sick") == 0
    assert doctor("shop:sick", "--fail-on", "error") == 0
    assert doctor("shop:sick", "--fail-on", "warning") == 1
    assert doctor("shop:sick", "--fail-on", "warning", "--ignore", "BN-S02") == 0
    assert doctor("shop:healthy", "--fail-on", "warning") == 0
    assert doctor("shop:healthy", "--fail-on", "note", "--select", "BN-F,bn-s01") == 0
    assert doctor("shop:network") == 0
    assert "nothing found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a model is needed"),
        (["shop"], "must be package.module:make_model, got 'shop'"),
        (["nowhere:model"], "'nowhere:model' is not found: ModuleNotFoundError"),
        (["shop:absent"], "'shop:absent' is not found: AttributeError"),
        (["shop:breaks"], "shop:breaks() raised RuntimeError: no weights here"),
        (["shop:leaves"], "shop:leaves() raised SystemExit: usage: train.py"),
        (
            ["shop:empty", "--input", "8,1,28,28"],
            "model must have values to run on a batch, got some on the meta device",
        ),
        (["shop:nothing"], "shop:nothing() must return a torch.nn.Module, got str"),
        (["shop:number"], "must be a torch.nn.Module or make one, got int"),
        (["shop:healthy", "--input", "8,x"], "--input must be a shape such as 8,3,32,32, got '8,x'"),
        (["shop:healthy", "--input", "8,3,28,28"], "batch must fit the model"),
        (["shop:healthy", "--input", "8,1,28,28", "--batch", "b.pt"], "cannot be used together"),
        (["shop:healthy", "--batch", "absent.pt"], "--batch must be a file written by torch.save"),
        (["shop:healthy", "--batch", "model.pt"], "got model.pt: torch.load(weights_only=True) refuses it"),
        (
            ["shop:healthy", "--checkpoint", "other.pt"],
            "must be one of this model: lacks 0.0.weight, 0.0.bias, 0.1.weight and 7 more; has also weight, bias",
        ),
        (
            ["shop:healthy", "--checkpoint", "run.pt"],
            "must have a state_dict, got dict with the keys 'epoch', 'model', 'history'",
        ),
        (
            ["shop:healthy", "--batch", "named.pt"],
            "batch must fit the model, which raised TypeError: conv2d() received an invalid combination of arguments",
        ),
        (["shop:healthy", "--batch", "named.pt"], "(batch: a dict with the keys 'image', 'label')"),
        (["shop:healthy", "--input", "8,28,28"], "(batch: a tensor (8, 28, 28))"),
        (["shop:healthy", "--checkpoint", "shapes.pt"], "must be one of this model"),
        (["shop:healthy", "--checkpoint", "number.pt"], "must have a state_dict, got int"),
        (["shop:healthy", "--select", "E501"], "must be ids of rules or begin one, got 'E501'"),
        (["--explain", "BN-X01"], "--explain must be the id of a rule"),
    ],
)
def test_bad_input_is_one_line(shop, capsys, arguments, message):
    torch.save(nn.Linear(2, 2), "model.pt")
    torch.save(nn.Linear(2, 2).state_dict(), "other.pt")
    import shop as module

    torch.save({key: torch.zeros(2, 2) for key in module.healthy().state_dict()}, "shapes.pt")
    torch.save(3, "number.pt")
    torch.save({"epoch": 3, "model": "small_cnn", "history": {"loss": [0.1]}}, "run.pt")
    torch.save({"image": torch.zeros(8, 1, 28, 28), "label": torch.zeros(8)}, "named.pt")
    assert doctor(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("bncourse doctor: ") and err.count("\n") == 1
    assert message in err
    assert doctor(*arguments, "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_what_the_users_code_prints_is_not_part_of_the_answer(shop, capsys):
    assert doctor("shop:talks", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["findings"] and err == "loading ...\n"


def test_a_file_of_batches_and_a_checkpoint(shop, capsys):
    import shop as module

    state = module.healthy().state_dict()
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, "whole.pt")
    torch.save({key: value for key, value in state.items() if "running" not in key}, "bare.pt")
    torch.save({"model": "small_cnn", "ema": state}, "averaged.pt")
    torch.save((torch.rand(16, 1, 28, 28), torch.arange(16) % 10), "batch.pt")
    assert doctor("shop:healthy", "--checkpoint", "averaged.pt", "--fail-on", "error") == 0
    assert doctor("shop:healthy", "--checkpoint", "whole.pt", "--batch", "batch.pt", "--fail-on", "error") == 0
    assert doctor("shop:healthy", "--checkpoint", "bare.pt", "--fail-on", "error") == 1
    assert "BN-S06 in 0.1 and 1 more" in capsys.readouterr().out


def test_random_inputs_are_not_taken_for_data(shop):
    import shop as module

    model = module.healthy()
    for norm in (model[0][1], model[2][1]):
        norm.running_mean.fill_(5.0)  # as real data may have left it
        norm.bias.data.normal_()
    torch.save(model.state_dict(), "trained.pt")
    assert doctor("shop:healthy", "--checkpoint", "trained.pt", "--input", "32,1,28,28", "--fail-on", "warning") == 0


def test_a_rule_explains_itself(capsys):
    assert doctor("--explain", "bn-f01") == 0
    text = capsys.readouterr().out
    assert text.startswith("BN-F01 (error, forward): The running statistics") and "Read: chapter 3." in text


def test_rules_are_complete():
    assert len({rule.id for rule in RULES}) == len(RULES) >= 30
    for rule in RULES:
        assert rule.severity in SEVERITIES and rule.level in ("static", "forward", "watch")
        assert rule.title and len(rule.explanation) > 60 and 1 <= rule.chapter <= 15


def test_the_worst_stands_first_and_lines_are_short():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=0))
    diagnosis = diagnose(model, torch.randn(1, 3))
    ranks = [SEVERITIES.index(finding.severity) for finding in diagnosis.findings]
    assert ranks == sorted(ranks) and diagnosis.worst() == "error"
    lines = str(diagnosis).splitlines()
    assert lines[0] == "1 batch norm: 2 errors, 2 notes" and max(map(len, lines)) <= 72


def test_the_cause_is_kept_beside_the_damage():
    """BN-S06, a checkpoint without statistics, explains BN-F01; BN-F04 says all that BN-S09 says, and measures it.

    BN-S07, a norm that never saw a batch, is a second fault beside BN-F01.
    """
    found = [Finding(id, "error", "", "", "", 3) for id in ("BN-F01", "BN-S06", "BN-F04", "BN-S09", "BN-S07")]
    assert [finding.rule for finding in sorted_and_merged(found)] == ["BN-F01", "BN-S06", "BN-F04", "BN-S07"]


def test_names_stay_in_one_piece():
    name = "student.backbone.layer4.1.conv-block_2.downsample.batch_normalization.bn2"
    found = Finding("BN-S01", "error", name, "measured", f"freeze(model, where='{name}')", 3, (name, "b"))
    lines = str(Diagnosis([found], "1 batch norm")).splitlines()
    assert lines[2:4] == [f"error BN-S01 in {name} and 1 more", "  measured"]
    assert f"     where='{name}')" in lines
