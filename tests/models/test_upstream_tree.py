"""The folder of Flowformer drops into transformers' own tree: its files, their `__all__` and the Auto classes.

The tree is a folder of links to the installed transformers, in which `models/flowformer` and the lines of the Auto
classes are new. A file changes in one way: `from transformers.x import` becomes `from ...x import`.
"""

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from hf_transfer.models import flowformer
from hf_transfer.models.flowformer import FlowformerConfig
from hf_transfer.models.flowformer.configuration_flowformer import MODALITY_FIELDS
from hf_transfer.models.registration import AUTO_CLASSES, HEADS_WITHOUT_AUTO_CLASS

SOURCE = Path(flowformer.__file__).parent
FILES = sorted(path for path in SOURCE.glob("*.py") if path.name != "__init__.py")
INSTALLED = Path(transformers.__file__).parent
LAZY_INIT = """
from typing import TYPE_CHECKING

from ...utils import _LazyModule
from ...utils.import_utils import define_import_structure

if TYPE_CHECKING:
    from .configuration_flowformer import *
    from .modeling_flowformer import *
else:
    import sys

    _file = globals()["__file__"]
    sys.modules[__name__] = _LazyModule(__name__, _file, define_import_structure(_file), module_spec=__spec__)
"""
TABLES = {
    "MODEL_MAPPING_NAMES": "FlowformerModel",
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": "FlowformerForCausalLM",
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES": "FlowformerForMaskedLM",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES": "FlowformerForSequenceClassification",
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES": "FlowformerForTokenClassification",
    "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES": "FlowformerForQuestionAnswering",
    "MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES": "FlowformerForMultipleChoice",
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES": "FlowformerForImageClassification",
    "MODEL_FOR_MASKED_IMAGE_MODELING_MAPPING_NAMES": "FlowformerForMaskedImageModeling",
    "MODEL_FOR_TIME_SERIES_PREDICTION_MAPPING_NAMES": "FlowformerForTimeSeriesPrediction",
    "MODEL_FOR_BACKBONE_MAPPING_NAMES": "FlowformerBackbone",
}
IN_THE_TREE = """
import sys, tempfile
sys.modules["hf_transfer"] = None
import torch, transformers
from transformers import AutoBackbone, AutoConfig, AutoImageProcessor, AutoModel, AutoModelForCausalLM

assert transformers.__file__.startswith(sys.argv[1]), transformers.__file__
tables, names = eval(sys.argv[2]), eval(sys.argv[3])
auto = transformers.models.auto.modeling_auto
for table, name in tables.items():
    assert getattr(auto, table)["flowformer"] == name
for name in names:
    assert getattr(transformers, name).__module__.startswith("transformers.models.flowformer."), name
sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 31}
config = AutoConfig.for_model("flowformer", **sizes, position_embedding_type="rotary")
assert type(config) is transformers.FlowformerConfig
model = AutoModelForCausalLM.from_config(config).eval()
assert type(model) is transformers.FlowformerForCausalLM and model.config._attn_implementation == "flow"
ids = torch.tensor([[3, 1, 4, 1]])
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    again = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert torch.equal(again.generate(ids, max_new_tokens=4), model.generate(ids, max_new_tokens=4))
    assert "auto_map" not in open(folder + "/config.json").read()
    assert type(AutoModel.from_pretrained(folder)) is transformers.FlowformerModel
image = AutoConfig.for_model("flowformer", modality="image", image_size=8, patch_size=2, num_channels=1, **sizes)
assert AutoBackbone.from_config(image)(torch.randn(1, 1, 8, 8)).feature_maps[0].shape == (1, 16, 4, 4)
with tempfile.TemporaryDirectory() as folder:
    transformers.BertModel(transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, vocab_size=31)).save_pretrained(folder)
    bert = AutoModel.from_pretrained(folder, attn_implementation="flow")
    assert bert(ids).last_hidden_state.shape == (1, 4, 16)
print("in the tree")
"""


def relative(source: str) -> str:
    """The one change of a file on its way into the tree."""
    source = re.sub(r"^from transformers\.", "from ...", source, flags=re.M)
    return re.sub(r"^from transformers import", "from ... import", source, flags=re.M)


def with_line(table: str, line: str, source: str) -> str:
    changed, count = re.subn(rf"^{table} = OrderedDict\(\n    \[\n", rf"\g<0>        {line},\n", source, flags=re.M)
    assert count == 1, table
    return changed


