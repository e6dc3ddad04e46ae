"""Documents packed into one row give what each gives alone, under flow attention and under softmax."""

import pytest
import torch
from torch import nn
from transformers import DataCollatorWithFlattening, DynamicCache, Trainer, TrainingArguments

from hf_transfer.models.flowformer import (
    DecisionFlowformer,
    FlowformerForCausalLM,
    FlowformerForMaskedLM,
    FlowformerForMultipleChoice,
    FlowformerForQuestionAnswering,
    FlowformerForSequenceClassification,
    FlowformerForTimeSeriesClassification,
    FlowformerForTimeSeriesPrediction,
    FlowformerForTokenClassification,
    FlowformerModel,
)
from hf_transfer.models.flowformer.packing_flowformer import find_documents, positions_in_documents
from tests.models.flowformer.tiny import tiny_config, tiny_inputs

LENGTHS = (5, 1, 9, 3)
DOCUMENTS = [torch.randint(1, 31, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in LENGTHS]
WAYS = {
    "positions": {},
    "bounds": {"return_position_ids": False, "return_flash_attn_kwargs": True},
    "indices": {"return_position_ids": False, "return_seq_idx": True},
    "all": {"return_flash_attn_kwargs": True, "return_seq_idx": True},
}
ATTENTIONS = ["flow", "sdpa", "eager"]


def model_of(head, modality="text", **fields):
    torch.manual_seed(0)
    fields = {"linear_initializer_range": 0.3, "initializer_range": 0.3, "tie_word_embeddings": False, **fields}
    return head(tiny_config(modality, **fields)).eval()


def packed(way: str = "positions") -> dict:
    return dict(DataCollatorWithFlattening(**WAYS[way])([{"input_ids": ids} for ids in DOCUMENTS]))


def alone(model, **options) -> torch.Tensor:
    return torch.cat([model(torch.tensor([ids]), **options).logits for ids in DOCUMENTS], dim=1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("head", [FlowformerForCausalLM, FlowformerForMaskedLM, FlowformerForTokenClassification])
def test_packed_documents_are_those_alone(head, attention, way):
    model = model_of(head, attn_implementation=attention)
    batch = packed(way)
    batch.pop("labels")
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, alone(model), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["flow", "sdpa"])
@pytest.mark.parametrize("positions", ["rotary", "sinusoidal"])
@pytest.mark.parametrize("head", [FlowformerForCausalLM, FlowformerForMaskedLM])
def test_loss_and_gradient_are_those_of_the_documents_alone(head, positions, attention):
    options = {"attn_implementation": attention, "position_embedding_type": positions}
    model, twin = (model_of(head, **options) for _ in range(2))
    batch = packed()
    output = model(**batch)
    logits = alone(twin, use_cache=False)
    labels = (
        batch["labels"]
        if head is FlowformerForMaskedLM
        else nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=-100)
    )
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(output.loss, loss, atol=1e-5, rtol=1e-5)
    output.loss.backward()
    loss.backward()
    for (name, weight), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, other.grad, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("attention", ["flow", "sdpa"])
@pytest.mark.parametrize("causal", [False, True])
def test_rows_of_several_documents_with_padding(causal, attention):
    """Two rows, documents of other lengths in each, padding between and behind them."""
    model = model_of(FlowformerForTokenClassification, is_causal=causal, attn_implementation=attention)
    first, second, third, _ = (torch.tensor(ids) for ids in DOCUMENTS)
    ids, mask, positions = torch.full((2, 12), 7), torch.zeros(2, 12, dtype=torch.long), torch.zeros(2, 12, dtype=int)
    for row, start, document in ((0, 0, first), (0, 5, second), (0, 8, first), (1, 0, third), (1, 9, second)):
        document = document[: 12 - start]
        part = slice(start, start + len(document))
        ids[row, part], mask[row, part], positions[row, part] = document, 1, torch.arange(len(document))
    seq_idx = torch.tensor([[0] * 5 + [1] * 3 + [2] * 4, [0] * 9 + [1] * 3])
    with torch.no_grad():
        for given in ({"position_ids": positions, "seq_idx": seq_idx}, {"seq_idx": seq_idx}):
            logits = model(ids, attention_mask=mask, **given).logits
            for row, start, document in (
                (0, 0, first),
                (0, 5, second),
                (0, 8, first[:4]),
                (1, 0, third),
                (1, 9, second),
            ):
                expected = model(document[None]).logits[0]
                torch.testing.assert_close(logits[row, start : start + len(document)], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["flow", "sdpa"])
def test_two_episodes_in_a_row(attention):
    model = model_of(DecisionFlowformer, "trajectory", attn_implementation=attention)
    one, two = (tiny_inputs(model.config, batch=1, length=4, seed=seed) for seed in (0, 1))
    both = {name: torch.cat((one[name], two[name]), dim=1) for name in one}
    expected = torch.cat([model(**episode).action_preds for episode in (one, two)], dim=1)
    output = model(**both, position_ids=torch.tensor([[0, 1, 2, 3] * 2])).action_preds
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(model(**both).action_preds, expected, atol=1e-3)


def test_hidden_states_and_checkpointing_keep_the_packed_row():
    batch = packed("all")
    model = model_of(FlowformerForCausalLM)
    assert {tuple(states.shape) for states in model(**batch, output_hidden_states=True).hidden_states} == {(1, 18, 16)}
    plain = model(**batch).loss
    model.train().gradient_checkpointing_enable()
    torch.testing.assert_close(model(**batch).loss, plain)


