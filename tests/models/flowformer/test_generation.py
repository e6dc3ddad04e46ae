"""generate() with the constant-size state equals generate() without a cache, in every mode."""

import shutil

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import DynamicCache, StaticCache
from transformers.generation.streamers import BaseStreamer

from hf_transfer.models.flowformer import FlowformerForCausalLM
from tests.models.flowformer.tiny import tiny_config

NEW = 6
MODES = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "top_k": 5, "temperature": 0.8},
    "beam": {"num_beams": 3, "do_sample": False},
    "beam-return-2": {"num_beams": 4, "num_return_sequences": 2, "do_sample": False},
    "sample-return-3": {"do_sample": True, "num_return_sequences": 3},
    "penalty": {"do_sample": False, "repetition_penalty": 1.3},
    "guidance": {"do_sample": False, "guidance_scale": 1.5},
    "prefill-in-chunks": {"do_sample": False, "prefill_chunk_size": 2},
}


def causal_model(implementation: str = "flow", positions: str = "learned") -> FlowformerForCausalLM:
    torch.manual_seed(0)
    config = tiny_config(
        attn_implementation=implementation,
        position_embedding_type=positions,
        tie_word_embeddings=False,
        linear_initializer_range=0.6,
        initializer_range=0.5,
    )
    return FlowformerForCausalLM(config).eval()


def prompt(batch: int = 3, length: int = 5) -> torch.Tensor:
    return torch.randint(1, 31, (batch, length), generator=torch.Generator().manual_seed(1))


def generate(model, seed: int = 0, **kwargs):
    torch.manual_seed(seed)
    return model.generate(**{"max_new_tokens": NEW, "min_new_tokens": NEW, "pad_token_id": 0, **kwargs})


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("mode", MODES, ids=list(MODES))
def test_cached_equals_uncached(mode, positions):
    model = causal_model(positions=positions)
    options = MODES[mode]
    cached = generate(model, inputs=prompt(), **options)
    uncached = {name: value for name, value in options.items() if name != "prefill_chunk_size"}
    assert torch.equal(cached, generate(model, inputs=prompt(), use_cache=False, **uncached))
    assert cached[:, 5:].unique().numel() > 2, "a constant output would prove nothing"


@pytest.mark.parametrize("implementation", ["flow", "sdpa"])
def test_left_padding_changes_no_row(implementation):
    model, ids = causal_model(implementation), prompt()
    padded = torch.zeros(3, 8, dtype=torch.long)
    mask = torch.zeros(3, 8, dtype=torch.long)
    for row, length in enumerate((5, 3, 4)):
        padded[row, -length:] = ids[row, :length]
        mask[row, -length:] = 1
    together = generate(model, inputs=padded, attention_mask=mask, do_sample=False)
    for row, length in enumerate((5, 3, 4)):
        alone = generate(model, inputs=ids[row : row + 1, :length], do_sample=False)
        assert torch.equal(together[row, 8:], alone[0, length:])


def test_a_conversation_continues_from_the_cache():
    model = causal_model()
    first = generate(model, inputs=prompt(), do_sample=False, return_dict_in_generate=True)
    longer = torch.cat((first.sequences, prompt(3, 4)), dim=1)
    continued = generate(model, inputs=longer, past_key_values=first.past_key_values, do_sample=False)
    assert torch.equal(continued, generate(model, inputs=longer, do_sample=False))


def test_a_padded_conversation_continues_with_or_without_its_mask():
    model, ids = causal_model(), prompt(2, 6)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    with torch.no_grad():
        whole = model(ids, attention_mask=mask, use_cache=False).logits
        for split in (3, 5):
            cache = model(ids[:, :split], attention_mask=mask[:, :split], use_cache=True).past_key_values
            rest = model(ids[:, split:], past_key_values=cache, attention_mask=mask).logits
            torch.testing.assert_close(rest, whole[:, split:], atol=1e-4, rtol=1e-4)
        cache = model(ids[:, :3], attention_mask=mask[:, :3], use_cache=True).past_key_values
        rest = model(ids[:, 3:], past_key_values=cache).logits
        torch.testing.assert_close(rest, whole[:, 3:], atol=1e-4, rtol=1e-4)


