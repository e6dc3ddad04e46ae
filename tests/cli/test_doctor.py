"""Each check of the doctor on a sound installation, and on one that is ill in just that way."""

import importlib
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from accelerate.commands.config import config_args
from huggingface_hub import constants

from hf_transfer import collision
from hf_transfer.cli import doctor
from hf_transfer.cli.doctor import Finding, format_findings, main, run_doctor
from tests.marks import slow


def only(name: str) -> Finding:
    (finding,) = run_doctor([name])
    return finding


def test_here_it_finds_nothing_to_mend(hub, capsys) -> None:
    assert main() == 0
    report = capsys.readouterr().out
    assert f"[ ok ] hub: {hub.endpoint} answers" in report
    assert "[ ok ] token: of tester, role write" in report
    assert f"torch {torch.__version__}" in report
    assert hub.token not in report, "a token is never printed"


def test_an_unknown_check_is_refused() -> None:
    with pytest.raises(ValueError, match="There is no check 'gpu'; there are python, collision"):
        run_doctor(["gpu"])


def test_a_check_that_fails_is_a_finding(monkeypatch) -> None:
    def fail() -> list[Finding]:
        raise RuntimeError("no such driver")

    monkeypatch.setitem(doctor.CHECKS, "devices", fail)
    assert only("devices") == Finding("error", "devices", "could not be checked (RuntimeError: no such driver)")
    assert main(["devices"]) == 1


def test_the_report_counts() -> None:
    findings = [
        Finding("ok", "a", "fine"),
        Finding("warning", "b", "read", "this"),
        Finding("error", "c", "bad", "do"),
    ]
    assert format_findings(findings).splitlines() == [
        "[ ok ] a: fine",
        "[warn] b: read",
        "       -> this",
        "[FAIL] c: bad",
        "       -> do",
        "1 to mend, 1 to read, 1 fine.",
    ]


def test_python(monkeypatch) -> None:
    assert only("python").level == "ok"
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    assert (only("python").level, only("python").fix) == ("error", "Install Python 3.11 or newer.")


def test_packages_below_their_lower_bounds(monkeypatch) -> None:
    wanted = ["torch>=99", "surely-not-installed>=1", "pytest>=99; extra == 'test'", "numpy>=1"]
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    old, absent, fine = run_doctor(["packages"])
    assert (old.level, old.message) == ("error", f"{torch.__version__} is installed, >=99 is needed")
    assert old.fix == 'pip install "torch>=99"'
    assert (absent.level, absent.message) == ("error", "nothing is installed, >=1 is needed")
    assert (fine.level, "numpy" in fine.message, "pytest" in fine.message) == ("ok", True, False)


def test_a_package_that_cannot_be_imported(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: ["numpy>=1"])
    monkeypatch.setitem(doctor.MODULES, "numpy", "broken_numbers")
    (tmp_path / "broken_numbers.py").write_text("raise OSError('libnumbers.so: cannot open')")
    monkeypatch.syspath_prepend(str(tmp_path))
    broken, _ = run_doctor(["packages"])
    assert broken.level == "error" and "cannot be imported (OSError: libnumbers.so: cannot open)" in broken.message
    assert broken.fix == 'pip install --force-reinstall "numpy>=1"'


@pytest.mark.parametrize(
    ("kind", "typer"),
    [
        slow("ImportError", ""),
        ("RuntimeError", ""),
        ("RuntimeError", "raise RuntimeError('typer is broken')"),
    ],
    ids=["import error", "any error", "without typer"],
)
def test_it_runs_where_everything_else_is_broken(tmp_path, kind, typer) -> None:
    """A process of its own in which every heavy dependency fails to import."""
    names = ["torch", "transformers", "peft", "datasets", "accelerate", "huggingface_hub", "numpy"]
    for name in names:
        (tmp_path / f"{name}.py").write_text(f"raise {kind}('{name} is broken')")
    if typer:
        (tmp_path / "typer.py").write_text(typer)
    path = os.pathsep.join([str(tmp_path), str(Path(doctor.__file__).parents[2])])

    def call(*words: str) -> subprocess.CompletedProcess:
        environment = os.environ | {"PYTHONPATH": path}
        program = [sys.executable, "-m", "hf_transfer.cli", *words]
        return subprocess.run(program, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120)

    found = call("doctor")
    assert found.returncode == 1 and found.stderr == "", found.stderr
    assert "[ ok ] python" in found.stdout and f"could not be checked ({kind}: torch is broken)" in found.stdout
    assert f"cannot be imported ({kind}: transformers is broken)" in found.stdout
    assert call("doctor", "python").returncode == 0
    for words in [("adapt", "--model", "vit"), ("rank", "vit", "--dataset", "digits")]:
        refused = call(*words)
        (line,) = refused.stderr.splitlines()
        assert refused.returncode == 2 and line.endswith(". `hf-transfer doctor` says what to mend.")
        assert kind == "ImportError" or "cannot be imported (RuntimeError: " in line
    if not typer:
        assert "evaluate" in call("--help").stdout


