import pytest

from hf_transfer.data.images import image_processor
from hf_transfer.modeling.processors import check_same_processor
from tests import tiny


def test_the_same_processor_passes_and_a_model_without_one_too(tmp_path):
    processor = image_processor(14, num_channels=1)
    processor.save_pretrained(tmp_path / "images")
    check_same_processor(str(tmp_path / "images"), processor)
    tiny.tokenizer().save_pretrained(tmp_path / "texts")
    check_same_processor(str(tmp_path / "texts"), tiny.tokenizer())
    tiny.vit().save_pretrained(tmp_path / "bare")
    check_same_processor(str(tmp_path / "bare"), processor)
    check_same_processor(str(tmp_path / "texts"), None)


@pytest.mark.parametrize("name, value", [("size", {"height": 28, "width": 28}), ("image_mean", [0.1])])
def test_other_pixels_are_refused(tmp_path, name, value):
    processor = image_processor(14, num_channels=1)
    processor.save_pretrained(tmp_path)
    setattr(processor, name, value)
    with pytest.raises(ValueError, match=f"an image processor of `{name}` = .*Take models with the same"):
        check_same_processor(str(tmp_path), processor)


def test_other_words_are_refused(tmp_path):
    tokenizer = tiny.tokenizer()
    tokenizer.save_pretrained(tmp_path)
    tokenizer.add_tokens(["zyzzyva"])
    with pytest.raises(ValueError, match="another tokenizer .* the same ids are other words"):
        check_same_processor(str(tmp_path), tokenizer)
