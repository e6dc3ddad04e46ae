"""Every head: its loss, a gradient for every weight, saving, its Auto class, and refusing what it cannot read."""

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Trainer,
    TrainingArguments,
)

from hf_transfer.models.flowformer import (
    DecisionFlowformer,
    FlowformerForCausalLM,
    FlowformerForImageClassification,
    FlowformerForMaskedImageModeling,
    FlowformerForMaskedLM,
    FlowformerForMultipleChoice,
    FlowformerForSequenceClassification,
    FlowformerForTimeSeriesClassification,
    FlowformerForTimeSeriesPrediction,
    FlowformerForTokenClassification,
    FlowformerModel,
)
from hf_transfer.models.registration import AUTO_CLASSES, register
from tests.models.flowformer.tiny import (
    BATCH,
    CLASSES,
    HEADS_AND_MODALITIES,
    LENGTH,
    VOCABULARY,
    first_output,
    head_inputs,
    tiny_config,
    tiny_inputs,
    tiny_labels,
)

every_head = pytest.mark.parametrize(
    ("head", "modality"), HEADS_AND_MODALITIES, ids=lambda v: getattr(v, "__name__", v)
)


def head_of(head, modality, **fields):
    torch.manual_seed(0)
    return head(tiny_config(modality, **fields)).eval()


