import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image as PILImage
from transformers import ImageGPTConfig

from hf_transfer.data.pixel_clusters import pixel_processor
from hf_transfer.data.pixel_tokens import MaskedPixelCollator, NextPixelCollator, pixel_tokens, start_token
from hf_transfer.data.visits import VISIT_COLUMN, Visit

DRAWS = np.random.default_rng(0)


def pictures(values: np.ndarray) -> Dataset:
    rows = {"image": [PILImage.fromarray(one.astype(np.uint8)) for one in values], "label": [0] * len(values)}
    return Dataset.from_dict(rows)


def test_few_colours_are_the_clusters_and_pixels_come_row_by_row():
    palette = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]])
    places = DRAWS.integers(3, size=(4, 2, 2))
    processor = pixel_processor(pictures(palette[places]), "image", clusters=8, size=2)
    assert start_token(processor) == 3
    ready = pixel_tokens(pictures(palette[places]), "image", ImageGPTConfig(vocab_size=4, n_positions=5), processor)
    told = np.asarray(ready["input_ids"])
    assert (told[:, 0] == 3).all() and ready["labels"] == [0] * 4
    colours = np.asarray(processor.clusters)[told[:, 1:]]
    np.testing.assert_allclose((colours + 1) * 127.5, palette[places].reshape(4, 4, 3), atol=1e-3)


def test_every_pixel_has_the_nearest_cluster():
    values = DRAWS.integers(256, size=(6, 4, 4, 3))
    processor = pixel_processor(pictures(values), "image", clusters=5, size=4)
    ready = pixel_tokens(pictures(values), "image", ImageGPTConfig(vocab_size=6, n_positions=17), processor)
    centres = np.asarray(processor.clusters)
    for row, picture in zip(ready["input_ids"], values):
        distances = [[((pixel / 127.5 - 1 - c) ** 2).sum() for c in centres] for pixel in picture.reshape(-1, 3)]
        assert row[1:] == np.argmin(distances, axis=1).tolist()
    shorter = pixel_tokens(pictures(values), "image", ImageGPTConfig(vocab_size=6, n_positions=16), processor)
    assert shorter["input_ids"][0] == ready["input_ids"][0][:16]


def test_another_processor_than_the_models_is_refused():
    values = DRAWS.integers(256, size=(4, 4, 4, 3))
    processor = pixel_processor(pictures(values), "image", clusters=5, size=4)
    with pytest.raises(ValueError, match="5 colours and a start token, and the model `vocab_size=5`"):
        pixel_tokens(pictures(values), "image", ImageGPTConfig(vocab_size=5), processor)
    with pytest.raises(ValueError, match="all of one colour"):
        pixel_processor(pictures(np.zeros((2, 4, 4, 3))), "image", size=4)


def test_what_collators_give():
    rows = [{"input_ids": [9, *DRAWS.integers(9, size=200).tolist()]} for _ in range(2)]
    batch = NextPixelCollator()(rows)
    assert torch.equal(batch["input_ids"], batch["labels"]) and batch["labels"].shape == (2, 201)
    collator = MaskedPixelCollator(9, 0.3).seeded(1)
    masked, tokens = collator(rows), batch["input_ids"]
    hidden = masked["labels"] != -100
    assert not hidden[:, 0].any() and hidden.float().mean().item() == pytest.approx(0.3, abs=0.08)
    assert torch.equal(masked["labels"][hidden], tokens[hidden]) and (masked["input_ids"][hidden] == 9).all()
    assert torch.equal(masked["input_ids"][~hidden], tokens[~hidden])
    assert torch.equal(collator(rows[1:])["labels"][0], masked["labels"][1])
    visited = [[{**row, VISIT_COLUMN: Visit(at, epoch, 0)} for at, row in enumerate(rows)] for epoch in (0, 1)]
    assert not torch.equal(collator(visited[0])["labels"], collator(visited[1])["labels"])
    with pytest.raises(ValueError, match="`probability` should be in"):
        MaskedPixelCollator(9, 0.0)
