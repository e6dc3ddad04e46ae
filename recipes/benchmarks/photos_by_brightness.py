"""Where MNIST on photographs goes wrong: accuracy by how bright the piece of photograph behind the digit is.

    python recipes/benchmarks/domain_adaptation.py --pairs mnist_to_photos      # first: it trains the models
    python recipes/benchmarks/photos_by_brightness.py

A digit on a dark piece is light on dark, as every digit of the source; on a bright piece it is dark on light. Writes
`photos_by_brightness.json` and `.md`: for each method accuracy in four equal groups of test pictures, from the darkest
border to the brightest, and how often the model gives its most frequent answer; means over the seeds.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import write_report
from datasets import load_from_disk
from domain_adaptation_pairs import METHODS
from transformers import AutoImageProcessor, AutoModelForImageClassification

import hf_transfer  # noqa: F401  registers LeNet

PAIR, TEST = "mnist_to_photos", "photos_test"
BORDER = 3  # pixels that no digit reaches
GROUPS = 4


def border_brightness(picture: np.ndarray) -> float:
    """Mean of the border's pixels, 0 to 255, of a picture [H, W, 3]."""
    border = np.ones(picture.shape[:2], dtype=bool)
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    return float(picture[border].mean())


@torch.no_grad()
def answers(folder: Path, pictures: list) -> np.ndarray:
    """The class that a saved model gives each picture, [N]."""
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    return model(**processor(pictures, return_tensors="pt")).logits.argmax(dim=1).numpy()


def report(runs_dir: Path) -> dict[str, Any]:
    """Method -> accuracy in each group and the share of the most frequent answer, in percent."""
    test = load_from_disk(str(runs_dir / "data" / TEST))
    pictures, labels = list(test["image"]), np.array(test["label"])
    brightness = np.array([border_brightness(np.asarray(picture)) for picture in pictures])
    group = np.digitize(brightness, np.quantile(brightness, np.arange(1, GROUPS) / GROUPS))
    rows = {}
    for method in METHODS:
        folders = sorted(runs_dir.glob(f"{PAIR}-{method}-0-?/model"))
        if not folders:
            continue
        given = [answers(folder, pictures) for folder in folders]
        rows[method] = {
            "seeds": len(given),
            "accuracy": [
                100 * statistics.mean(float((labels == found)[group == place].mean()) for found in given)
                for place in range(GROUPS)
            ],
            "most_frequent": 100 * statistics.mean(np.bincount(found).max() / len(found) for found in given),
        }
    means = [float(brightness[group == place].mean()) for place in range(GROUPS)]
    return {"rows": len(labels), "brightness": means, "methods": rows}


def markdown(made: dict[str, Any]) -> str:
    """One table."""
    lines = ["# MNIST on photographs: accuracy by the brightness behind the digit", ""]
    lines += [
        f"{made['rows']} test pictures in {GROUPS} equal groups by the mean of their border (0 is black, 255 white); "
        "accuracy in %, mean over the seeds. One class in ten has about 10 % of the pictures.",
        "",
    ]
    titles = [f"border {value:.0f}" for value in made["brightness"]]
    lines += [f"| method | seeds | {' | '.join(titles)} | most frequent answer, % |", "|---|" + "--:|" * (GROUPS + 2)]
    for method, row in made["methods"].items():
        figures = " | ".join(f"{value:.1f}" for value in (*row["accuracy"], row["most_frequent"]))
        lines.append(f"| {method} | {row['seeds']} | {figures} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs_dir", type=Path, default=Path("outputs/domain_adaptation"), help="of the trainings")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    if not (arguments.runs_dir / "data" / TEST).exists():
        raise SystemExit(
            f"no trainings in {arguments.runs_dir}: run recipes/benchmarks/domain_adaptation.py --pairs {PAIR}."
        )
    made = report(arguments.runs_dir)
    write_report(arguments.output_dir, "photos_by_brightness", made, markdown(made))


if __name__ == "__main__":
    main()
