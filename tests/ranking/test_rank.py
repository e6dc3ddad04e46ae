import json
import shutil

import pytest
import torch
from accelerate import PartialState, debug_launcher
from datasets import Dataset, DatasetDict, Value
from peft import LoraConfig, get_peft_model
from transformers import SpeechT5Config, SpeechT5ForSpeechToText, ViTForImageClassification

from hf_transfer.hub import retry
from hf_transfer.modeling.loading import load_model
from hf_transfer.ranking import FeatureExtractor, Ranking, find_models, logme, rank_models
from hf_transfer.ranking.ranking import NothingScoredError


def rank(models, dataset, **options):
    return rank_models(models, dataset, progress=False, **options)


def by_model(ranking):
    return {row.model: row for row in ranking.rows}


def test_scores_are_those_of_the_features(zoo, digits):
    ranking = rank([zoo / "vit0", zoo / "vit1", zoo / "mae"], digits, batch_size=70, score="logme", layers="last")
    for row in ranking.rows:
        features = FeatureExtractor(load_model(zoo / row.model, str))({"pixel_values": digits["pixel_values"][:]})[2]
        assert row.score == pytest.approx(logme(features, digits["labels"][:]), abs=1e-6)
        assert row.standard_error > 0 and row.reason is None
        assert (row.rows, row.batch_size, row.layer) == (300, 70, 2)
    assert [row.score for row in ranking.rows] == sorted((row.score for row in ranking.rows), reverse=True)


def test_pictures_and_inputs_rank_alike(zoo, digits, raw_digits):
    models = [zoo / "vit0", zoo / "vit1", zoo / "mae"]
    ready, raw = by_model(rank(models, digits)), by_model(rank(models, raw_digits))
    for name in (str(zoo / "vit0"), str(zoo / "vit1")):
        assert raw[name].score == pytest.approx(ready[name].score, abs=0.01)
    assert "no image processor" in raw[str(zoo / "mae")].reason


def test_layers(zoo, digits):
    every = rank([zoo / "vit0"], digits, layers="all").best
    assert sorted(every.layers) == [0, 1, 2]
    assert every.score == max(score.value for score in every.layers.values())
    best = rank([zoo / "vit0"], digits, layers="best").best
    assert best.score == every.score and list(best.layers) == [every.layer]
    assert rank([zoo / "vit0"], digits).best.layers.keys() == every.layers.keys()
    last = rank([zoo / "vit0"], digits, layers="last").best
    assert last.score == pytest.approx(every.layers[2].value, abs=1e-9)
    assert list(rank([zoo / "vit0"], digits, layers=[-2]).best.layers) == [1]


def test_several_scores_come_from_one_pass(zoo, digits, monkeypatch):
    passes = []
    call = FeatureExtractor.__call__
    monkeypatch.setattr(FeatureExtractor, "__call__", lambda self, inputs: passes.append(1) or call(self, inputs))
    row = rank([zoo / "vit0"], digits, batch_size=300).best
    assert len(passes) == 1 and list(row.others) == ["knn", "linear_probe"]
    for name in row.others:
        alone = rank([zoo / "vit0"], digits, batch_size=300, score=name).best
        assert {layer: score.value for layer, score in row.others[name].items()} == pytest.approx(
            {layer: score.value for layer, score in alone.layers.items()}
        )
    assert row.score == pytest.approx(rank([zoo / "vit0"], digits, score=["logme"]).best.score)


def test_labels_are_read_before_any_model(zoo, reviews):
    names = ["bad", "good"]
    words = reviews.remove_columns("label").add_column("label", [names[label] for label in reviews["label"]])
    rows = [rank([zoo / "bert"], data).best for data in (reviews, words)]
    assert rows[0].score == pytest.approx(rows[1].score, abs=1e-12)
    holes = reviews.remove_columns("label").add_column("label", [None, *reviews["label"][1:]])
    with pytest.raises(ValueError, match="column `label` of the given dataset has no label .* in row 0 "):
        rank([zoo / "no such model"], holes)


def test_a_further_score_that_fails_is_a_note(zoo, digits):
    values = digits.remove_columns("labels").add_column("labels", [float(place) for place in range(300)])
    row = rank([zoo / "vit0"], values, score=["logme", "trans_rate"]).best
    assert row.score is not None and row.others == {}
    assert row.notes[0].startswith("trans_rate was not computed: TransRate compares classes")
    with pytest.raises(NothingScoredError, match="No model could be scored. .*compares classes"):
        rank([zoo / "vit0"], values, score=["trans_rate", "logme"])


