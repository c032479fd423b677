"""``config.json`` to and from the decoder's configuration."""

from dataclasses import asdict, replace

import pytest
from described import described
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from immunax.models import hf_config
from immunax.models.config import DecoderConfig, RopeScaling
from immunax.models.families import FAMILIES
from immunax.runtime.errors import UserError

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "hidden_act": "silu",
}
SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
QWEN3 = {
    **LLAMA,
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "num_key_value_heads": 2,
    "head_dim": 16,
}
GEMMA2 = {
    **{name: value for name, value in QWEN3.items() if name != "hidden_act"},
    "model_type": "gemma2",
    "architectures": ["Gemma2ForCausalLM"],
    "hidden_activation": "gelu_pytorch_tanh",
}


def parse(raw: dict) -> DecoderConfig:
    return hf_config.parse_config(raw, "config.json")


def test_what_a_config_leaves_out_is_llamas_default():
    config = parse(LLAMA)
    assert (config.n_kv_heads, config.head_dim, config.rope_theta, config.norm_eps) == (4, 8, 10000.0, 1e-6)
    assert config.rope_scaling is None
    assert not config.tie_embeddings


def test_both_spellings_of_llama_3_scaling_are_read_alike():
    old = parse({**LLAMA, "rope_theta": 500000.0, "rope_scaling": SCALING})
    new = parse({**LLAMA, "rope_parameters": {**SCALING, "rope_theta": 500000.0}})
    assert old == new
    assert old.rope_theta == 500000.0
    assert old.rope_scaling == RopeScaling("llama3", 8.0, 1.0, 4.0, 8192)


def test_linear_scaling_is_read_under_its_oldest_name():
    assert parse({**LLAMA, "rope_scaling": {"type": "linear", "factor": 2.0}}).rope_scaling == RopeScaling(
        "linear", 2.0
    )


def test_qwen_2_has_biases_and_qwen_3_has_head_norms():
    qwen2 = parse({**QWEN3, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]})
    assert (qwen2.qkv_bias, qwen2.qk_norm) == (True, False)
    qwen3 = parse(QWEN3)
    assert (qwen3.qkv_bias, qwen3.qk_norm, qwen3.head_dim) == (False, True, 16)


@pytest.mark.parametrize(
    ("fields", "window"),
    [({}, 4096), ({"sliding_window": None}, None), ({"sliding_window": 7}, 7)],
)
def test_mistral_has_the_window_of_its_first_version_unless_told_otherwise(fields, window):
    mistral = {**LLAMA, "model_type": "mistral", "architectures": ["MistralForCausalLM"], "num_key_value_heads": 2}
    assert parse({**mistral, **fields}).sliding_window == window


