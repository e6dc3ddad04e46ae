"""The layers of Flowformer that PEFT's methods adapt when a user names none.

PEFT keeps one table per method, from model type to layer names; most are copies of LoRA's made at import, so each is
filled on its own.
"""

from peft.utils import constants

DEFAULT_LAYERS = ["q_proj", "v_proj"]
LAYERS = {
    "IA3_TARGET_MODULES": ["k_proj", "v_proj", "fc2"],
    "IA3_FEEDFORWARD_MODULES": ["fc2"],
    "LNTUNING_TARGET_MODULES": ["attention_norm", "mlp_norm", "norm"],
    "BEFT_TARGET_MODULES": ["v_proj"],
    "OSF_TARGET_MODULES": ["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"],
}
PREFIX, SUFFIX = "TRANSFORMERS_MODELS_TO_", "_MAPPING"


def register_target_modules(model_type: str) -> None:
    """Fill every table of PEFT for `model_type`; calling it again changes nothing."""
    endings = tuple(ending + SUFFIX for ending in ("_TARGET_MODULES", "_FEEDFORWARD_MODULES"))
    for name, table in vars(constants).items():
        if name.startswith(PREFIX) and name.endswith(endings):
            method = name.removeprefix(PREFIX).removesuffix(SUFFIX)
            table[model_type] = list(LAYERS.get(method, DEFAULT_LAYERS))
