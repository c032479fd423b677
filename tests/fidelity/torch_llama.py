"""What the references share: a Llama of ``transformers`` as a function of its weights, and examples as padded arrays.

Sequences are padded on the right with the end-of-text token, as the authors' tokenizers are set to, and padding is masked
in attention alone: it has embeddings, positions and predictions of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LENGTH = 12
"""Columns of every array."""

PAD = 2
"""The end-of-text token, which pads."""

Weights = dict[str, Tensor]
Example = tuple[list[int], list[int]]
"""Prompt and answer, as token ids."""


@dataclass(frozen=True)
class Rows:
    """Examples, one a row, ``[B, T]``: ids, 1 where there is a token, 1 where it is an answer's."""

    ids: Tensor
    real: Tensor
    answer: Tensor


@dataclass(frozen=True)
class Outputs:
    """A forward pass.

    Attributes:
      logits: ``[B, T, V]``.
      stream: the residual stream before every layer and after the last, L + 1 of ``[B, T, D]``.
      normed: the last of them after the final norm.
      mlp: what every MLP adds, L of ``[B, T, D]``.
    """

    logits: Tensor
    stream: list[Tensor]
    normed: Tensor
    mlp: list[Tensor]


def rows(examples: Sequence[Example]) -> Rows:
    """Lays examples out."""
    ids = torch.full((len(examples), LENGTH), PAD)
    real, answer = torch.zeros(2, len(examples), LENGTH, dtype=torch.long)
    for row, (prompt, reply) in enumerate(examples):
        size = len(prompt) + len(reply)
        ids[row, :size] = torch.tensor(prompt + reply)
        real[row, :size] = 1
        answer[row, len(prompt) : size] = 1
    return Rows(ids, real, answer)


class Net:
    """A ``LlamaForCausalLM`` as a function of its weights, in float64."""

    def __init__(self, model):
        self.model = model.double().eval()
        for module in self.model.modules():
            if type(module).__name__ == "LlamaRMSNorm":
                module.forward = _norm_in_float64(module)

    def weights(self) -> Weights:
        """The model's own weights, as leaves to differentiate by."""
        return {name: value.detach().clone().requires_grad_() for name, value in self.model.named_parameters()}

    def __call__(self, weights: Mapping[str, Tensor], batch: Rows) -> Outputs:
        """Runs it on a batch."""
        seen: dict[str, Tensor] = {}
        hooks = [layer.mlp.register_forward_hook(_keep(seen, f"mlp{i}")) for i, layer in enumerate(self.layers)]
        hooks += [layer.register_forward_pre_hook(_keep_input(seen, f"h{i}")) for i, layer in enumerate(self.layers)]
        hooks.append(self.model.model.norm.register_forward_pre_hook(_keep_input(seen, "last")))
        hooks.append(self.model.model.norm.register_forward_hook(_keep(seen, "normed")))
        try:
            result = torch.func.functional_call(
                self.model,
                dict(weights),
                (),
                {"input_ids": batch.ids, "attention_mask": batch.real, "use_cache": False},
            )
        finally:
            for hook in hooks:
                hook.remove()
        stream = [seen[f"h{i}"] for i in range(len(self.layers))] + [seen["last"]]
        return Outputs(result.logits, stream, seen["normed"], [seen[f"mlp{i}"] for i in range(len(self.layers))])

    def read(self, weights: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
        """The logits of any hidden states: final norm, then output projection."""
        return self.normed(weights, hidden) @ weights["lm_head.weight"].T

    def normed(self, weights: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
        """The final norm."""
        variance = hidden.pow(2).mean(-1, keepdim=True)
        return weights["model.norm.weight"] * hidden * torch.rsqrt(variance + self.model.config.rms_norm_eps)

    @property
    def layers(self):
        """The decoder's layers."""
        return self.model.model.layers


def token_losses(logits: Tensor, ids: Tensor) -> Tensor:
    """``−log p`` of each token but the first, ``[B, T − 1]``."""
    return -torch.log_softmax(logits[:, :-1], -1).gather(-1, ids[:, 1:, None])[..., 0]


def mean_where(values: Tensor, where: Tensor) -> Tensor:
    """Mean of the values that a mask keeps."""
    return (values * where).sum() / where.sum()


def answer_cross_entropy(logits: Tensor, batch: Rows) -> Tensor:
    """Mean ``−log p`` of the answers' tokens."""
    return mean_where(token_losses(logits, batch.ids), batch.answer[:, 1:])


def every_cross_entropy(logits: Tensor, batch: Rows) -> Tensor:
    """Mean ``−log p`` of all tokens but padding and the first."""
    return mean_where(token_losses(logits, batch.ids), batch.real[:, 1:])


def _norm_in_float64(module) -> Callable[[Tensor], Tensor]:
    # The library's own casts to float32, and the references are to be exact beyond it.
    def forward(hidden: Tensor) -> Tensor:
        return module.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + module.variance_epsilon)

    return forward


def _keep(seen: dict[str, Tensor], name: str):
    def hook(module, inputs, output):
        seen[name] = output

    return hook


def _keep_input(seen: dict[str, Tensor], name: str):
    def hook(module, inputs):
        seen[name] = inputs[0]

    return hook
