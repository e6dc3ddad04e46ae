"""The comparison with other libraries: gaps are those of the tensors, and a library that cannot be had has a row."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def peers(among_the_benchmarks):
    return importlib.import_module("peers")


def found(value: float, gradient: list[float], ms: float, name: str = "first") -> dict:
    return {"MCC": {"value": value, "gradients": {name: torch.tensor(gradient)}, "ms": ms}}


def test_gaps_and_times(peers, monkeypatch):
    made = {"hf_transfer": found(2.0, [1.0, -4.0], 1.0), "lightly": found(1.5, [1.0, -3.0], 3.0)}
    monkeypatch.setattr(peers, "environment_of", lambda library, folder: "python")
    monkeypatch.setattr(peers, "measured", lambda library, python: made[library])
    (row,) = peers.compare("lightly", Path("unused"), rounds=2)
    assert row["value_gap"] == 0.25 and row["gradient_gap"] == 0.25  # 0.5 of 2, 1 of 4
    assert (row["ms"], row["their_ms"], row["ratio"]) == (1.0, 3.0, 3.0)
    made["lightly"] = found(1.5, [1.0, -3.0], 3.0, name="second")
    with pytest.raises(RuntimeError, match="gradients of"):
        peers.compare("lightly", Path("unused"), rounds=1)


def test_a_library_that_cannot_be_installed_has_a_row(peers, monkeypatch, tmp_path):
    monkeypatch.setattr(peers.venv, "create", lambda folder, with_pip: folder.mkdir(parents=True))
    monkeypatch.setattr(sys, "argv", ["peers.py", "--runs_dir", str(tmp_path / "runs"), "--output_dir", str(tmp_path)])
    (tmp_path / "peers.json").write_text('{"rows": [{"library": "kept==1", "error": "was not there"}]}')
    peers.main()  # the environments have no interpreter
    rows = [line for line in (tmp_path / "peers.md").read_text().splitlines() if "not measured" in line]
    assert [row.split("|")[1].strip().split("==")[0] for row in rows] == [
        "kept",
        "pytorch-adapt",
        "lightly",
        "learn2learn",
    ]


def test_every_loss_here_has_a_value_and_gradients(peers):
    losses = importlib.import_module("peers_losses")
    own = losses.LIBRARIES["hf_transfer"]()
    given = losses.inputs(torch.float64)
    own["BSP"](given).backward()
    source = given["source"].detach()
    largest = torch.linalg.eigvalsh(source @ source.T)[-1]
    direction = torch.linalg.svd(source)[2][0]
    torch.testing.assert_close(given["source"].grad, 2 * torch.outer(source @ direction, direction))
    assert largest < own["BSP"](given) < 3 * largest
    for name, loss in own.items():
        made = losses.measure(loss)
        assert torch.isfinite(torch.tensor(made["value"])) and made["gradients"] and made["ms"] > 0, name


def test_trainings_that_fail_have_a_row_and_finished_ones_are_kept(peers, monkeypatch, tmp_path):
    benchmark = importlib.import_module("peers_training")
    called = []

    def run(command, environment):
        called.append(command[2:4])
        if command[2] == "skada":
            raise RuntimeError("no such package")
        Path(command[-1]).write_text('{"accuracy": 80.0, "seconds": 9.0, "memory": 30.0, "lines": 9}')

    monkeypatch.setattr(peers, "checked", run)
    monkeypatch.setattr(peers, "environment_of", lambda library, folder: "python")
    monkeypatch.setattr(benchmark, "data_folder", lambda rows, name, folder: str(folder / "data" / name))
    words = ["--runs_dir", str(tmp_path), "--output_dir", str(tmp_path), "--methods", "dann", "--seeds", "0", "1"]
    monkeypatch.setattr(sys, "argv", ["peers_training.py", *words, "--only", "hf_transfer", "skada"])
    with pytest.raises(SystemExit, match="2 trainings failed"):
        benchmark.main()
    page = (tmp_path / "peers_training.md").read_text()
    assert "| dann | hf_transfer | 2 | 80.0 ± 0.0 | 9.0 ± 0.0 | 30.0 ± 0.0 | 9 |" in page
    assert "| dann | skada==0.6.0 | | not measured: no such package | | | |" in page
    with pytest.raises(SystemExit):
        benchmark.main()
    assert called == [["hf_transfer", "dann"], ["skada", "dann"]] * 2 + [["skada", "dann"]] * 2


def test_a_training_here_is_that_of_the_worker(peers, monkeypatch, tmp_path):
    """The function whose lines are counted, on few rows."""
    worker = importlib.import_module("peers_training_worker")
    monkeypatch.setattr(worker, "EPOCHS", 1)
    benchmark = importlib.import_module("peers_training")
    for name in ("source", "target", "test"):
        benchmark.some_rows("optical_digits", 0, 256).save_to_disk(tmp_path / "rows" / name)
    monkeypatch.setattr(
        sys, "argv", ["worker", "hf_transfer", "dann", "0", str(tmp_path / "rows"), str(tmp_path / "f")]
    )
    worker.main()
    found = json.loads((tmp_path / "f").read_text())
    assert found["lines"] == 10 and 0 <= found["accuracy"] <= 100 and found["seconds"] > 0 <= found["memory"]
