"""What `doctor` says of this machine, and completion for shells."""

import importlib.util
import json
import shutil
import subprocess

import pytest

from jaxcrnn.cli.main import COMMANDS, main


@pytest.mark.slow
def test_doctor_reports_packages_devices_and_fonts(capsys, monkeypatch):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert all(report["packages"].values())
    assert len(report["devices"]) == 8
    assert len(report["typefaces"]) == 3
    assert report["engine"] == ("onnx" if importlib.util.find_spec("onnxruntime") else "jax")
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lmdb" else real(name))
    assert main(["doctor"]) == 0
    assert "lmdb        not installed: pip install 'jaxcrnn[data]' (LMDB data sets)" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_script_lists_every_command(shell, capsys):
    pytest.importorskip("shtab", reason="the extra 'shell' is not installed")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    if shell == "bash" and shutil.which("bash"):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
