from pathlib import Path

import pytest

from hf_transfer.runs.arguments import argument_help, parse_arguments, read_overrides, read_yaml

CONFIG = """
dataset: optical_digits
model: some/model
save_strategy: no
learning_rate: 1e-3
objectives: {mcc: {temperature: 3}}
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(f"{CONFIG}output_dir: {tmp_path / 'out'}\n")
    return str(path)


def test_a_file_and_overrides(config):
    model, data, run, training = parse_arguments(
        [config, "--model", "other", "--test-rows=20", "--resume", "--seed", "3", "--objectives", "{bss: {}}"]
    )
    assert (model.model, data.dataset, data.test_rows) == ("other", "optical_digits", 20)
    assert run.resume is True and run.overwrite is False
    assert (training.seed, training.learning_rate, training.save_strategy) == (3, 1e-3, "no")
    assert training.objectives == {"bss": {}}


def test_without_a_file():
    model, data, _, training = parse_arguments(["--model", "m", "--dataset", "d", "--learning_rate", "2e-4"])
    assert (model.model, data.dataset, training.learning_rate) == ("m", "d", 2e-4)


def test_fixed_values_win_over_both(config):
    model, *_ = parse_arguments([config, "--model", "other"], model="best", architecture=None)
    assert model.model == "best"


def test_flags_values_and_equal_signs():
    overrides = read_overrides(["--use_cpu", "--a-b", "1", "--c=x=y", "--d", "-1", "--e", ""])
    assert overrides == {"use_cpu": True, "a_b": 1, "c": "x=y", "d": -1, "e": None}


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--model", "m", "--dataset", "d", "--typo", "1"], r"unknown arguments \['typo'\].*--explain"),
        (["--model", "m"], "`dataset` is missing: a bundled name"),
        (["--dataset", "d"], "give either `model` .* or `architecture`"),
        (["--dataset", "d", "--model", "m", "--architecture", "{model_type: vit}"], "give either `model`"),
        (
            ["--dataset", "d", "--peft", "{peft_type: LORA}", "--architecture", "{model_type: vit}"],
            "`peft` saves an adapter alone",
        ),
        (["--dataset", "d", "--model", "m", "--resume", "--overwrite"], "`resume` keeps .* give one of them"),
        (["--dataset", "d", "--model", "m", "--max_steps", "ten"], "`max_steps` should be a whole number, got 'ten'"),
        (["--dataset", "d", "--model", "m", "--architecture", "vit"], "`architecture` should be a mapping"),
        (["--dataset", "d", "--model", "m", "--objectives", "{a"], "`objectives` cannot be read as YAML"),
        (["--dataset", "d", "--model", "m", "--objectives", "dann"], "`objectives` should map names to keywords"),
        (["--dataset", "d", "--model", "m", "--objective_warmup", "2"], r"`objective_warmup` should be in \[0, 1\]"),
        (["--dataset", "d", "--model", "m", "--batch_eval_metrics"], "`batch_eval_metrics` is not read here: metrics"),
        (
            ["--dataset", "d", "--model", "m", "--eval_do_concat_batches", "false"],
            "`eval_do_concat_batches` is not re",
        ),
        (["--dataset", "d", "--model", "m", "--resume_from_checkpoint", "x"], r"`resume: true` \(--resume\) goes on"),
        (["--dataset", "d", "--model", "m", "--do_predict"], "`do_predict` is not read here: `hf-transfer predict`"),
        (["--dataset", "d", "config.yaml"], "expected `--key value`, got `config.yaml`"),
    ],
)
def test_mistakes_are_named(argv, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments(argv)


def test_a_missing_file():
    with pytest.raises(FileNotFoundError, match=r"there is no file `none\.yaml`"):
        parse_arguments(["none.yaml"])


def test_a_file_that_is_no_mapping(tmp_path):
    (tmp_path / "list.yaml").write_text("- dataset\n")
    with pytest.raises(ValueError, match="should hold a mapping `key: value`, got a list"):
        read_yaml(tmp_path / "list.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert read_yaml(tmp_path / "empty.yaml") == {}


def test_a_file_in_another_encoding_is_named(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("dataset: bücher.csv".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.yaml` is no text in UTF-8"):
        read_yaml(tmp_path / "latin.yaml")
    (tmp_path / "windows.yaml").write_bytes("\ufeffdataset: bücher.csv\r\nseed: 3\r\n".encode())
    assert read_yaml(tmp_path / "windows.yaml") == {"dataset": "bücher.csv", "seed": 3}


def test_names_that_are_numbers_are_names_on_the_command_line():
    words = [
        "--model",
        "any",
        "--dataset",
        "2026",
        "--output_dir=1.50",
        "--text_column",
        "0",
        "--seed",
        "7",
        "--label_column",
        "1e3",
    ]
    read = parse_arguments(words)
    assert (read.data.dataset, read.config.output_dir, read.data.text_columns) == ("2026", "1.50", ["0"])
    assert (read.config.seed, read.data.label_column) == (7, "1e3")
    assert read_overrides(["--data.train", "12", "--budget.seeds", "2"]) == {"data.train": "12", "budget.seeds": 2}


def test_a_file_has_the_values_of_its_base_where_it_has_none(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "all.yaml").write_text("seed: 1\nmax_steps: 5\n")
    (tmp_path / "below/pair.yaml").write_text("base: ../all.yaml\nmax_steps: 7\nobjectives: {mcc: {}, dann: {}}\n")
    (tmp_path / "method.yaml").write_text("base: below/pair.yaml\nobjectives: {cdan: {}}\n")
    assert read_yaml(tmp_path / "method.yaml") == {"seed": 1, "max_steps": 7, "objectives": {"cdan": {}}}


def test_a_base_that_cannot_be_read(tmp_path):
    (tmp_path / "one.yaml").write_text("base: other.yaml\n")
    with pytest.raises(FileNotFoundError, match=r"there is no file `.*other\.yaml`, the `base` of `.*one\.yaml`"):
        read_yaml(tmp_path / "one.yaml")
    (tmp_path / "other.yaml").write_text("base: one.yaml\n")
    with pytest.raises(ValueError, match=r"is its own `base`: .*one\.yaml -> .*other\.yaml -> .*one\.yaml"):
        read_yaml(tmp_path / "one.yaml")
    (tmp_path / "one.yaml").write_text("base: [other.yaml]\n")
    with pytest.raises(ValueError, match="should be the path of a YAML file"):
        read_yaml(tmp_path / "one.yaml")


def test_the_help_names_every_argument_of_our_own():
    rows = {name: (default, meaning) for name, default, meaning in argument_help()}
    assert {"model", "dataset", "target_dataset", "resume", "objectives", "objective_warmup", "validator"} <= set(rows)
    assert "learning_rate" not in rows
    assert all(meaning for _, meaning in rows.values())
    assert rows["task"][0] == "" and rows["dataset"][0] == ""