def link_all(source: Path, target: Path, apart: set[str]) -> None:
    target.mkdir()
    for entry in source.iterdir():
        if entry.name not in apart | {"__pycache__"}:
            (target / entry.name).symlink_to(entry)


def build_tree(root: Path) -> None:
    package, models = root / "transformers", root / "transformers" / "models"
    link_all(INSTALLED, package, {"models"})
    link_all(INSTALLED / "models", models, {"auto"})
    link_all(INSTALLED / "models" / "auto", models / "auto", {"auto_mappings.py", "modeling_auto.py"})
    mappings = (INSTALLED / "models" / "auto" / "auto_mappings.py").read_text()
    mappings = with_line("CONFIG_MAPPING_NAMES", '("flowformer", "FlowformerConfig")', mappings)
    (models / "auto" / "auto_mappings.py").write_text(mappings)
    modeling = (INSTALLED / "models" / "auto" / "modeling_auto.py").read_text()
    for table, name in TABLES.items():
        modeling = with_line(table, f'("flowformer", "{name}")', modeling)
    (models / "auto" / "modeling_auto.py").write_text(modeling)
    (models / "flowformer").mkdir()
    (models / "flowformer" / "__init__.py").write_text(LAZY_INIT)
    for path in FILES:
        (models / "flowformer" / path.name).write_text(relative(path.read_text()))


@pytest.mark.slow
def test_the_folder_drops_into_the_tree(tmp_path):
    build_tree(tmp_path)
    names = [name for path in FILES for name in exported(path)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", IN_THE_TREE, str(tmp_path), repr(TABLES), repr(names)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "in the tree" in done.stdout


def exported(path: Path) -> list[str]:
    """Names of a file's `__all__`, as transformers reads them for its lazy modules."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            return ast.literal_eval(node.value)
    return []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_of_the_tree_imports_by_relation(path):
    for node in ast.walk(ast.parse(relative(path.read_text()))):
        if isinstance(node, ast.Import):
            assert not [name.name for name in node.names if name.name.split(".")[0] in ("transformers", "hf_transfer")]
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module.split(".")[0] not in ("transformers", "hf_transfer"), ast.unparse(node)


def test_every_public_model_is_exported_by_its_file_and_by_the_package():
    files = {name for path in FILES for name in exported(path)}
    models = {name for name in flowformer.__all__ if name[0].isupper() and "Cache" not in name and name != "FlowState"}
    assert files == models
    assert {cls.__name__ for cls in (*AUTO_CLASSES.values(), *HEADS_WITHOUT_AUTO_CLASS)} <= files
    for name in files:
        assert inspect.getdoc(getattr(flowformer, name)), name


def test_every_model_with_an_auto_class_is_in_its_table():
    assert set(TABLES.values()) == {cls.__name__ for cls in AUTO_CLASSES.values()} | {"FlowformerBackbone"}


def fields() -> list[str]:
    return [name for name in vars(FlowformerConfig)["__annotations__"] if not name.startswith("_")]


def test_every_field_is_read_by_a_model():
    """As transformers' check of configuration attributes; what only transformers itself reads is named here."""
    by_transformers = {"use_cache", "bos_token_id", "eos_token_id", "tie_word_embeddings", "trained_attention"}
    sources = "".join(path.read_text() for path in FILES if path.name != "configuration_flowformer.py")
    sources += inspect.getsource(FlowformerConfig.stages.fget) + inspect.getsource(
        FlowformerConfig.has_final_norm.fget
    )
    unread = {name for name in fields() if not re.search(rf"(config|self)\.{name}\b|\"{name}\":", sources)}
    assert unread <= by_transformers


def test_every_field_is_documented_or_has_the_name_that_transformers_documents():
    documented = inspect.getdoc(FlowformerConfig).replace(
        "decoder_*", " ".join(f for f in fields() if "decoder_" in f)
    )
    shared = {
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "hidden_act",
        "use_cache",
    }
    shared |= {"hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps", "max_position_embeddings"}
    shared |= {"vocab_size", "type_vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings"}
    shared |= {"image_size", "patch_size", "num_channels", "classifier_dropout", "drop_path_rate"}
    assert {name for name in fields() if not re.search(rf"\b{name}\b", documented)} <= shared
    assert set(MODALITY_FIELDS) <= set(fields()) | {"out_features", "out_indices"}
