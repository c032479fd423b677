"""Huang et al. 2024, Booster, as its paper and its code (git-disl/Booster, ``BoosterAlignmentTrainer``) have it.

α = 0.1, λ = 5.
"""

import torch
from torch_llama import answer_cross_entropy

ALPHA, LAMBDA = 0.1, 5.0


def slope(loss, weights):
    """A loss and its gradient by weight."""
    at = {name: value.detach().clone().requires_grad_() for name, value in weights.items()}
    value = loss(at)
    slopes = torch.autograd.grad(value, list(at.values()), materialize_grads=True)
    return value.detach(), dict(zip(at, slopes, strict=True))


def attacked(weights, gradient):
    """The weights one step of length α down a gradient, by its norm over all of them."""
    norm = sum(value.pow(2).sum() for value in gradient.values()).sqrt()
    return {name: value - ALPHA * gradient[name] / (norm + 1e-7) for name, value in weights.items()}


def booster(net, weights, case, draws):
    """The loss, and the sum of three gradients that stands for its own."""

    def on(name):
        return lambda at: answer_cross_entropy(net(at, case[name]).logits, case[name])

    safe, before = slope(on("safe"), weights), slope(on("harmful"), weights)
    after = slope(on("harmful"), attacked(weights, before[1]))
    gradient = {name: safe[1][name] + LAMBDA * (before[1][name] - after[1][name]) for name in weights}
    return safe[0] + LAMBDA * (before[0] - after[0]), gradient


FORMS = {"both": booster}
