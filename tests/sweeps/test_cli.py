"""The command line as a person meets it: help with examples, plain errors, and a check that is quick."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from sweeps.cli import main
from sweeps.spec import CONFIGS
from tests.sweeps.sweep_files import text_of

ROOT = Path(__file__).parents[2]
HEAVY = ("mlflow", "mmcv", "mmdet", "mmengine", "optuna", "plotly", "ray", "rich", "sklearn", "torch")
ENTRY = "from sweeps.cli import main; main()"
WITH_MODULES = f"""
import json, sys
from sweeps.cli import main
main(standalone_mode=False)
print(json.dumps(sorted(set(sys.modules) & set({HEAVY!r}))))
"""


def sweeps(folder: Path, *arguments: str, code: str = ENTRY) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_T", "PALIMPSEST"))}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_check_loads_nothing_heavy(tmp_path: Path) -> None:
    checked = sweeps(tmp_path, "check", str(CONFIGS / "erd_digits.yaml"), code=WITH_MODULES)
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout.splitlines()[-1]) == []


def test_check_says_what_will_be_searched_and_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text_of(trials=7))
    checked = sweeps(tmp_path, "check", "mine.yaml")
    assert (checked.returncode, checked.stderr) == (0, "")
    lines = checked.stdout.splitlines()
    assert lines[0] == "mine.yaml: good. 7 trials of erd on digits/5+5, gfl_r18_tiny"
    assert lines[1] == "  erd/alpha_cls from 1 .. 3 step 0.25, first: 2.0"
    assert [line.split()[0] for line in lines[1:]] == ["erd/alpha_cls", "erd/lambda_cls", "optim/lr_scale"]
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_in_the_home_folder_may_be_named_by_a_quoted_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text(text_of())
    monkeypatch.setenv("HOME", str(tmp_path))
    checked = CliRunner().invoke(main, ["check", "~/mine.yaml"])
    assert checked.output.startswith("mine.yaml: good. ")


@pytest.mark.parametrize("verb", ["check", "data", "debug", "run"])
def test_a_file_with_mistakes_is_refused_in_plain_lines(tmp_path: Path, verb: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text_of(trials=0, objective="ap"))
    refused = sweeps(tmp_path, verb, "mine.yaml")
    assert (refused.returncode, refused.stdout) == (1, "")
    title, *lines = refused.stderr.splitlines()
    assert title == "mine.yaml: 2 errors"
    assert [line.split(":")[0] for line in lines] == ["  trials", "  objective"]
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "absent.yaml"), "absent.yaml: cannot be read (No such file or directory); shipped sweep files, in "),
        (("run", "absent.yaml"), "absent.yaml: cannot be read (No such file or directory); shipped sweep files, in "),
        (("check", "."), ".: cannot be read (Is a directory); shipped sweep files, in "),
        (("show", "absent"), "tracking: there is no database "),
        (("show", "absent", "--tracking-uri", "mlruns"), "tracking: must be a database or a server ("),
        pytest.param(("promote", "absent"), "absent: there is no such sweep in ", marks=pytest.mark.smoke),
    ],
)
def test_what_is_not_there_is_told_in_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    refused = sweeps(tmp_path, *arguments)
    assert (refused.returncode, refused.stdout) == (1, "")
    (line,) = refused.stderr.splitlines()
    assert line.startswith(message)
    if "shipped" in message:
        assert line.endswith(", ".join(sorted(path.name for path in CONFIGS.glob("*.yaml"))))
    assert list(tmp_path.iterdir()) == []


def test_options_that_would_do_nothing_are_refused(tmp_path: Path) -> None:
    population, checkpoint = tmp_path / "population.yaml", tmp_path / "weights.pth"
    population.write_text(text_of(scheduler={"name": "pbt"}))
    checkpoint.touch()
    refused = {
        ("run", str(population), "--max-concurrent", "2"): "pbt takes turns with as many trials as the cluster holds",
        ("export", str(checkpoint), "out", "--data", str(population)): "--format torch takes no --data",
        ("export", str(checkpoint), "out", "--format", "onnx"): "--format onnx needs --data",
    }
    for arguments, why in refused.items():
        answer = CliRunner().invoke(main, arguments)
        assert answer.exit_code == 2
        assert why in answer.output


def test_ctrl_c_leaves_a_line_that_says_how_to_go_on(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.yaml")
    # A shell that starts a command with `&` has it ignore Ctrl-C.
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {ENTRY}"
    command = [sys.executable, "-c", code, "check", str(tmp_path / "mine.yaml")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with (tmp_path / "mine.yaml").open("w"):  # once the command reads it
        process.send_signal(signal.SIGINT)
        printed = process.communicate()
    assert (process.returncode, *printed) == (1, "", "interrupted; the same command begins again\n")


@pytest.mark.parametrize("verb", main.commands)
def test_every_verb_explains_itself_with_an_example(verb: str) -> None:
    shown = CliRunner().invoke(main, [verb, "--help"])
    assert shown.exit_code == 0
    assert f"Example: sweeps {verb}" in shown.output
    assert main.commands[verb].help


def test_the_whole_lists_its_verbs() -> None:
    shown = CliRunner().invoke(main, ["--help"])
    assert {"demo", "check", "run", "show", "promote", "ui"} <= set(main.commands)
    assert all(f"\n  {verb} " in shown.output for verb in main.commands)