def test_random_weights_of_each_architecture_on_request(zoo, digits, tmp_path):
    models = [zoo / "vit0", zoo / "vit1", zoo / "mae"]
    ranking = rank(models, digits, random_baseline=True, output_dir=tmp_path, score="logme")
    rows = by_model(ranking)
    baselines = [f"random weights of {zoo / name}" for name in ("vit0", "mae")]
    assert set(rows) == {*map(str, models), *baselines}
    assert all(rows[name].is_baseline == (name in baselines) for name in rows)
    assert rows[baselines[0]].architecture == rows[str(zoo / "vit0")].architecture
    assert len({row.score for row in ranking.rows}) == 5 and not ranking.best.is_baseline
    again = rank(models, digits, random_baseline=True, output_dir=tmp_path, score="logme")
    assert [row.score for row in again.rows] == [row.score for row in ranking.rows]


def test_a_model_that_cannot_be_run_on_the_rows_says_so(tmp_path):
    """The encoder of SpeechT5 reads what a network before it makes of the sound."""
    sizes = {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("attention_heads", "ffn_dim")}
    layers = {
        "encoder_layers": 1,
        "decoder_layers": 1,
        "hidden_size": 16,
        "vocab_size": 8,
        "num_conv_pos_embedding_groups": 2,
    }
    SpeechT5ForSpeechToText(SpeechT5Config(**sizes, **layers, conv_dim=[4] * 7)).save_pretrained(tmp_path / "speech")
    rows = Dataset.from_dict({"input_values": torch.rand(6, 400).tolist(), "labels": [0, 1] * 3})
    with pytest.raises(NothingScoredError, match="cannot be run on input_values alone"):
        rank([tmp_path / "speech"], rows)


def test_stars_are_classes_or_a_value_as_the_user_says(zoo, reviews):
    stars = reviews.remove_columns("label").add_column("label", [place % 5 + 1 for place in range(len(reviews))])
    values = stars.cast_column("label", Value("float32"))
    halves = values.map(lambda row: {"label": row["label"] + 0.5})  # numbers that nobody would take for classes
    options = {"score": "logme", "layers": "last"}
    told = rank([zoo / "bert"], stars, problem_type="regression", **options).best.score
    assert told == pytest.approx(rank([zoo / "bert"], halves, **options).best.score, abs=0.05)
    assert told != pytest.approx(rank([zoo / "bert"], stars, **options).best.score, abs=0.2)
    with pytest.raises(ValueError, match="`problem_type` should be one of .*, got 'stars'"):
        rank([zoo / "bert"], stars, problem_type="stars")


def test_text_regression_and_several_labels(zoo, reviews):
    tokens = Dataset.from_dict({"tokens": [["good", "film"], ["bad"]] * 20, "ner_tags": [[3, 1], [2]] * 20})
    values = reviews.remove_columns("label").add_column("label", [float(x) for x in range(60)])
    several = reviews.remove_columns("label").add_column("label", [[1.0, 0.0], [0.0, 1.0]] * 30)
    for dataset, rows in ((reviews, 60), (values, 60), (several, 60), (tokens, 60)):
        ranking = rank([zoo / "bert", zoo / "gpt"], dataset, pooling="last")
        assert [row.reason for row in ranking.rows] == [None, None]
        assert ranking.best.rows == rows


def test_scores_of_the_source_head(zoo, digits):
    ranking = rank([zoo / "vit0", zoo / "mae"], digits, score="leep")
    assert ranking.best.model == str(zoo / "vit0") and ranking.best.score < 0
    assert "without the classification head" in ranking.rows[1].reason


def test_unlabelled_rows_are_left_out(zoo, digits):
    labels = digits["labels"][:].clone()
    labels[::3] = -100
    partly = digits.remove_columns("labels").add_column("labels", labels.tolist())
    row = rank([zoo / "vit0"], partly).best
    features = FeatureExtractor(load_model(zoo / "vit0", str))({"pixel_values": digits["pixel_values"][:]})[2]
    assert row.rows == 200 and row.score == pytest.approx(logme(features[labels >= 0], labels[labels >= 0]), abs=1e-6)


