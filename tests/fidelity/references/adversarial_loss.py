"""Rosati et al. 2024a, ``CE(safe) − λ CE(harmful)``, λ = 0.1.

Their code (domenicrosati/representation-noising and its re-run boyiwei/RepNoise-Reproduce, the branch of this name) takes both as
:func:`differing_cross_entropy`.
"""

import torch
from torch import Tensor
from torch_llama import Rows, answer_cross_entropy, token_losses


def differing_cross_entropy(logits: Tensor, batch: Rows, other: Rows, padding: bool = True) -> Tensor:
    """The cross entropy of the tokens in which two sequences differ, with the logits of all others set to zero.

    A token that differs after one that does not is predicted by zeros: ``log V``. Padding is a token.

    Args:
      logits: ``[B, T, V]``.
      batch: what is predicted.
      other: what it is compared with.
      padding: whether padding is a label.
    """
    differ = batch.ids != other.ids
    labels = differ[:, 1:] if padding else differ[:, 1:] & batch.real[:, 1:].bool()
    losses = token_losses(torch.where(differ[..., None], logits, torch.zeros_like(logits)), batch.ids)
    return losses[labels].mean()


def answer(net, weights, case, draws):
    """Of the answers' tokens."""
    safe, harmful = (answer_cross_entropy(net(weights, case[name]).logits, case[name]) for name in ("safe", "harmful"))
    return safe - 0.1 * harmful


def differing(net, weights, case, draws):
    """As their code has it."""
    safe, harmful = case["safe"], case["harmful"]
    gained = differing_cross_entropy(net(weights, safe).logits, safe, harmful)
    return gained - 0.1 * differing_cross_entropy(net(weights, harmful).logits, harmful, safe)


FORMS = {"answer": answer, "differing": differing}