def test_a_document_of_its_own_is_not_packed():
    positions = torch.tensor([[0, 1, 2, 5, 9]])
    assert find_documents((1, 5), positions, None, None, None, None) is None
    padding = torch.tensor([[False, False, True, True, True]])
    assert find_documents((1, 5), torch.tensor([[0, 0, 0, 1, 2]]), None, None, None, padding) is None
    assert find_documents((1, 1), positions[:, :1], None, None, None, None) is None
    assert find_documents((1, 5), None, None, torch.tensor([0, 5]), None, None) is None


def test_positions():
    documents = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    mask = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1]], dtype=torch.bool)
    assert positions_in_documents(documents, None).tolist() == [[0, 1, 0, 1], [0, 0, 1, 2]]
    assert positions_in_documents(documents, mask).tolist() == [[0, 1, 0, 0], [0, 0, 1, 2]]


TEXT = {"input_ids": torch.ones(1, 6, dtype=torch.long), "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2]])}
SERIES = {"past_values": torch.ones(1, 6, 3), "position_ids": TEXT["position_ids"]}
ONE_DOCUMENT_A_ROW = [
    (FlowformerForSequenceClassification, "text", TEXT),
    (FlowformerForQuestionAnswering, "text", TEXT),
    (FlowformerForMultipleChoice, "text", {name: tensor[None] for name, tensor in TEXT.items()}),
    (FlowformerForTimeSeriesClassification, "time_series", SERIES),
    (FlowformerForTimeSeriesPrediction, "time_series", {**SERIES, "position_ids": torch.arange(10)[None] % 5}),
]


@pytest.mark.parametrize(
    ("head", "modality", "inputs"), ONE_DOCUMENT_A_ROW, ids=lambda value: getattr(value, "__name__", "")
)
def test_heads_that_pool_a_row_refuse_several_documents(head, modality, inputs):
    with pytest.raises(ValueError, match="reads a row as one document"):
        model_of(head, modality)(**inputs)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"cu_seq_lens_q": torch.tensor([0, 3, 5])}, "from 0 to the length"),
        ({"cu_seq_lens_q": torch.tensor([0, 4, 3, 6])}, "from 0 to the length"),
        ({"cu_seq_lens_q": torch.tensor([0, 3, 6]), "cu_seq_lens_k": torch.tensor([0, 2, 6])}, "should be equal"),
        ({"seq_idx": torch.zeros(1, 5)}, "`seq_idx` should be"),
        ({"position_ids": TEXT["position_ids"], "past_key_values": DynamicCache()}, "no common past"),
    ],
    ids=["short", "falling", "unequal", "seq_idx", "cache"],
)
def test_bounds_that_do_not_fit_are_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        model_of(FlowformerForCausalLM)(TEXT["input_ids"], **inputs)


def test_an_image_has_no_documents():
    model = model_of(FlowformerModel, "image")
    with pytest.raises(ValueError, match="one sequence of patches"):
        model(**tiny_inputs(model.config), position_ids=torch.arange(16)[None])


class Rows(torch.utils.data.Dataset):
    """The documents; with labels of their own, as a padding collator needs them."""

    def __init__(self, labelled: bool):
        self.labelled = labelled

    def __len__(self):
        return len(DOCUMENTS)

    def __getitem__(self, index):
        ids = DOCUMENTS[index]
        # a flattened row does not predict first tokens; a padded one has none before it to predict
        return {"input_ids": ids, "labels": [-100, *ids[1:]]} if self.labelled else {"input_ids": ids}


def pad(rows):
    def join(sequences, fill):
        return nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in sequences], True, fill)

    batch = {name: join([row[name] for row in rows], fill) for name, fill in (("input_ids", 0), ("labels", -100))}
    return {**batch, "attention_mask": join([[1] * len(row["input_ids"]) for row in rows], 0)}


@pytest.mark.parametrize("layers", ["flow", "sdpa"])
def test_a_trainer_without_padding_equals_one_with_it(layers, tmp_path):
    weights, losses = [], []
    for labelled, collator in ((True, pad), (False, DataCollatorWithFlattening())):
        model = model_of(FlowformerForCausalLM, attn_implementation=layers)
        settings = {"max_steps": 4, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
        settings |= {"learning_rate": 1e-2, "optim": "sgd", "report_to": [], "use_cpu": True, "save_strategy": "no"}
        arguments = TrainingArguments(str(tmp_path), logging_steps=1, disable_tqdm=True, max_grad_norm=0, **settings)
        trainer = Trainer(model, arguments, train_dataset=Rows(labelled), data_collator=collator)
        trainer.train()
        weights.append(list(model.parameters()))
        losses.append([row["loss"] for row in trainer.state.log_history if "loss" in row])
    torch.testing.assert_close(losses[0], losses[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights[0], weights[1], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_compiled_graph_refuses_packed_documents():
    model = model_of(FlowformerForTokenClassification)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    ids = torch.ones(1, 6, dtype=torch.long)
    plain = compiled(ids, position_ids=torch.arange(6)[None]).logits
    torch.testing.assert_close(plain, model(ids).logits)
    with pytest.raises(RuntimeError, match="cannot be compiled"):
        compiled(ids, position_ids=TEXT["position_ids"])
    torch._dynamo.reset()