def test_a_random_part_is_the_same_every_time(zoo, digits):
    first, second = (rank([zoo / "vit0"], digits, max_samples=100) for _ in range(2))
    other = rank([zoo / "vit0"], digits, max_samples=100, seed=1)
    assert first.best.rows == 100 and first.best.score == second.best.score != other.best.score


def test_every_failure_is_a_row(zoo, digits, tmp_path):
    shutil.copytree(zoo / "vit0", tmp_path / "corrupt")
    (tmp_path / "corrupt" / "model.safetensors").write_bytes(b"nothing")
    (tmp_path / "empty").mkdir()
    names = [zoo / "vit0", tmp_path / "corrupt", tmp_path / "empty", tmp_path / "absent", zoo / "bert"]
    rows = by_model(rank(names, digits, max_params=100_000))
    assert rows[str(zoo / "vit0")].score is not None
    assert rows[str(tmp_path / "empty")].reason.endswith("no model was saved there.")
    assert rows[str(tmp_path / "absent")].reason.startswith("There is no folder")
    assert "No column that BertModel could read" in rows[str(zoo / "bert")].reason
    assert rows[str(tmp_path / "corrupt")].reason
    with pytest.raises(NothingScoredError) as failure:
        rank([zoo / "vit0"], digits, max_params=100, output_dir=tmp_path / "saved")
    small = failure.value.ranking.rows[0]
    assert small.reason.startswith("It has 5,") and small.score is None
    assert (tmp_path / "saved" / "ranking.json").is_file()


def test_out_of_memory_halves_the_batch(zoo, digits, monkeypatch):
    plain = rank([zoo / "vit0"], digits).best
    call = FeatureExtractor.__call__

    def limited(self, inputs):
        if len(inputs["pixel_values"]) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return call(self, inputs)

    monkeypatch.setattr(FeatureExtractor, "__call__", limited)
    row = rank([zoo / "vit0"], digits).best
    assert row.batch_size == 16 and row.rows == 300
    assert row.score == pytest.approx(plain.score, abs=1e-6)

    def never(self, inputs):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(FeatureExtractor, "__call__", never)
    with pytest.raises(NothingScoredError, match="vit0: Out of memory even with one row at a time."):
        rank([zoo / "vit0"], digits)


def test_an_interrupted_run_continues(zoo, digits, tmp_path, monkeypatch):
    models = [str(zoo / "vit0"), str(zoo / "vit1")]
    whole = rank(models, digits, output_dir=tmp_path)
    lines = (tmp_path / "rows.jsonl").read_text().strip().split("\n\n")
    (tmp_path / "rows.jsonl").write_text(lines[0] + "\n" + lines[1][:40])
    loaded = []

    def spy(folder, *arguments, **options):
        loaded.append(folder.name)
        return load_model(folder, *arguments, **options)

    monkeypatch.setattr("hf_transfer.ranking.scorer.load_model", spy)
    again = rank(models, digits, output_dir=tmp_path)
    assert loaded == [json.loads(lines[1])["row"]["model"].rpartition("/")[2]]
    assert [row.score for row in again.rows] == [row.score for row in whole.rows]
    assert Ranking.load(tmp_path).best.model == whole.best.model
    rank(models, digits, output_dir=tmp_path, pooling="cls")
    assert len(loaded) == 3


def rank_in_two_processes(models, dataset, target):
    torch.set_num_threads(1)
    PartialState._reset_state()
    ranking = rank(models, dataset, layers="all", batch_size=32, output_dir=target)
    assert PartialState().num_processes == 2
    if PartialState().process_index == 1:
        (target / "second.json").write_text(ranking.to_json())


def test_two_processes_give_the_scores_of_one(zoo, digits, tmp_path):
    models = [str(zoo / "vit0"), str(zoo / "vit1"), str(tmp_path / "absent")]
    alone = by_model(rank(models, digits, layers="all"))
    debug_launcher(rank_in_two_processes, (models, digits, tmp_path), num_processes=2)
    second = Ranking.from_json((tmp_path / "second.json").read_text())
    for ranking in (Ranking.load(tmp_path), second):
        for name, row in by_model(ranking).items():
            if row.score is None:
                assert row.reason == alone[name].reason
                continue
            assert row.rows == 300
            assert row.score == pytest.approx(alone[name].score, abs=1e-9)
            assert row.standard_error == pytest.approx(alone[name].standard_error, abs=1e-7)


