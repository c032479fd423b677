"""MLAC (Henderson et al. 2022): ``CE(safe) + CE(x_r) − λ CE_h`` after an attack of Adam, whose every step is differentiated.

``paper``: CE_h at the end, λ = 0.1. ``repository``: Breakend/SelfDestructingModels, the mean over k = 0, ..., K on one held-out
batch, λ = 1; ``slope`` is the derivative of that mean by the attacker's rate, which the code learns.
"""

import numpy as np
import torch
from torch_llama import answer_cross_entropy

RATE = 2e-3
ROOT = 1e-16
"""Under the root of the second moment, which has no derivative at 0."""


def adam(net, weights, batches, rate):
    """The weights before the attack and after each step."""
    now, path = dict(weights), [dict(weights)]
    first = {name: torch.zeros_like(value) for name, value in weights.items()}
    second = dict(first)
    for step, batch in enumerate(batches, 1):
        loss = answer_cross_entropy(net(now, batch).logits, batch)
        slopes = torch.autograd.grad(loss, list(now.values()), create_graph=True)
        for name, slope in zip(list(now), slopes, strict=True):
            first[name] = 0.9 * first[name] + 0.1 * slope
            second[name] = 0.999 * second[name] + 0.001 * slope * slope
            spread = torch.sqrt(second[name] / (1 - 0.999**step) + ROOT) + 1e-8
            now[name] = now[name] - rate * first[name] / (1 - 0.9**step) / spread
        path.append(dict(now))
    return path


def _kept(net, weights, case):
    return sum(answer_cross_entropy(net(weights, case[name]).logits, case[name]) for name in ("safe", "retain"))


def paper(net, weights, case, draws):
    """At the end."""
    held_out = case["checks"][0]
    end = adam(net, weights, case["attack"], RATE)[-1]
    return _kept(net, weights, case) - 0.1 * answer_cross_entropy(net(end, held_out).logits, held_out)


def repository(net, weights, case, draws):
    """All along."""
    held_out = case["checks"][0]
    rate = torch.tensor(RATE, dtype=torch.float64, requires_grad=True)
    path = adam(net, weights, case["attack"], rate)
    attacked = torch.stack([answer_cross_entropy(net(at, held_out).logits, held_out) for at in path]).mean()
    draws.kept["slope"] = np.float64(torch.autograd.grad(attacked, rate, retain_graph=True)[0].item())
    return _kept(net, weights, case) - attacked


FORMS = {"paper": paper, "repository": repository}
