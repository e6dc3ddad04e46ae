"""Models of timm's through transformers, saved as timm saves them for the Hub."""

import json

import pytest
import torch
from transformers import AutoImageProcessor, AutoModel

from hf_transfer.data.prepare import prepare
from hf_transfer.ranking import logme, rank_models

timm = pytest.importorskip("timm", reason="timm is not installed")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    from timm.models import save_for_hf

    root = tmp_path_factory.mktemp("timm")
    for name in ("test_efficientnet", "test_vit"):
        torch.manual_seed(0)
        save_for_hf(timm.create_model(name), root / name, safe_serialization=True)
        # The newest timm repeats arguments there that transformers gives by itself; the Hub's folders have none.
        config = json.loads((root / name / "config.json").read_text())
        config.pop("model_args", None)
        (root / name / "config.json").write_text(json.dumps(config))
    return root


def rank(folders, data, **options):
    ranking = rank_models([folders / "test_efficientnet", folders / "test_vit"], data, progress=False, **options)
    assert [row.reason for row in ranking.rows] == [None, None]
    return {row.model.rpartition("/")[2]: row for row in ranking.rows}


def test_pictures_go_through_timms_own_processor(folders, raw_digits):
    data = raw_digits.select(range(60))
    rows = rank(folders, data)
    for name, row in rows.items():
        read = AutoImageProcessor.from_pretrained(folders / name)
        pixels = read([image.convert("RGB") for image in data["image"]])["pixel_values"]
        with torch.no_grad():
            hidden = AutoModel.from_pretrained(folders / name).eval()(pixels).last_hidden_state
        features = hidden.mean(dim=(2, 3) if hidden.ndim == 4 else 1)
        assert row.score == pytest.approx(logme(features, torch.tensor(data["label"][:])), abs=1e-5)


def test_every_layer_and_the_source_head(folders, raw_digits):
    data = raw_digits.select(range(40))
    for row in rank(folders, data, layers="all").values():
        assert len(row.layers) > 1
    for row in rank(folders, data, score="leep").values():
        assert row.score < 0


def test_rows_are_prepared_for_training(folders, raw_digits):
    processor = AutoImageProcessor.from_pretrained(folders / "test_vit")
    config = AutoModel.from_pretrained(folders / "test_vit").config
    rows = prepare(raw_digits.select(range(3)), config, processor)
    expected = processor(raw_digits[0]["image"].convert("RGB"))["pixel_values"][0]
    torch.testing.assert_close(rows[:1]["pixel_values"][0], expected)