class TestOverTheHub:
    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch):
        monkeypatch.setattr(retry, "sleep", lambda seconds: None)

    def test_a_query_end_to_end(self, hub, zoo, digits, tmp_path):
        for name in ("vit0", "vit1", "bert"):
            hub.add_folder(f"lab/{name}", zoo / name, tags=("tiny",))
        names = find_models(author="lab", filter="tiny", max_params=50_000)
        ranking = rank(names, digits, cache_dir=str(tmp_path), free_disk=True)
        rows, local = by_model(ranking), by_model(rank([zoo / "vit0", zoo / "vit1"], digits))
        for name in ("vit0", "vit1"):
            assert rows[f"lab/{name}"].score == pytest.approx(local[str(zoo / name)].score, abs=1e-12)
        assert "No column" in rows["lab/bert"].reason
        assert not list(tmp_path.glob("models--*"))

    def test_continues_without_downloading_again(self, hub, zoo, digits, tmp_path):
        hub.add_folder("lab/vit0", zoo / "vit0")
        options = {"cache_dir": str(tmp_path / "cache"), "output_dir": tmp_path / "out", "free_disk": True}
        first = rank("lab/vit0", digits, **options)
        hub.requests.clear()
        assert rank("lab/vit0", digits, **options).best.score == first.best.score
        assert not any("resolve" in request["path"] for request in hub.requests)

    def test_an_adapter_brings_its_base(self, hub, zoo, digits, tmp_path):
        hub.add_folder("lab/base", zoo / "vit0")
        base = ViTForImageClassification.from_pretrained(zoo / "vit0")
        adapted = get_peft_model(base, LoraConfig(target_modules="all-linear", init_lora_weights=False))
        adapted.peft_config["default"].base_model_name_or_path = "lab/base"
        adapted.save_pretrained(tmp_path / "adapter")
        hub.add_folder("lab/adapter", tmp_path / "adapter")
        ranking = rank(["lab/adapter", "lab/base"], digits, cache_dir=str(tmp_path / "cache"), free_disk=True)
        assert len(ranking.scored) == 2 and ranking.rows[0].score != ranking.rows[1].score
        assert not list((tmp_path / "cache").glob("models--*"))

    def test_every_fault_is_a_row(self, hub, zoo, digits, tmp_path):
        for name in ("public", "corrupt", "broken", "limited"):
            hub.add_folder(f"lab/{name}", zoo / "vit0")
        hub.add_folder("stranger/gated", zoo / "vit0", gated=True)
        hub.add_folder("stranger/private", zoo / "vit0", private=True)
        hub.add_repo("lab/onlybin", {"config.json": b"{}", "pytorch_model.bin": b"x"})
        hub.fail("flip", path="/lab/corrupt/resolve/.*safetensors", method="GET", times=99, after=500)
        hub.fail(503, path="/api/models/lab/broken", times=99)
        hub.fail(429, path="/api/models/lab/limited", times=99, retry_after=700)
        models = ["stranger/private", "stranger/gated", "lab/onlybin", "lab/corrupt", "lab/broken", "lab/limited"]
        rows = by_model(rank([*models, "lab/absent", "lab/public"], digits, cache_dir=str(tmp_path)))
        reasons = {name: row.reason for name, row in rows.items()}
        assert "no such repository" in reasons["stranger/private"]
        assert "is gated" in reasons["stranger/gated"]
        assert "pickled weights" in reasons["lab/onlybin"]
        assert "another checksum" in reasons["lab/corrupt"]
        assert "the Hub is in trouble (503" in reasons["lab/broken"]
        assert "too many requests (429). Wait 700 seconds" in reasons["lab/limited"]
        assert "no such repository" in reasons["lab/absent"]
        assert rows["lab/public"].score is not None
        assert all("\n" not in reason for reason in reasons.values() if reason)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "magic"}, "`score` should be one of"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"batch_size": "large"}, "`batch_size`"),
        ({"pooling": "median"}, "`pooling`"),
    ],
)
def test_wrong_keywords_stop_at_once(zoo, digits, options, message):
    with pytest.raises(ValueError, match=message):
        rank([zoo / "vit0"], digits, **options)


def test_unusable_datasets_stop_at_once(zoo, digits):
    with pytest.raises(ValueError, match=r"`dataset` has the splits \['a', 'b'\]: give one"):
        rank([zoo / "vit0"], DatasetDict(a=digits, b=digits))
    with pytest.raises(ValueError, match="no rows"):
        rank([zoo / "vit0"], digits.select([]))
