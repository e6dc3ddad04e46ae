import pytest
import torch
import torch.nn.functional as F
from transformers import EvalPrediction

from hf_transfer.evaluation import image_text
from hf_transfer.evaluation.image_text import PairMetrics, check_prompts, class_embeddings, recall_at
from tests.pretraining import pairs


def random(rows=40, width=6, seed=0):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("at_once", [1024, 7])
def test_recall_against_a_sort_of_every_query(monkeypatch, at_once):
    monkeypatch.setattr(image_text, "ROWS_AT_ONCE", at_once)
    queries = random()
    gallery = queries + 0.8 * random(seed=1)
    hits = dict.fromkeys((1, 3, 5), 0)
    for place, query in enumerate(queries):
        cosines = [(F.cosine_similarity(query, one, dim=0).item(), other) for other, one in enumerate(gallery)]
        order = [other for _, other in sorted(cosines, reverse=True)]
        for k in hits:
            hits[k] += place in order[:k]
    found = recall_at(queries, gallery, ks=tuple(hits))
    assert found == pytest.approx([count / 40 for count in hits.values()]) and 0.1 < found[0] < found[2] < 1


def test_embeddings_that_are_all_alike_are_found_by_chance():
    same = torch.ones(8, 3)
    assert recall_at(same, same, (1, 5, 9)) == pytest.approx([1 / 8, 5 / 8, 1.0])


def test_partners_and_strangers():
    eye = torch.eye(6)
    assert recall_at(eye, eye, (1,)) == [1.0]
    assert recall_at(eye, eye.roll(1, 0), (1,)) == [0.0]
    assert recall_at(torch.full((6, 6), torch.nan), eye, (1, 5)) == [0.0, 0.0]


@pytest.mark.parametrize("name", ["dual_encoder", "clip"])
def test_a_class_is_the_mean_of_its_prompts(name):
    model, tokenizer = pairs.MODELS[name](), pairs.tokenizer()
    names, prompts = ["zero", "one", "seven"], ["this is {}", "a drawing of {}"]
    found = class_embeddings(model.train(), tokenizer, names, prompts)
    assert model.training
    model.eval()
    for place, class_name in enumerate(names):
        parts = []
        for prompt in prompts:
            tokens = tokenizer(prompt.format(class_name), return_tensors="pt")
            embedding = model.get_text_features(**tokens).pooler_output[0]
            parts.append(embedding / embedding.norm())
        mean = (parts[0] + parts[1]) / 2
        torch.testing.assert_close(found[place], mean / mean.norm(), rtol=1e-4, atol=1e-5)


def test_a_siglip_reads_prompts_as_long_as_its_captions():
    model, tokenizer = pairs.siglip(), pairs.tokenizer()
    found = class_embeddings(model, tokenizer, ["zero", "seven"], ["this is {}"])
    tokens = tokenizer(["this is zero", "this is seven"], padding="max_length", max_length=12, return_tensors="pt")
    expected = F.normalize(model.eval().get_text_features(**tokens).pooler_output, dim=1)
    torch.testing.assert_close(found, expected)
    short = tokenizer(["this is zero", "this is seven"], padding=True, return_tensors="pt")
    other = F.normalize(model.get_text_features(**short).pooler_output, dim=1)
    assert not torch.allclose(found, other, atol=1e-3)


def test_metrics_of_an_evaluation_with_chance_beside_them():
    model, tokenizer = pairs.dual_encoder(), pairs.tokenizer()
    for parameter in model.text_model.parameters():
        parameter.data.mul_(10)  # so that texts differ
    classes = class_embeddings(model, tokenizer, pairs.NAMES)
    # further apart than rounding on any processor
    labels = torch.tensor([2, 2, 2, 9, -100])
    images = classes[[2, 2, 6, 9, 0]]
    metrics = PairMetrics(model, tokenizer, tuple(pairs.NAMES))
    found = metrics(EvalPrediction(predictions=(images.numpy(), images.numpy()), label_ids=labels.numpy()))
    assert found["zero_shot_accuracy"] == 0.75 and found["zero_shot_by_chance"] == 0.1
    assert found["zero_shot_largest_class"] == 0.75
    assert found["image_to_text_recall_1"] == found["text_to_image_recall_1"] == pytest.approx(4 / 5)
    assert found["recall_1_by_chance"] == 0.2 and found["recall_5_by_chance"] == 1.0
    unnamed = PairMetrics(model, tokenizer)(EvalPrediction((images.numpy(), images.numpy()), labels.numpy()))
    assert not any("zero_shot" in name for name in unnamed)


@pytest.mark.parametrize("prompts", [[], ["a photo"], ["{} and {}"], [3]])
def test_prompts_have_one_place_for_the_name(prompts):
    with pytest.raises(ValueError, match="`prompts` should be texts with one {} for the name of a class"):
        check_prompts(prompts)
