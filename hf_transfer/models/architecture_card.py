"""Writes the page of a named Flowformer size - its configuration and what it is - from the configuration itself.

python -m hf_transfer.models.architecture_card model_cards/flowformer-base
"""

import json
import sys
from pathlib import Path

import torch
from huggingface_hub import ModelCardData
from transformers import PreTrainedConfig

from hf_transfer.models.flowformer import FlowformerConfig, FlowformerModel
from hf_transfer.models.flowformer.configuration_flowformer import SIZES

PAPER = "2202.06258"
MODALITIES = {
    "text": "token ids",
    "image": "pixels, {image_size} x {image_size} in patches of {patch_size} x {patch_size}",
    "time_series": "values of each channel at each step",
    "trajectory": "returns-to-go, states and actions",
}

TEMPLATE = """---
{metadata}
---

# {name}

The architecture `{name}`: Flowformer, with attention in linear time
([Wu et al., ICML 2022](https://huggingface.co/papers/{paper})). This folder holds the configuration; weights come from
your own pre-training. The page is written from the configuration by `hf_transfer.models.architecture_card`.

```python
import hf_transfer  # registers the architecture
from transformers import AutoConfig, AutoModelForMaskedLM

config = AutoConfig.from_pretrained("{name}")
model = AutoModelForMaskedLM.from_config(config)  # flow attention; attn_implementation="sdpa" is the softmax twin
```

{layers} layers of width {width}, {heads} heads of {head_width}, MLPs of {mlp}, {norm} before each branch.

| modality | input | parameters of the bare model |
| --- | --- | --- |
{modalities}

| size | layers | width | heads | parameters (text) |
| --- | --- | --- | --- | --- |
{sizes}

What a causal model keeps per layer and sequence while it generates is {state:,} numbers, whatever the length of the
context; keys and values would be {pair:,} numbers for every token.
"""


def write_architecture_card(folder: str | Path, size: str = "base") -> list[Path]:
    """Write `config.json` and `README.md` of the named size into `folder`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = FlowformerConfig.from_size(size)
    # Flowformer's own fields alone: the file is the same whichever version of transformers writes it
    fields = {"model_type": config.model_type, **_own_fields(config)}
    files = {
        "config.json": json.dumps(fields, indent=2, sort_keys=True) + "\n",
        "README.md": _readme(config, size),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return [folder / name for name in files]


def _own_fields(config: FlowformerConfig) -> dict:
    names = [name for name in FlowformerConfig.__annotations__ if name not in PreTrainedConfig.__annotations__]
    return {name: getattr(config, name) for name in names}


def _readme(config: FlowformerConfig, size: str) -> str:
    head_width = config.hidden_size // config.num_attention_heads
    modalities = [
        f"| {modality} | {inputs} | {_millions(FlowformerConfig.from_size(size, modality=modality))} |"
        for modality, inputs in MODALITIES.items()
    ]
    sizes = [
        f"| flowformer-{name} | {other.num_hidden_layers} | {other.hidden_size} | {other.num_attention_heads} | "
        f"{_millions(other)} |"
        for name, other in ((name, FlowformerConfig.from_size(name)) for name in SIZES)
    ]
    metadata = ModelCardData(
        library_name="transformers", license="apache-2.0", tags=["flowformer", "linear-attention", f"arxiv:{PAPER}"]
    )
    return TEMPLATE.format(
        metadata=metadata.to_yaml(),
        name=f"flowformer-{size}",
        paper=PAPER,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        head_width=head_width,
        mlp=config.intermediate_size,
        norm=config.norm_type.replace("_", " "),
        modalities="\n".join(modalities).format(**_own_fields(config)),
        sizes="\n".join(sizes),
        # four vectors, a scalar and a matrix for each head, and the count of tokens
        state=config.num_attention_heads * (4 * head_width + 1 + head_width**2) + 1,
        pair=2 * config.hidden_size,
    )


def _millions(config: FlowformerConfig) -> str:
    with torch.device("meta"):
        return f"{FlowformerModel(config).num_parameters() / 1e6:.1f} M"


if __name__ == "__main__":
    for file in write_architecture_card(*sys.argv[1:]):
        print(file)
