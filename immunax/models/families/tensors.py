"""Which tensor of a file each leaf of our tree is, for any format that names its tensors by module.

Formats store linear layers as ``[out, in]``, ours are ``[in, out]``; their layers are separate tensors, ours are stacked
on a leading axis.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from immunax.models.config import DecoderConfig
from immunax.runtime.projections import PROJECTIONS

Path = tuple[str, ...]
"""Keys in our tree."""


@dataclass(frozen=True)
class Tensor:
    """Where one leaf of the tree lives in the files.

    Attributes:
      name: in the files; ``{layer}`` stands for the layer's number in a stacked leaf.
      shape: in the file, of one layer.
      transpose: the file holds the transposed matrix.
    """

    name: str
    shape: tuple[int, ...]
    transpose: bool = False

    @property
    def stacked(self) -> bool:
        """Whether the leaf has a leading axis of layers."""
        return "{layer}" in self.name

    @property
    def leaf_shape(self) -> tuple[int, ...]:
        """Shape of one layer of the leaf."""
        return self.shape[::-1] if self.transpose else self.shape


@dataclass(frozen=True)
class Names:
    """How a format names modules.

    Attributes:
      layer: what the names of a layer's modules begin with.
      modules: our module to theirs, where they differ.
    """

    layer: str
    modules: Mapping[str, str]

    def of(self, path: Path) -> str:
        """The name of a leaf's tensor."""
        layered = path[0] == "layers"
        module = ".".join(path[layered:-1])
        kind = "bias" if path[-1] == "bias" else "weight"
        return f"{self.layer if layered else ''}{self.modules.get(module, module)}.{kind}"


def tensors(config: DecoderConfig, names: Names) -> dict[Path, Tensor]:
    """Every tensor of a decoder, in the order of the forward pass.

    Args:
      config: the decoder.
      names: of the format.

    Returns:
      One tensor for each leaf.
    """
    return {path: Tensor(names.of(path), shape, path[-1] == "kernel") for path, shape in _leaves(config)}


def _leaves(config: DecoderConfig) -> Iterator[tuple[Path, tuple[int, ...]]]:
    """Path of each leaf, and the shape of its tensor in a file."""
    wide = config.d_model
    yield ("embed_tokens", "embedding"), (config.vocab_size, wide)
    pre = ("input_layernorm", "post_attention_layernorm") if config.pre_norm else ()
    post = ("attention_output_norm", "mlp_output_norm") if config.post_norm else ()
    for name in (*pre, *post):
        yield ("layers", name, "scale"), (wide,)
    yield from _linear(config, "self_attn")
    for name, heads in (("q_norm", config.n_heads), ("k_norm", config.n_kv_heads)) if config.qk_norm else ():
        yield (
            ("layers", "self_attn", name, "scale"),
            (heads * config.head_dim if config.joint_qk_norm else config.head_dim,),
        )
    yield from _linear(config, "mlp")
    yield ("norm", "scale"), (wide,)
    if not config.tie_embeddings:
        yield ("lm_head", "kernel"), (config.vocab_size, wide)


def _linear(config: DecoderConfig, block: str) -> Iterator[tuple[Path, tuple[int, ...]]]:
    sizes = config.projections()
    for each in PROJECTIONS:
        if each.block == block:
            d_in, d_out = sizes[each.name]
            yield ("layers", block, each.name, "kernel"), (d_out, d_in)
            if config.qkv_bias and each.name in ("q_proj", "k_proj", "v_proj"):
                yield ("layers", block, each.name, "bias"), (d_out,)
