"""The cases by torch, ``transformers`` and ``peft``; ``launch.py`` runs it, under a Python that has these and need not have jax.

    PYTHON benchmarks/accelerated/torch_cases.py CASE SIDE FILE [--tiny]

On a GPU: bfloat16 autocast over float32 weights, or over frozen ones in bfloat16 where adapters train; fused AdamW; sdpa.
"""

import resource
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
import transformers

from accelerated import child
from accelerated.catalogue import COMPILED, named
from accelerated.record import skipped
from accelerated.shapes import SHAPES

Sizes = Mapping[str, Any]
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
HALF = torch.bfloat16 if CUDA else torch.float32
_PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def random_model(sizes: Sizes, dtype: torch.dtype) -> Any:
    """A Llama of a shape."""
    shape = SHAPES[sizes["shape"]]
    config = transformers.LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_ff,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=shape.tie_embeddings,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    with torch.device(DEVICE):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")


def trained_model(sizes: Sizes) -> Any:
    """One that trains, with adapters where the case has them."""
    if not sizes["lora"]:
        return random_model(sizes, torch.float32).train()
    import peft  # pyright: ignore[reportMissingImports]

    dtype = torch.float32 if sizes.get("dtype") == "float32" else HALF
    spec = peft.LoraConfig(
        task_type="CAUSAL_LM", r=sizes["lora"], lora_alpha=2 * sizes["lora"], target_modules=_PROJECTIONS
    )
    return peft.get_peft_model(random_model(sizes, dtype), spec).train()


class Trainer:
    """Steps of AdamW on whatever of a model is trainable."""

    def __init__(self, model: Any, called: Any, autocast: bool):
        self.called, self.autocast = called, autocast
        self.weights = [each for each in model.parameters() if each.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, lr=1e-5, weight_decay=0.0, fused=True)

    def step(self, tokens: Any, labels: Any) -> Any:
        """One step; gives its loss."""
        with torch.autocast(DEVICE, torch.bfloat16, enabled=self.autocast):
            loss = self.called(input_ids=tokens, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


def _autocast(sizes: Sizes) -> bool:
    return CUDA and sizes.get("dtype") != "float32"


def _tokens(sizes: Sizes, *shape: int) -> Any:
    return torch.randint(SHAPES[sizes["shape"]].vocab_size, shape, device=DEVICE)


def training(sizes: Sizes, compiled: bool) -> dict[str, Any]:
    """Steps on rows that are full, all of whose tokens are learned."""
    model, tokens = trained_model(sizes), _tokens(sizes, sizes["rows"], sizes["length"])
    trainer = Trainer(model, torch.compile(model) if compiled else model, _autocast(sizes))
    losses = []

    def step() -> None:
        losses.append(trainer.step(tokens, tokens))

    row = timed(step, sizes["repeats"])
    return {**row, "units": tokens.numel(), "details": {"loss": losses[-1].item()}}


def decoding(sizes: Sizes, compiled: bool) -> dict[str, Any]:
    """``generate``, from weights in bfloat16."""
    model, new = random_model(sizes, HALF).eval(), sizes["new"]
    prompts = _tokens(sizes, sizes["prompts"], sizes["length"])
    mask = torch.ones_like(prompts)

    def decode() -> None:
        with torch.inference_mode():
            model.generate(
                input_ids=prompts,
                attention_mask=mask,
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
                pad_token_id=0,
            )

    return {**timed(decode, sizes["repeats"], warm=1), "units": prompts.shape[0] * new}


def attention(sizes: Sizes, compiled: bool) -> dict[str, Any]:
    """``scaled_dot_product_attention``, forward and backward."""
    rows, length, heads, kv_heads, size = (sizes[n] for n in ("rows", "length", "heads", "kv_heads", "head_dim"))
    counts = (heads, kv_heads, kv_heads)
    inputs = [torch.randn(rows, count, length, size, device=DEVICE, dtype=HALF, requires_grad=True) for count in counts]
    gradient = torch.randn(rows, heads, length, size, device=DEVICE, dtype=HALF)

    def both() -> None:
        for _ in range(sizes["calls"]):
            output = torch.nn.functional.scaled_dot_product_attention(*inputs, is_causal=True, enable_gqa=True)
            torch.autograd.grad(output, inputs, gradient)

    return {**timed(both, sizes["repeats"]), "units": sizes["calls"]}


def population(sizes: Sizes, compiled: bool) -> dict[str, Any]:
    """Attacks one after the other, a few of them; what makes weights or adapters fresh is left out of the time."""
    model = trained_model(sizes)
    batches = [_tokens(sizes, sizes["samples"], sizes["length"]) for _ in range(sizes["steps"])]
    labels = [each.clone() for each in batches]
    for each in labels:
        each[:, : sizes["length"] // 2] = -100

    def attack() -> None:
        trainer = Trainer(model, model, _autocast(sizes))
        for tokens, wanted in zip(batches, labels, strict=True):
            trainer.step(tokens, wanted)

    members = sizes["rates"] * sizes["seeds"]
    return {
        **timed(attack, sizes["alone"], warm=1),
        "units": 1,
        "details": {"attacks run": f"{sizes['alone']} of {members}"},
    }


def timed(run: Callable[[], None], repeats: int, warm: int = 3) -> dict[str, Any]:
    """Seconds of each repeat after some that warm up, and the peak memory of all."""
    seconds = []
    for _ in range(warm + repeats):
        begin = time.perf_counter()
        run()
        if CUDA:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = torch.cuda.max_memory_allocated() if CUDA else held
    return {"seconds": seconds[warm:], "peak_bytes": peak, "compile_seconds": seconds[0]}


KINDS: Mapping[str, Callable[[Sizes, bool], dict[str, Any]]] = {
    "training": training,
    "decoding": decoding,
    "attention": attention,
    "population": population,
}


def facts() -> dict[str, Any]:
    """The device of this process, its memory and versions."""
    properties = torch.cuda.get_device_properties(0) if CUDA else None
    return {
        "device": properties.name if properties else "cpu",
        "platform": DEVICE,
        "memory": properties.total_memory if properties else None,
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
    }


def found(name: str, side: str, tiny: bool) -> dict[str, Any]:
    """The fields of a row."""
    case, memory = named(name), facts()["memory"]
    sizes = case.sized(tiny, memory)
    if sizes is None:
        return skipped(case, memory)
    row = KINDS[case.kind](sizes, side == COMPILED)
    # The first run of any process is slower than the next.
    return row if side == COMPILED else {**row, "compile_seconds": None}


if __name__ == "__main__":
    child.main(__doc__ or "", found, facts)
