import pytest
import torch
import torch.nn.functional as F
from transformers import default_data_collator

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.task_adaptation.siatl import SequentialUnfreezing, SiATL, reads_ahead
from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from tests import tiny

MASK = 1


def view_of(model, progress=0.0):
    torch.manual_seed(0)
    tokens = torch.randint(2, 150, (3, 7))
    mask = torch.ones_like(tokens)
    mask[0, 5:] = 0
    outputs = model(input_ids=tokens, attention_mask=mask, output_hidden_states=True)
    states = tuple(state.float() for state in outputs.hidden_states)
    inputs = {"input_ids": tokens, "attention_mask": mask}
    return View(
        torch.zeros(3, 16), outputs.logits, progress=progress, inputs=inputs, hidden_states=states, model=model
    )


def build(model, **keywords):
    objective = SiATL(**keywords)
    objective.build(BuildContext(model, 16, 3))
    with torch.no_grad():
        objective.transform.weight.add_(0.1 * torch.randn(16, 16, generator=torch.Generator().manual_seed(1)))
        objective.bias.add_(torch.linspace(-1, 1, 200))
    return objective


@pytest.mark.parametrize("make_model", [tiny.gpt2, tiny.llama])
def test_the_next_token_against_the_formula(make_model):
    model = make_model()
    objective, view = build(model, decay=0.3), view_of(model, progress=0.5)
    loss = objective(view)
    table = model.get_input_embeddings().weight
    losses = []
    for b in range(3):
        for t in range(6):
            if view.inputs["attention_mask"][b, t + 1]:
                state = objective.transform.weight @ view.hidden_states[-1][b, t] + objective.transform.bias
                logits = table @ state + objective.bias
                losses.append(torch.logsumexp(logits, 0) - logits[view.inputs["input_ids"][b, t + 1]])
    assert len(losses) == 16
    torch.testing.assert_close(loss, 0.3**0.5 * torch.stack(losses).mean())
    loss.backward()
    assert table.grad.abs().sum() > 0, "the embeddings are tied"


def test_hidden_tokens_of_a_model_that_reads_both_ways(monkeypatch):
    """Every asked token is told from the hidden text; which were asked follows from the generator."""
    model = tiny.bert()
    objective, view = build(model, mask_token_id=MASK), view_of(model)
    torch.manual_seed(5)
    loss = objective(view)
    torch.manual_seed(5)
    tokens, real = view.inputs["input_ids"], view.inputs["attention_mask"].bool()
    asked = real & (torch.rand(3, 7) < 0.15)
    drawn, other = torch.rand(3, 7), torch.randint(200, (3, 7))
    hidden = tokens.clone()
    for b, t in asked.nonzero().tolist():
        hidden[b, t] = MASK if drawn[b, t] < 0.8 else other[b, t] if drawn[b, t] < 0.9 else tokens[b, t]
    states = model.bert(input_ids=hidden, attention_mask=view.inputs["attention_mask"]).last_hidden_state
    logits = objective.transform(states[asked]) @ model.get_input_embeddings().weight.T + objective.bias
    assert asked.any() and not asked.all()
    torch.testing.assert_close(loss, F.cross_entropy(logits, tokens[asked]))


def test_the_weight_fades():
    assert SiATL().weight == 0.2
    model = tiny.gpt2()
    objective = build(model)
    start, end = objective(view_of(model, 0.0)), objective(view_of(model, 1.0))
    torch.testing.assert_close(end, start / 2)


def test_which_models_read_ahead():
    assert reads_ahead(tiny.bert()) and not reads_ahead(tiny.gpt2()) and not reads_ahead(tiny.llama())


def test_models_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="give `mask_token_id`"):
        build(tiny.bert())
    with pytest.raises(ValueError, match="ViTForImageClassification is no encoder or decoder of tokens"):
        SiATL().build(BuildContext(tiny.vit(), 16, 10))
    with pytest.raises(ValueError, match="`decay` should be positive"):
        SiATL(decay=0)


def trainer_for(folder, rows, model, **changes):
    args = TransferConfig(
        output_dir=str(folder),
        objectives={"siatl": {} if changes.pop("causal", False) else {"mask_token_id": MASK}},
        schedules={"sequential_unfreezing": {"layers_from": 0.25, "embeddings_from": 0.5}},
        max_steps=4,
        per_device_train_batch_size=8,
        learning_rate=1e-2,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **{"save_strategy": "no", **changes},
    )
    return TransferTrainer(model, args, train_dataset=rows, data_collator=default_data_collator)


@pytest.mark.parametrize("make_model", [tiny.bert, lambda: tiny.with_lora(tiny.gpt2(), head="score")])
def test_it_trains_and_resumes_exactly(tmp_path, sentences, make_model):
    torch.manual_seed(0)
    model = make_model()
    causal = "bert" not in type(model).__name__.lower()
    straight = trainer_for(tmp_path, sentences, model, causal=causal, save_strategy="steps", save_steps=3)
    straight.train()
    assert all(log["loss_siatl"] > 0 for log in straight.state.log_history if "loss" in log)
    torch.manual_seed(0)
    resumed = trainer_for(tmp_path, sentences, make_model(), causal=causal)
    with torch.no_grad():
        for parameter in resumed.transfer_model.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    state = resumed.transfer_model.state_dict()
    for name, value in straight.transfer_model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_layers_thaw_before_embeddings():
    schedule = SequentialUnfreezing(layers_from=0.25, embeddings_from=0.5)
    frozen = [[place for place in (1, 2, 3) if schedule.is_frozen(place, 3, progress)] for progress in (0, 0.25, 0.5)]
    assert frozen == [[1, 2, 3], [3], []]
    with pytest.raises(ValueError, match=r"`layers_from` should be in \[0, 1\]"):
        SequentialUnfreezing(layers_from=2)