def test_a_broken_package(monkeypatch) -> None:
    monkeypatch.setattr(collision, "_our_init_ran", False)
    assert (only("collision").level, only("collision").fix) == ("error", collision.FIX)


def test_the_cache(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert only("cache").level == "ok"
    monkeypatch.setattr(doctor, "FEW_GIGABYTES", 10**9)
    assert only("cache").level == "warning"
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    assert (only("cache").level, only("cache").fix) == ("error", "Set HF_HOME to a folder you may write.")


class TestHub:
    def test_offline(self, monkeypatch) -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        hub, token = run_doctor(["hub"])
        assert (hub.level, token.level) == ("warning", "warning")
        assert "offline mode is on" in hub.message
        assert "no token" in token.message

    def test_no_answer(self, hub, monkeypatch) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        finding, token = run_doctor(["hub"])
        assert finding.level == "warning"
        assert finding.message.startswith("http://127.0.0.1:9 does not answer (ConnectError")
        assert token == Finding("ok", "token", "a token is set")

    def test_trouble(self, hub) -> None:
        hub.fail(503)
        assert "does not answer (HTTPStatusError" in run_doctor(["hub"])[0].message

    def test_no_token(self, hub, monkeypatch) -> None:
        monkeypatch.delenv("HF_TOKEN")
        finding, token = run_doctor(["hub"])
        assert (finding.level, token.level) == ("ok", "warning")
        assert "hf auth login" in token.fix

    def test_a_wrong_token(self, hub, monkeypatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        token = run_doctor(["hub"])[1]
        assert (token.level, token.message) == ("error", "the Hub refuses the token (401)")


class TestAccelerate:
    @pytest.fixture
    def configured(self, monkeypatch, tmp_path: Path):
        def write(**values) -> Finding:
            path = tmp_path / "default_config.yaml"
            defaults = {
                "compute_environment": "LOCAL_MACHINE",
                "mixed_precision": "no",
                "use_cpu": True,
                "debug": False,
            }
            path.write_text("".join(f"{name}: {value}\n" for name, value in (defaults | values).items()))
            monkeypatch.setattr(config_args, "default_config_file", str(path))
            return only("accelerate")

        return write

    def test_none(self, monkeypatch, tmp_path: Path) -> None:
        monkeypatch.setattr(config_args, "default_config_file", str(tmp_path / "absent.yaml"))
        assert only("accelerate").level == "ok"
        assert doctor.LAUNCH_TWO in only("accelerate").message

    def test_two_cpu_processes_that_are_one(self, configured) -> None:
        for kind in ("MULTI_CPU", "'NO'"):
            finding = configured(distributed_type=kind, num_processes=2)
            assert finding.level == "warning", finding
            assert "ONE process" in finding.message
            assert finding.fix == doctor.LAUNCH_TWO

    def test_what_starts_as_many_as_it_says(self, configured) -> None:
        assert configured(distributed_type="MULTI_GPU", num_processes=2).level == "ok"
        assert configured(distributed_type="'NO'", num_processes=1).level == "ok"


def test_an_error_of_a_module_that_is_imported_is_told_from_any_other(monkeypatch, tmp_path) -> None:
    (tmp_path / "broken_numbers.py").write_text("raise RuntimeError('two copies of\\nOpenMP')")
    monkeypatch.syspath_prepend(str(tmp_path))

    def caught(call) -> str | None:
        with pytest.raises(Exception) as info:
            call()
        return doctor.failed_import(info.value)

    def through_another() -> None:
        try:
            importlib.import_module("broken_numbers")
        except RuntimeError as error:
            raise RuntimeError("a lazy import failed") from error

    said = "broken_numbers cannot be imported (RuntimeError: two copies of OpenMP)"
    assert caught(lambda: importlib.import_module("broken_numbers")) == caught(through_another) == said
    assert caught(lambda: importlib.import_module("no_numbers")) == "No module named 'no_numbers'"
    assert caught(lambda: int("a")) is None