def draw_weights(model):
    """No two weights are alike, as norms and biases are before a training."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) / 10)


@every_head
def test_loss_reaches_every_weight(head, modality):
    model = head_of(head, modality)
    inputs = head_inputs(head, model.config)
    output = model(**inputs, **tiny_labels(head, model.config, inputs))
    assert output.loss.ndim == 0 and output.loss.isfinite()
    output.loss.backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
    assert (
        model(**inputs, return_dict=False)[0].shape
        == (output.loss if head is FlowformerForMaskedImageModeling else first_output(output)).shape
    )


@every_head
def test_saving_changes_nothing(head, modality, tmp_path):
    model = head_of(head, modality)
    draw_weights(model)
    model.save_pretrained(tmp_path)
    loaded, report = head.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    inputs = head_inputs(head, model.config)
    torch.testing.assert_close(first_output(loaded.eval()(**inputs)), first_output(model(**inputs)))


@every_head
def test_a_head_and_its_base_load_one_another(head, modality, tmp_path):
    model = head_of(head, modality)
    base = model.flowformer
    draw_weights(model)
    model.save_pretrained(tmp_path / "head")
    base.save_pretrained(tmp_path / "base")
    for loaded in (
        FlowformerModel.from_pretrained(tmp_path / "head"),
        head.from_pretrained(tmp_path / "base").flowformer,
    ):
        for name, tensor in base.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name


@every_head
def test_another_modality_is_refused(head, modality):
    other = "image" if modality != "image" else "text"
    with pytest.raises(ValueError, match=f"`modality='{modality}'`"):
        head(tiny_config(other))


@every_head
def test_hidden_states_are_there_when_asked(head, modality):
    model = head_of(head, modality)
    states = model(**head_inputs(head, model.config), output_hidden_states=True).hidden_states
    assert len(states) == model.config.num_hidden_layers + 1


@pytest.mark.parametrize("auto_class", AUTO_CLASSES, ids=lambda auto: auto.__name__)
def test_auto_classes_find_their_head(auto_class, tmp_path):
    register()
    expected = AUTO_CLASSES[auto_class]
    modality = expected.required_modality or "text"
    model = auto_class.from_config(tiny_config(modality))
    assert type(model) is expected
    model.save_pretrained(tmp_path)
    assert type(auto_class.from_pretrained(tmp_path)) is expected


def test_a_classifier_takes_the_encoder_of_a_masked_autoencoder(tmp_path):
    pretrained = head_of(FlowformerForMaskedImageModeling, "image")
    pretrained.save_pretrained(tmp_path)
    model, report = FlowformerForImageClassification.from_pretrained(tmp_path, num_labels=7, output_loading_info=True)
    assert set(report["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    assert model.classifier.out_features == 7
    ours, theirs = pretrained.flowformer.state_dict(), model.flowformer.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)


def test_the_masked_language_model_hands_its_encoder_on(tmp_path):
    pretrained = head_of(FlowformerForMaskedLM, "text")
    pretrained.save_pretrained(tmp_path)
    for auto in (AutoModelForCausalLM, AutoModelForSequenceClassification):
        model = auto.from_pretrained(tmp_path)
        embedding = model.get_input_embeddings().weight
        assert torch.equal(embedding, pretrained.get_input_embeddings().weight)
    assert AutoConfig.from_pretrained(tmp_path).is_causal is False
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.is_causal is True
    assert FlowformerModel.from_pretrained(tmp_path).embeddings.word_embeddings.weight.equal(embedding)


@pytest.mark.parametrize("head", [FlowformerForMaskedLM, FlowformerForCausalLM])
def test_word_embeddings_are_tied_and_resize(head, tmp_path):
    model = head_of(head, "text")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    model.resize_token_embeddings(VOCABULARY + 4)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    logits = model(torch.tensor([[VOCABULARY + 3, 1]])).logits
    assert logits.shape == (1, 2, VOCABULARY + 4)
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(
        head.from_pretrained(tmp_path).eval()(torch.tensor([[1, 2]])).logits, model(torch.tensor([[1, 2]])).logits
    )
    untied = head_of(head, "text", tie_word_embeddings=False)
    assert untied.get_output_embeddings().weight is not untied.get_input_embeddings().weight


def test_a_masked_language_model_reads_both_sides():
    with pytest.raises(ValueError, match="reads both sides"):
        FlowformerForMaskedLM(tiny_config(is_causal=True))


def test_the_classifier_reads_real_tokens():
    model = head_of(FlowformerForSequenceClassification, "text")
    ids, mask = tiny_inputs(model.config)["input_ids"], torch.ones(BATCH, LENGTH)
    mask[0, 4:] = 0
    states = model.flowformer(ids, attention_mask=mask).last_hidden_state
    expected = torch.stack((states[0, :4].mean(0), states[1].mean(0)))
    torch.testing.assert_close(model(ids, attention_mask=mask).logits, model.classifier(expected))
    last = head_of(FlowformerForSequenceClassification, "text", pooling="last", is_causal=True)
    states = last.flowformer(ids, attention_mask=mask).last_hidden_state
    expected = torch.stack((states[0, 3], states[1, -1]))
    torch.testing.assert_close(last(ids, attention_mask=mask).logits, last.classifier(expected))
    first = head_of(FlowformerForSequenceClassification, "text", pooling="first")
    mask = mask.flip(1)
    states = first.flowformer(ids, attention_mask=mask).last_hidden_state
    expected = torch.stack((states[0, -4], states[1, 0]))
    torch.testing.assert_close(first(ids, attention_mask=mask).logits, first.classifier(expected))
    torch.testing.assert_close(first(ids[1:]).logits, first.classifier(expected[1:]))


@pytest.mark.parametrize(
    ("labels", "loss"),
    [
        (torch.tensor([2, 0]), nn.functional.cross_entropy),
        (torch.rand(BATCH, CLASSES).round(), nn.functional.binary_cross_entropy_with_logits),
    ],
)
def test_classification_losses_are_the_usual_ones(labels, loss):
    for head, modality in [
        (FlowformerForSequenceClassification, "text"),
        (FlowformerForImageClassification, "image"),
        (FlowformerForTimeSeriesClassification, "time_series"),
    ]:
        model = head_of(head, modality)
        output = model(**head_inputs(head, model.config), labels=labels)
        torch.testing.assert_close(output.loss, loss(output.logits, labels))


def test_one_label_is_regression():
    model = head_of(FlowformerForTimeSeriesClassification, "time_series", num_labels=1)
    output = model(**tiny_inputs(model.config), labels=torch.tensor([0.5, -1.0]))
    torch.testing.assert_close(output.loss, nn.functional.mse_loss(output.logits[:, 0], torch.tensor([0.5, -1.0])))


def test_the_language_model_loss_counts_all_tokens_of_the_batch():
    model = head_of(FlowformerForCausalLM, "text")
    ids = tiny_inputs(model.config)["input_ids"]
    output = model(ids, labels=ids)
    expected = nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(output.loss, expected)
    tokens = ids[:, 1:].numel()
    halved = model(ids, labels=ids, num_items_in_batch=2 * tokens).loss
    torch.testing.assert_close(halved, expected / 2)


def test_multiple_choice_scores_each_candidate_on_its_own():
    model = head_of(FlowformerForMultipleChoice, "text")
    ids = head_inputs(FlowformerForMultipleChoice, model.config)["input_ids"]
    scores = model(ids, attention_mask=torch.ones_like(ids)).logits
    torch.testing.assert_close(scores[:, 1], model(ids[:, 1:2]).logits[:, 0])


class TestMaskedImageModeling:
    def model(self, **fields):
        return head_of(FlowformerForMaskedImageModeling, "image", **fields)

    def test_patches_are_cut_and_joined(self):
        model = self.model(num_channels=3)
        images = torch.randn(2, 3, 8, 8)
        patches = model.patchify(images)
        assert torch.equal(patches[0, 5].view(2, 2, 3), images[0, :, 2:4, 2:4].permute(1, 2, 0))
        assert torch.equal(model.unpatchify(patches), images)
        other = torch.randn(2, 3, 4, 12)
        assert torch.equal(model.unpatchify(model.patchify(other), (4, 12)), other)
        with pytest.raises(ValueError, match="has 16 patches, got 12"):
            model.unpatchify(model.patchify(other))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_a_convolutional_stem_takes_half_precision(self, dtype):
        model = self.model(stem="conv")
        inputs = head_inputs(FlowformerForMaskedImageModeling, model.config)
        expected = model(**inputs).loss
        loss = model.to(dtype)(**inputs).loss
        torch.testing.assert_close(loss.float(), expected, atol=0.1, rtol=0.1)

    @pytest.mark.parametrize("norm", [True, False])
    def test_the_loss_is_over_hidden_patches(self, norm):
        model = self.model(norm_pix_loss=norm)
        inputs = head_inputs(FlowformerForMaskedImageModeling, model.config)
        output = model(**inputs)
        assert output.mask.sum(1).tolist() == [12, 12]
        assert torch.equal(output.mask.bool(), inputs["noise"] > inputs["noise"].sort(1).values[:, 3:4])
        target = model.patchify(inputs["pixel_values"])
        if norm:
            target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        hidden = output.mask.bool()
        torch.testing.assert_close(output.loss, nn.functional.mse_loss(output.logits[hidden], target[hidden]))

    @pytest.mark.parametrize("stem", ["patch", "conv"])
    @pytest.mark.parametrize("positions", ["learned", "rotary", "sinusoidal"])
    def test_the_encoder_never_sees_a_hidden_pixel(self, stem, positions):
        model = self.model(stem=stem, position_embedding_type=positions, num_attention_heads=2)
        inputs = head_inputs(FlowformerForMaskedImageModeling, model.config)
        output = model(**inputs)
        hidden = model.unpatchify(output.mask[..., None].expand(-1, -1, 4))
        changed = inputs["pixel_values"] + 10 * hidden
        torch.testing.assert_close(model(changed, noise=inputs["noise"]).logits, output.logits)
        assert not torch.allclose(
            model(inputs["pixel_values"] + 1 - hidden, noise=inputs["noise"]).logits, output.logits
        )

    def test_chosen_patches_are_hidden(self):
        model = self.model()
        hidden = torch.zeros(2, 16, dtype=torch.bool)
        hidden[0, :5] = hidden[1, 7:12] = True
        output = model(torch.randn(2, 1, 8, 8), bool_masked_pos=hidden)
        assert torch.equal(output.mask.bool(), hidden)
        with pytest.raises(ValueError, match="same number of patches"):
            model(torch.randn(2, 1, 8, 8), bool_masked_pos=hidden.index_fill(1, torch.tensor([0]), True))
        with pytest.raises(ValueError, match="of shape"):
            model(torch.randn(2, 1, 8, 8), noise=torch.rand(2, 15))

    def test_each_forward_hides_other_patches(self):
        model, images = self.model(), torch.randn(2, 1, 8, 8)
        assert not torch.equal(model(images).mask, model(images).mask)

    def test_another_image_size_interpolates_when_asked(self):
        model, images = self.model(), torch.randn(2, 1, 8, 12)
        with pytest.raises(ValueError, match="doesn't match model"):
            model(images)
        output = model(images, interpolate_pos_encoding=True)
        assert output.logits.shape == (2, 24, 4) and output.mask.sum(1).tolist() == [18, 18]
        assert output.loss.isfinite()

    def test_a_pyramid_cannot_drop_patches(self):
        with pytest.raises(ValueError, match="full grid"):
            self.model(hidden_sizes=[8, 16], depths=[1, 1])


class TestTimeSeries:
    def test_flattened_sequences_zero_their_padding(self):
        options = {"pooling": "flatten", "max_position_embeddings": 10}
        model = head_of(FlowformerForTimeSeriesClassification, "time_series", **options)
        values = tiny_inputs(model.config)["past_values"]
        assert model.classifier.in_features == 10 * 16
        padded = torch.cat((values, torch.full((BATCH, 2, 3), 8.0)), dim=1)
        mask = torch.cat((torch.ones(BATCH, LENGTH), torch.zeros(BATCH, 2)), dim=1)
        torch.testing.assert_close(model(padded, attention_mask=mask).logits, model(values).logits)
        # and so does padding in front, which would move the steps
        padded = torch.cat((torch.full((BATCH, 2, 3), 8.0), values), dim=1)
        torch.testing.assert_close(model(padded, attention_mask=mask.flip(1)).logits, model(values).logits)
        with pytest.raises(ValueError, match="max_position_embeddings"):
            model(torch.randn(1, 11, 3))

    def test_prediction_follows_the_scale_of_each_series(self):
        model = head_of(FlowformerForTimeSeriesPrediction, "time_series")
        values = tiny_inputs(model.config)["past_values"]
        prediction = model(values).prediction_outputs
        assert prediction.shape == (BATCH, 4, 3)
        moved = model(values * 100 + 7).prediction_outputs
        torch.testing.assert_close(moved, prediction * 100 + 7, atol=1e-2, rtol=1e-3)
        raw = head_of(FlowformerForTimeSeriesPrediction, "time_series", scale_inputs=False)
        assert not torch.allclose(raw(values * 100 + 7).prediction_outputs, raw(values).prediction_outputs * 100 + 7)
        with pytest.raises(ValueError, match="future_values"):
            model(values, future_values=torch.ones(BATCH, 5, 3))

    def test_prediction_ignores_padding(self):
        model = head_of(FlowformerForTimeSeriesPrediction, "time_series", position_embedding_type="rotary")
        values = tiny_inputs(model.config)["past_values"]
        padded = torch.cat((torch.full((BATCH, 2, 3), float("nan")), values), dim=1)
        mask = torch.cat((torch.zeros(BATCH, 2), torch.ones(BATCH, LENGTH)), dim=1)
        torch.testing.assert_close(
            model(padded, attention_mask=mask).prediction_outputs,
            model(values).prediction_outputs,
            atol=1e-5,
            rtol=1e-4,
        )

    @pytest.mark.parametrize("head", [FlowformerForTimeSeriesPrediction, FlowformerForTimeSeriesClassification])
    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({"past_values": torch.ones(2, 0, 3)}, "empty"),
            ({"past_values": torch.ones(0, 4, 3)}, "empty"),
            ({"past_values": torch.full((2, 4, 3), torch.nan)}, "NaN"),
            ({"past_values": torch.ones(2, 4, 3), "attention_mask": torch.ones(2, 5)}, "attention_mask"),
            ({"past_values": torch.ones(2, 4)}, "num_input_channels"),
        ],
        ids=["no-step", "no-series", "nan", "mask", "two-dimensions"],
    )
    def test_bad_input_is_refused(self, head, inputs, message):
        with pytest.raises(ValueError, match=message):
            head_of(head, "time_series")(**inputs)

    def test_prediction_learns_a_sine(self):
        torch.manual_seed(0)
        config = tiny_config("time_series", num_input_channels=1, feature_map="relu")
        model = FlowformerForTimeSeriesPrediction(config)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(100):
            phase = torch.rand(32, 1, 1) * 6.28
            wave = torch.sin(0.5 * torch.arange(16.0)[None, :, None] + phase)
            loss = model(wave[:, :12], future_values=wave[:, 12:]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss.item() < 0.35, "the mean of the past alone gives 1"


class TestDecision:
    def model(self, **fields):
        return head_of(DecisionFlowformer, "trajectory", **fields)

    def test_an_action_depends_on_the_past_and_the_present_state_only(self):
        model = self.model()
        inputs = tiny_inputs(model.config)
        before = model(**inputs).action_preds
        for name, step_seen in (("actions", 4), ("states", 3), ("returns_to_go", 3)):
            changed = {**inputs, name: inputs[name].clone()}
            changed[name][:, 3] += 1
            after = model(**changed).action_preds
            torch.testing.assert_close(after[:, :step_seen], before[:, :step_seen])
            assert not torch.allclose(after[:, step_seen:], before[:, step_seen:], atol=1e-4)

    def test_losses_over_real_steps(self):
        inputs = tiny_inputs(tiny_config("trajectory"))
        mask = torch.ones(BATCH, LENGTH)
        mask[0, :3] = 0
        for discrete in (False, True):
            model = self.model(discrete_actions=discrete)
            labels = nn.functional.one_hot(torch.arange(LENGTH) % 2, 2).float().expand(BATCH, -1, -1)
            output = model(**inputs, attention_mask=mask, labels=labels)
            real = mask.bool()
            prediction, target = output.action_preds[real], labels[real]
            loss = nn.functional.cross_entropy if discrete else nn.functional.mse_loss
            torch.testing.assert_close(output.loss, loss(prediction, target))
        with pytest.raises(ValueError, match="labels"):
            model(**inputs, labels=labels[:, :2])

    def test_actions_are_bounded_unless_asked(self):
        inputs = tiny_inputs(tiny_config("trajectory"))
        model, free = self.model(), self.model(action_tanh=False)
        torch.testing.assert_close(model(**inputs).action_preds, free(**inputs).action_preds.tanh())


def test_a_causal_head_leaves_the_users_configuration_alone():
    config = tiny_config()
    assert FlowformerForCausalLM(config).config.is_causal is True
    assert config.is_causal is False


def test_labels_may_come_shifted():
    model = head_of(FlowformerForCausalLM, "text")
    ids = tiny_inputs(model.config)["input_ids"]
    shifted = nn.functional.pad(ids[:, 1:], (0, 1), value=-100)
    for labels in (None, ids):
        torch.testing.assert_close(model(ids, labels=labels, shift_labels=shifted).loss, model(ids, labels=ids).loss)
    assert model(ids, labels=ids, shift_labels=shifted.roll(1, 1)).loss != model(ids, labels=ids).loss


@pytest.mark.parametrize("head", [FlowformerForTokenClassification])
def test_ignored_labels_do_not_count(head):
    model = head_of(head, "text")
    ids = tiny_inputs(model.config)["input_ids"]
    labels = ids % CLASSES
    labels[:, 3:] = -100
    output = model(ids, labels=labels)
    torch.testing.assert_close(
        output.loss, nn.functional.cross_entropy(output.logits[:, :3].flatten(0, 1), labels[:, :3].flatten())
    )


def test_the_trainer_smooths_labels_of_the_next_token(tmp_path):
    model = head_of(FlowformerForCausalLM, "text")
    ids = tiny_inputs(model.config)["input_ids"]
    arguments = TrainingArguments(tmp_path, label_smoothing_factor=1e-7, use_cpu=True, report_to=[])
    smoothed = Trainer(model, arguments).compute_loss(model, {"input_ids": ids, "labels": ids.clone()})
    torch.testing.assert_close(smoothed, model(ids, labels=ids).loss)
