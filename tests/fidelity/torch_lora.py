"""Low-rank adapters (Hu et al. 2021) of the query, key and value projections, r = 2 and α = 0.5."""

import torch
from torch import Tensor
from torch_llama import Weights

RANK, ALPHA = 2, 0.5
TARGETS = ("q_proj", "k_proj", "v_proj")


def adapters(net, draws) -> dict[str, Tensor]:
    """Both factors of all layers by projection, ``a`` ``[L, in, r]`` and ``b`` ``[L, r, out]``, none of them zero."""
    shapes = {name: getattr(net.layers[0].self_attn, name).weight.shape for name in TARGETS}
    depth = len(net.layers)
    return {
        f"{name}.{factor}": draws.normal(f"{name}.{factor}", (depth, *shape)).requires_grad_()
        for name, (size_out, size_in) in shapes.items()
        for factor, shape in {"a": (size_in, RANK), "b": (RANK, size_out)}.items()
    }


def merged(weights: Weights, lora: dict[str, Tensor]) -> Weights:
    """The weights that compute what the adapters beside them do: ``W + α/r · (a b)ᵀ``."""
    adapted = {name: value.detach() for name, value in weights.items()}
    for name in TARGETS:
        for layer, change in enumerate(torch.einsum("lir,lro->loi", lora[f"{name}.a"], lora[f"{name}.b"])):
            place = f"model.layers.{layer}.self_attn.{name}.weight"
            adapted[place] = adapted[place] + ALPHA / RANK * change
    return adapted
