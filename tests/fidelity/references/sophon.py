"""SOPHON (Deng et al. 2024): suppression along an attack of SGD, first order, beside the cross entropy of what is to stay.

``unlikelihood`` is the paper's −log(1 − p); ``inverse`` and ``kl_uniform`` are ChiangE/Sophon, classification/inverse_loss.py and
kl_uniform_loss.py: the cross entropy of 1 − logits, and the divergence of the uniform distribution. α = 0.7, β = 1.5.
"""

import torch
from references.tar import EVERY, plus, simulate
from torch_llama import answer_cross_entropy, mean_where

RATE, ALPHA, BETA = 0.05, 0.7, 1.5


def unlikelihood(logits, labels):
    """``−log(1 − p)``."""
    return -torch.log1p(-torch.softmax(logits, -1).gather(-1, labels[..., None])[..., 0])


def inverse(logits, labels):
    """Cross entropy of ``1 − z``."""
    return torch.nn.functional.cross_entropy((1 - logits).transpose(1, 2), labels, reduction="none")


def kl_uniform(logits, labels):
    """``Σ_v 1/V (log 1/V − log p_v)``."""
    uniform = torch.full_like(logits, 1 / logits.shape[-1])
    return torch.nn.functional.kl_div(torch.log_softmax(logits, -1), uniform, reduction="none").sum(-1)


def _form(suppression):
    def form(net, weights, case, draws):
        checks = case["checks"]

        def check(k, moved):
            if (k + 1) % EVERY:
                return None
            batch = checks[(k + 1) // EVERY - 1]
            losses = suppression(net(moved, batch).logits[:, :-1], batch.ids[:, 1:])
            return ALPHA * mean_where(losses, batch.answer[:, 1:]) / len(checks)

        def rule(moved):
            return torch.optim.SGD(moved, lr=RATE)

        losses = [answer_cross_entropy] * len(case["attack"])
        attacked = simulate(net, weights, case["attack"], losses, check, rule)
        kept = [answer_cross_entropy(net(weights, case[name]).logits, case[name]) for name in ("retain", "safe")]
        return plus(net, weights, attacked, BETA * (kept[0] + kept[1]))

    return form


FORMS = {"unlikelihood": _form(unlikelihood), "inverse": _form(inverse), "kl_uniform": _form(kl_uniform)}
