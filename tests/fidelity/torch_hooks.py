"""Additions to what the modules of a model give."""

from collections.abc import Sequence
from contextlib import contextmanager

from torch import Tensor


@contextmanager
def layer_outputs(net, place: str, added: Sequence[Tensor]):
    """While it is open, ``added[l]`` is added to what layer l gives (``layer``), or its attention (``attention``)."""
    modules = [layer.self_attn if place == "attention" else layer for layer in net.layers]
    hooks = [module.register_forward_hook(_adds(part)) for module, part in zip(modules, added, strict=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def embedded(net, added: Tensor):
    """While it is open, ``added`` is added to the embeddings."""
    hook = net.model.model.embed_tokens.register_forward_hook(_adds(added))
    try:
        yield
    finally:
        hook.remove()


def _adds(part: Tensor):
    def hook(module, inputs, output):
        return (output[0] + part, *output[1:]) if isinstance(output, tuple) else output + part

    return hook
