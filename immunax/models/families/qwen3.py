"""Qwen3 (arXiv:2505.09388): a norm on each query and key head, whose size is apart from the width."""

from immunax.models.families.family import Family, Gguf
from immunax.models.families.qwen2 import read_window, write_window

QWEN3 = Family(
    "qwen3",
    "Qwen3ForCausalLM",
    fixed={"qk_norm": True},
    implied=(),
    read=read_window,
    write=write_window,
    gguf=Gguf("qwen3"),
)