def test_one_token_at_a_time_equals_the_whole_sequence():
    model, ids = causal_model(), prompt(2, 20)
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        steps = [model(ids[:, step : step + 1], past_key_values=cache).logits for step in range(20)]
        torch.testing.assert_close(torch.cat(steps, 1), model(ids, use_cache=False).logits, atol=1e-5, rtol=1e-4)


def test_a_static_cache_works():
    model = causal_model()
    by_name = generate(model, inputs=prompt(), do_sample=False, cache_implementation="static")
    assert torch.equal(by_name, generate(model, inputs=prompt(), do_sample=False))
    cache = StaticCache(config=model.config, max_cache_len=32)
    assert torch.equal(by_name, generate(model, inputs=prompt(), do_sample=False, past_key_values=cache))


@pytest.mark.parametrize("padded", [False, True])
def test_a_static_cache_works_for_the_softmax_twin(padded):
    model, ids = causal_model("sdpa"), prompt()
    options = {"do_sample": False}
    if padded:
        options["attention_mask"] = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1]])
    expected = generate(model, inputs=ids, **options)
    assert torch.equal(generate(model, inputs=ids, cache_implementation="static", **options), expected)


def test_generation_from_embeddings():
    model = causal_model()
    embeddings = model.get_input_embeddings()(prompt())
    from_ids = generate(model, inputs=prompt(), do_sample=False)
    assert torch.equal(generate(model, inputs_embeds=embeddings, do_sample=False), from_ids[:, 5:])


@pytest.mark.parametrize("how", ["assistant_model", "prompt_lookup_num_tokens"])
def test_assisted_decoding_is_refused(how):
    options = {how: causal_model() if how == "assistant_model" else 2}
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        generate(causal_model(), inputs=prompt(1), **options)


@pytest.mark.parametrize("how", ["assistant_model", "prompt_lookup_num_tokens"])
def test_the_softmax_twin_decodes_with_assistance(how):
    # another model than its assistant, so that some proposals are refused and taken out of the cache
    model, assistant = causal_model("sdpa"), causal_model("sdpa", "rotary")
    options = {how: assistant if how == "assistant_model" else 2}
    alone = generate(model, inputs=prompt(1), do_sample=False)
    assert torch.equal(generate(model, inputs=prompt(1), do_sample=False, **options), alone)


def test_a_quantized_cache_is_refused():
    with pytest.raises((ValueError, ImportError)):
        generate(causal_model(), inputs=prompt(), cache_implementation="quantized")


class TokenCounter(BaseStreamer):
    def __init__(self):
        self.count = 0

    def put(self, value):
        self.count += value.numel()

    def end(self):
        self.count += 0


def test_streaming():
    streamer = TokenCounter()
    generate(causal_model(), inputs=prompt(1), do_sample=False, streamer=streamer)
    assert streamer.count == 5 + NEW


def test_only_the_last_logits_are_computed_when_asked():
    model = causal_model()
    logits = model(prompt()).logits
    torch.testing.assert_close(model(prompt(), logits_to_keep=2).logits, logits[:, -2:])
    torch.testing.assert_close(model(prompt(), logits_to_keep=torch.tensor([0, 3])).logits, logits[:, [0, 3]])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile generates C++ on a CPU")
def test_the_code_generated_for_a_decoding_step_is_right():
    """One graph for all steps, which writes the state where it stands."""
    torch.manual_seed(0)
    model = FlowformerForCausalLM(tiny_config(num_hidden_layers=1)).eval()
    ids = torch.randint(1, 31, (2, 9))
    plain, compiled = (StaticCache(config=model.config, max_cache_len=32) for _ in range(2))
    torch.compiler.reset()
    graphs = CompileCounterWithBackend("inductor")
    step = torch.compile(model.forward, fullgraph=True, backend=graphs)
    with torch.no_grad():
        for cache in (plain, compiled):
            model(ids, past_key_values=cache)
        addresses = [tensor.data_ptr() for tensor in compiled.layers[0].state]
        for token in ids.T[:4, :, None]:
            expected = model(token, past_key_values=plain).logits
            torch.testing.assert_close(step(token, past_key_values=compiled).logits, expected, atol=1e-5, rtol=1e-4)
    assert graphs.frame_count == 1
    assert [tensor.data_ptr() for tensor in compiled.layers[0].state] == addresses
    assert compiled.get_seq_length() == plain.get_seq_length() == 13
    torch.compiler.reset()
