"""Runs with `streaming: true` from the arguments to the saved folder, and what is refused before any training."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoTokenizer

from hf_transfer.data.prepared_streams import BlockStream, PreparedStream
from hf_transfer.data.stream_files import load_stream
from hf_transfer.runs.adapt import run_adaptation, run_pretraining
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.single_run import make_pretraining
from tests import tiny
from tests.runs.folders import QUICK, digits, save_image_model
from tests.runs.test_text_pretraining import KINDS, TOKENIZER

SENTENCES = [text for text, _ in tiny.SENTENCES]


@pytest.fixture
def shards(tmp_path, monkeypatch) -> Path:
    """Texts as lines and as json lines, and pictures as webdataset shards, in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text("\n\n".join(SENTENCES) + "\n")
    for number, part in enumerate((SENTENCES[:10], SENTENCES[10:])):
        Path("shards").mkdir(exist_ok=True)
        Path(f"shards/{number}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    for name, places in (("source", range(24)), ("target", range(24, 48))):
        with tarfile.open(f"{name}.tar", "w") as tar:
            for place in places:
                picture = io.BytesIO()
                digits()[place]["image"].save(picture, "PNG")
                label = str(digits()[place]["label"]).encode()
                for suffix, content in (("png", picture.getvalue()), ("cls", label)):
                    entry = tarfile.TarInfo(f"{place:04d}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return tmp_path


def arguments(task: str, kind: str, dataset: str, *more: str) -> list[str]:
    asked = ["--task", task, "--architecture", json.dumps(KINDS[kind]), "--tokenizer", TOKENIZER]
    return [*asked, "--dataset", dataset, "--streaming", *QUICK, "--output_dir", "out", *more]


@pytest.mark.parametrize(
    ("task", "kind", "dataset", "more"),
    [
        ("fill-mask", "bert", "corpus.txt", ["--max_length", "40"]),
        ("text-generation", "flowformer", "shards", ["--block_size", "20", "--test_rows", "4"]),
        ("text-generation", "flowformer", "shards/*.jsonl", ["--pretraining", "{packed_language: {}}"]),
        ("text2text-generation", "t5", "corpus.txt", ["--block_size", "20"]),
    ],
)
def test_texts_train_tokenizer_and_model(shards, task, kind, dataset, more):
    metrics = run_pretraining(parse_arguments(arguments(task, kind, dataset, *more)))
    assert ("loss" in metrics) == ("--test_rows" in more)
    assert len(AutoTokenizer.from_pretrained("out/model")) == 400


def test_a_resumed_run_equals_a_straight_one(shards):
    """From a checkpoint within the second reading of the stream, with masks drawn anew."""
    base = arguments("fill-mask", "bert", "corpus.txt", "--max_length", "40", "--learning_rate", "0.01")
    base += ["--max_steps", "6", "--save_strategy", "steps", "--save_steps", "4", "--shuffle_buffer", "8"]
    run_pretraining(parse_arguments([*base, "--output_dir", "straight"]))
    run_pretraining(parse_arguments([*base, "--output_dir", "out"]))
    for folder in ("out/model", "out/checkpoint-6"):
        for path in sorted(Path(folder).iterdir()):
            path.unlink()
        Path(folder).rmdir()
    run_pretraining(parse_arguments([*base, "--output_dir", "out", "--resume"]))
    straight, resumed = (load_file(f"{name}/model/model.safetensors") for name in ("straight", "out"))
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())


def test_pictures_of_two_domains_adapt(shards):
    folder = save_image_model(shards / "vit", tiny.vit())
    asked = ["--model", str(folder), "--dataset", "source.tar", "--target_dataset", "target.tar", "--streaming"]
    asked += ["--label_column", "cls", "--test_rows", "8", "--objectives", "{dann: {hidden_size: 8}}"]
    metrics = run_adaptation(parse_arguments([*asked, *QUICK, "--output_dir", "out"]))
    assert 0 <= metrics["accuracy"] <= 1
    card = Path("out/model/README.md").read_text()
    assert "source.tar" in card and "target.tar" in card


def test_a_stream_is_prepared_as_a_data_set_is(shards):
    """Blocks go on over the rows that are read at once, and nothing between them is lost."""
    from hf_transfer.data import prepared_streams
    from hf_transfer.data.language_blocks import language_blocks

    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"eos_token": "[EOS]"})
    whole = language_blocks(Dataset.from_dict({"text": SENTENCES}), tokenizer, 12)["input_ids"]
    stream = PreparedStream(load_stream("shards"), "training")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared_streams, "ROWS_AT_ONCE", 3)
        assert [row["input_ids"] for row in BlockStream(stream, tokenizer, 12, "text", True)] == list(whole)
    lines = [row["text"] for row in PreparedStream(load_stream("corpus.txt"), "training")]
    assert lines == SENTENCES, "a line each, without the empty ones"


