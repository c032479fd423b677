"""OLMo 2 (arXiv:2501.00656): norms on what attention and MLP write, none on what they read, and one over all heads."""

from immunax.models.families.family import Family, Gguf

OLMO2 = Family(
    "olmo2",
    "Olmo2ForCausalLM",
    fixed={"pre_norm": False, "post_norm": True, "qk_norm": True, "joint_qk_norm": True},
    implied=("num_key_value_heads", "head_dim"),
    modules={
        "attention_output_norm": "post_attention_layernorm",
        "mlp_output_norm": "post_feedforward_layernorm",
    },
    gguf=Gguf("olmo2"),
)
