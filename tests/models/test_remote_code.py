"""Folders with our source in them load and run in a process where `hf_transfer` cannot be imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, BertModel, DynamicCache

from hf_transfer.models import flowformer
from hf_transfer.models.flowformer import (
    FlowformerConfig,
    FlowformerForCausalLM,
    FlowformerForMaskedLM,
    FlowformerModel,
)
from hf_transfer.models.registration import AUTO_CLASSES, HEADS_WITHOUT_AUTO_CLASS
from hf_transfer.models.remote_code import add_remote_code, register_remote_code
from tests.models.flowformer.tiny import HEADS, HEADS_AND_MODALITIES, first_output, head_inputs, tiny_config

CLEAN_PROCESS = """
import importlib.abc, sys

class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_transfer":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())

import json, torch, transformers
for case in json.loads(open(sys.argv[1]).read()):
    auto = getattr(transformers, case["auto"])
    model = auto.from_pretrained(case["folder"], trust_remote_code=True).eval()
    assert type(model).__name__ == case["head"], (type(model), case)
    assert model.config._attn_implementation == "flow"
    expected = torch.load(case["folder"] + "/expected.pt")
    print("loaded", case["head"])
    if case["head"] != case["saved"]:
        continue
    with torch.no_grad():
        outputs = model(**expected["inputs"])
        torch.testing.assert_close(outputs[expected["name"]], expected["output"])
        if "generated" in expected:
            for beams, tokens in expected["generated"].items():
                options = {"num_beams": beams, "max_new_tokens": 5, "do_sample": False}
                assert torch.equal(model.generate(expected["inputs"]["input_ids"], **options), tokens)
    if case["saves_again"]:
        model.save_pretrained(case["folder"] + "-again")
        auto.from_pretrained(case["folder"] + "-again", trust_remote_code=True)
assert not [name for name in sys.modules if name.split(".")[0] == "hf_transfer"]
"""


@pytest.fixture
def remote_code():
    """`register_for_auto_class` marks the classes for good: take the marks off again."""
    register_remote_code()
    yield
    for cls in [FlowformerConfig, *AUTO_CLASSES.values(), *HEADS_WITHOUT_AUTO_CLASS]:
        cls._auto_class = None


def save_with_expectation(head, modality, folder: Path) -> dict:
    torch.manual_seed(0)
    model = head(tiny_config(modality, attn_implementation="flow")).eval()
    model.save_pretrained(folder)
    inputs = head_inputs(head, model.config)
    with torch.no_grad():
        outputs = model(**inputs)
        output = first_output(outputs)
        name = next(name for name, value in outputs.items() if value is output)
        expected = {"inputs": inputs, "name": name, "output": output}
        if head is FlowformerForCausalLM:
            options = {"max_new_tokens": 5, "do_sample": False}
            ids = inputs["input_ids"]
            expected["generated"] = {beams: model.generate(ids, num_beams=beams, **options) for beams in (1, 3)}
    torch.save(expected, folder / "expected.pt")
    auto = next((auto.__name__ for auto, cls in AUTO_CLASSES.items() if cls is head), "AutoModel")
    facts = {"folder": str(folder), "auto": auto, "head": head.__name__, "saved": head.__name__}
    return {**facts, "saves_again": head is HEADS[modality][0]}


def run_clean(cases: list[dict], folder: Path) -> str:
    (folder / "cases.json").write_text(json.dumps(cases))
    environment = {
        "PATH": "/usr/bin:/bin",
        "HF_HOME": str(folder / "home"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", CLEAN_PROCESS, str(folder / "cases.json")]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_every_head_loads_where_hf_transfer_is_not_installed(remote_code, tmp_path):
    heads = [(head, modality, tmp_path / head.__name__) for head, modality in HEADS_AND_MODALITIES]
    cases = [save_with_expectation(*head) for head in heads]
    cases.append(save_with_expectation(FlowformerModel, "text", tmp_path / "base"))
    for case in cases:
        assert (Path(case["folder"]) / "flow_attention.py").exists()
        assert "hf_transfer" not in (Path(case["folder"]) / "modeling_flowformer.py").read_text()
    shared = save_with_expectation(FlowformerForMaskedLM, "text", tmp_path / "shared")
    add_remote_code(shared["folder"])
    for auto, cls in AUTO_CLASSES.items():
        if cls.required_modality in (None, "text"):
            cases.append({**shared, "auto": auto.__name__, "head": cls.__name__})
    printed = run_clean(cases, tmp_path)
    assert printed.count("loaded") == len(cases)


def test_one_folder_gets_the_files_of_every_head_of_its_modality(tmp_path):
    FlowformerForMaskedLM(tiny_config()).save_pretrained(tmp_path)
    files = {file.name for file in add_remote_code(tmp_path)}
    others = {"__init__.py", "backbone_flowformer.py", "heads_image.py", "heads_time_series.py", "heads_trajectory.py"}
    others |= {"heads_series_pretraining.py"}
    assert files == {file.name for file in Path(flowformer.__file__).parent.glob("*.py")} - others
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    text = {auto.__name__ for auto, cls in AUTO_CLASSES.items() if cls.required_modality == "text"}
    assert set(auto_map) == {"AutoConfig", "AutoModel", *text}


def test_a_head_without_auto_class_answers_to_auto_model(tmp_path):
    for head in HEADS_WITHOUT_AUTO_CLASS:
        folder = tmp_path / head.__name__
        head(tiny_config(head.required_modality)).save_pretrained(folder)
        add_remote_code(folder)
        assert json.loads((folder / "config.json").read_text())["auto_map"]["AutoModel"].endswith(head.__name__)


def test_other_models_are_refused(tmp_path):
    BertModel(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="should hold a Flowformer"):
        add_remote_code(tmp_path)


def test_remote_and_installed_code_live_in_one_process(remote_code, tmp_path):
    torch.manual_seed(0)
    installed = FlowformerForCausalLM(tiny_config(attn_implementation="flow")).eval()
    installed.save_pretrained(tmp_path)
    remote = AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=True).eval()
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    assert torch.equal(installed.generate(ids, max_new_tokens=5), remote.generate(ids, max_new_tokens=5))
    cache = DynamicCache(config=installed.config)
    with torch.no_grad():
        first = installed(ids, past_key_values=cache).logits
        torch.testing.assert_close(first, remote(ids, past_key_values=DynamicCache(config=remote.config)).logits)
    assert type(AutoModel.from_pretrained(tmp_path, trust_remote_code=False)) is FlowformerModel