def test_held_out_rows_are_not_trained_on(shards):
    base = arguments("text-generation", "flowformer", "corpus.txt", "--max_length", "40", "--test_rows", "4")
    _, data = make_pretraining(parse_arguments([*base, "--shuffle_buffer", "0"]))
    seen = [tuple(row["input_ids"]) for row in data.train]
    held_out = [tuple(row) for row in data.test["input_ids"]]
    assert len(seen) == len(SENTENCES) - 4 and not set(seen) & set(held_out)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--max_steps", "-1"], "a stream does not say where it ends: give `max_steps` beside `streaming: true`"),
        (["--labels_per_class", "3"], "`labels_per_class` draws rows of every class"),
        (["--dataset", "empty.txt"], "the training stream is empty"),
        (["--dataset", "latin.txt"], "the training stream is not UTF-8"),
        (["--dataset", "books.csv"], "a table is read whole"),
        (["--dataset", "mixed"], "reads shards of one kind"),
        (["--dataset", "holes.jsonl"], "the training stream: column `text` .* is empty in row"),
        (["--split", "validation"], "`split` is for Hub datasets"),
        (["--dataset", "shards/0.jsonl", "--block_size", "500"], "less than one block"),
        (["--student_rounds", "1"], "`student_rounds`, `guard` and `source_only`"),
        (["--streaming", "false", "--shuffle_buffer", "5"], "`shuffle_buffer` is for `streaming: true`"),
        (["--task", "offline-reinforcement-learning", "--tokenizer", "null"], "`streaming` = True would be ignored"),
    ],
)
def test_what_cannot_be_streamed_is_refused(shards, more, message):
    Path("empty.txt").write_text("\n")
    Path("latin.txt").write_bytes("caf\u00e9\n".encode("latin-1"))
    Path("books.csv").write_text("text\nfoo\n")
    Path("mixed").mkdir()
    Path("mixed/a.txt").write_text("foo\n")
    Path("mixed/b.jsonl").write_text('{"text": "foo"}\n')
    Path("holes.jsonl").write_text('{"text": "foo"}\n{"text": null}\n')
    with pytest.raises(ValueError, match=message):
        run_pretraining(parse_arguments(arguments("text-generation", "flowformer", "shards", *more)))


def test_what_is_wrong_later_is_said_with_its_place(shards, monkeypatch):
    from hf_transfer.data import prepared_streams

    monkeypatch.setattr(prepared_streams, "ROWS_AT_ONCE", 4)
    Path("late.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in [*SENTENCES[:6], None]))
    with pytest.raises(ValueError, match="the training stream: column `text` .* the number 4 in the stream"):
        run_pretraining(
            parse_arguments(arguments("text-generation", "flowformer", "late.jsonl", "--shuffle_buffer", "0"))
        )


def test_a_missing_file_is_not_asked_of_the_hub(shards):
    for name in ("nothing.jsonl", "shards/*.tar"):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            load_stream(name)


@pytest.mark.parametrize("name", ["ROWS.JSONL", "ROWS.JSONL.GZ"])
def test_a_suffix_in_capitals_is_read(tmp_path, name):
    line = b'{"text": "In the beginning"}\n'
    (tmp_path / name).write_bytes(gzip.compress(line) if name.endswith("GZ") else line)
    assert list(load_stream(str(tmp_path / name))) == list(load_stream(str(tmp_path)))
    assert next(iter(load_stream(str(tmp_path)))) == {"text": "In the beginning"}