@pytest.mark.parametrize(
    ("fields", "window"),
    [
        ({"use_sliding_window": False, "sliding_window": 7}, None),
        ({"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 0}, 7),
        ({"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 3}, None),
        ({"use_sliding_window": True, "sliding_window": 7, "layer_types": ["sliding_attention"] * 3}, 7),
    ],
)
def test_a_qwen_window_counts_when_it_is_used(fields, window):
    assert parse({**QWEN3, **fields}).sliding_window == window


@pytest.mark.parametrize(
    ("raw", "windowed"),
    [
        ({**QWEN3, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}, (False, True, True)),
        ({**GEMMA2, "num_hidden_layers": 5}, (True, False)),
        ({**GEMMA2, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]}, (True, True, False)),
        ({**GEMMA2, "layer_types": ["sliding_attention"] * 3}, (True,)),
    ],
)
def test_windows_are_read_layer_by_layer(raw, windowed):
    config = parse(raw)
    assert config.sliding_window == raw.get("sliding_window", 4096)
    assert config.windowed == windowed


def test_a_decoder_described_in_yaml_is_the_one_of_its_config():
    config = parse(GEMMA2)
    made = described({"_target_": "immunax.models.config.DecoderConfig", **asdict(config)})
    assert made == config
    assert hash(made) == hash(config)


def test_olmo_2_and_gemma_2_are_what_their_papers_say():
    olmo2 = parse({**LLAMA, "model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"]})
    assert (olmo2.pre_norm, olmo2.post_norm, olmo2.qk_norm, olmo2.joint_qk_norm) == (False, True, True, True)
    assert (olmo2.n_kv_heads, olmo2.head_dim) == (4, 8)
    gemma2 = parse(GEMMA2)
    assert (gemma2.pre_norm, gemma2.post_norm, gemma2.norm_offset, gemma2.scale_embeddings) == (True, True, 1.0, True)
    assert (gemma2.attention_cap, gemma2.logit_cap, gemma2.query_pre_attn_scalar) == (50.0, 30.0, 256)
    assert (gemma2.activation, gemma2.tie_embeddings, gemma2.head_dim) == ("gelu_tanh", True, 16)
    uncapped = parse({**GEMMA2, "attn_logit_softcapping": None, "sliding_window": None})
    assert (uncapped.attention_cap, uncapped.sliding_window) == (None, None)


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({**LLAMA, "model_type": "lama"}, "'lama'.*Did you mean 'llama'"),
        ({**LLAMA, "model_type": None}, "model_type None"),
        ({**LLAMA, "architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({**LLAMA, "hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({**LLAMA, "attention_bias": True}, "attention_bias"),
        ({**LLAMA, "mlp_bias": True}, "mlp_bias"),
        ({**LLAMA, "quantization_config": {"quant_method": "gptq"}}, "quantization_config 'gptq'"),
        ({**LLAMA, "transformers_weights": "sub/other.safetensors"}, "transformers_weights.*delete it"),
        ({**LLAMA, "partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({**LLAMA, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "'yarn'.*llama3"),
        ({**LLAMA, "rope_scaling": {"rope_type": "llama3", "factor": 4.0}}, "low_freq_factor"),
        ({**LLAMA, "rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "one set for all layers"),
        ({**LLAMA, "hidden_size": None}, "hidden_size is None"),
        ({**LLAMA, "vocab_size": "100"}, "vocab_size is '100'"),
        ({**LLAMA, "num_key_value_heads": 3}, "3 key/value heads"),
        ({**QWEN3, "head_dim": None}, "head_dim is None"),
        ({**QWEN3, "use_sliding_window": True, "sliding_window": 7, "layer_types": ["chunked"] * 3}, "layer_types"),
        ({**GEMMA2, "layer_types": ["full_attention"] * 2}, "layer_types.*for each layer"),
        ({**GEMMA2, "hidden_activation": "gelu"}, "hidden_activation 'gelu'"),
        ({**GEMMA2, "use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({**GEMMA2, "attn_logit_softcapping": 0.0}, "attn_logit_softcapping is 0.0"),
    ],
)
def test_a_variant_that_is_not_supported_is_refused_by_name(raw, named):
    with pytest.raises(UserError, match=named) as caught:
        parse(raw)
    assert "\n" not in str(caught.value)


@st.composite
def decoders(draw) -> DecoderConfig:
    family = draw(st.sampled_from(sorted(FAMILIES)))
    scaling = draw(
        st.none()
        | st.builds(RopeScaling, st.just("linear"), st.floats(1, 8))
        | st.builds(
            RopeScaling, st.just("llama3"), st.floats(1, 32), st.just(1.0), st.floats(2, 8), st.integers(16, 8192)
        )
    )
    kv, group, half = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 8))
    window = None if family in ("llama", "olmo2") else draw(st.none() | st.integers(1, 50))
    given: dict = {**FAMILIES[family].fixed, "sliding_window": window}
    if family == "gemma2":
        cap = st.none() | st.floats(1, 60)
        given |= {
            "attention_cap": draw(cap),
            "logit_cap": draw(cap),
            "query_pre_attn_scalar": draw(st.integers(1, 300)),
        }
    if window is not None and family in ("qwen2", "qwen3", "gemma2"):
        given["windowed"] = draw(st.sampled_from([(True,), (True, False), (False, True, True)]))
    return DecoderConfig(
        family,
        vocab_size=draw(st.integers(1, 200)),
        d_model=draw(st.integers(32, 64)),
        d_ff=draw(st.integers(1, 64)),
        n_layers=draw(st.integers(3, 6)),
        n_heads=kv * group,
        n_kv_heads=kv,
        head_dim=2 * half,
        max_positions=draw(st.integers(1, 100)),
        rope_theta=draw(st.floats(1, 1e6)),
        rope_scaling=scaling,
        norm_eps=draw(st.floats(1e-8, 1e-2)),
        tie_embeddings=draw(st.booleans()),
        **given,
    )


@given(decoders())
def test_a_config_that_was_written_is_read_back(config):
    assert parse(hf_config.build_config(config, {"bos_token_id": 1})) == config


@settings(max_examples=30, deadline=None)
@given(decoders())
def test_transformers_computes_the_same_decoder_from_a_written_config(config):
    width = config.d_model - config.d_model % config.n_heads  # transformers insists on it
    config = replace(config, d_model=width)
    assert parse(AutoConfig.for_model(**hf_config.build_config(config, {"bos_token_id": 0})).to_dict()) == config


def test_transformers_reads_a_written_config_as_we_do():
    config = parse(
        {**LLAMA, "rope_theta": 500000.0, "rope_scaling": {**SCALING, "original_max_position_embeddings": 32}}
    )
    raw = hf_config.build_config(config, {"bos_token_id": 1, "eos_token_id": 2})
    theirs = AutoConfig.for_model(**raw).to_dict()
    assert theirs["architectures"] == ["LlamaForCausalLM"]
    assert (theirs["bos_token_id"], theirs["eos_token_id"]) == (1, 2)
    assert theirs["rope_parameters"]["rope_theta"] == 500000.0
    assert parse(theirs) == config


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"model_type": ["llama"]}, r"model_type \['llama'\] is not supported"),
        ({"model_type": {"llama": 1}}, "is not supported; supported are llama"),
        ({"architectures": {"LlamaForCausalLM": 1}}, "architecture {'LlamaForCausalLM': 1} is not supported"),
        ({"architectures": 1.5}, r"architecture 1\.5 is not supported"),
    ],
)
def test_a_field_of_another_kind_is_told_and_not_tripped_over(fields, named):
    with pytest.raises(UserError, match=named):
        hf_config.parse_config({**LLAMA, **fields}, "config.json")


def test_the_older_form_of_rotary_parameters_is_added_for_those_that_know_no_other():
    new = {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}
    assert hf_config.portable(new) == {**new, "rope_theta": 5e5, "rope_scaling": None}
    old = {"rope_theta": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}
    assert hf_config.portable(old) == old
