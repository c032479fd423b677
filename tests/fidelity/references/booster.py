"""Huang et al. 2024, Booster, as its paper and its code (git-disl/Booster, ``BoosterAlignmentTrainer``) have it.

α = 0.1, λ = 5. ``both``: all weights train. ``adapters``: adapters train, as in the authors' scripts, and α is a length in them.
"""

import torch
from torch_llama import answer_cross_entropy
from torch_lora import adapters, merged

ALPHA, LAMBDA = 0.1, 5.0


def slope(loss, weights):
    """A loss and its gradient by weight, or by whatever else trains."""
    at = {name: value.detach().clone().requires_grad_() for name, value in weights.items()}
    value = loss(at)
    slopes = torch.autograd.grad(value, list(at.values()), materialize_grads=True)
    return value.detach(), dict(zip(at, slopes, strict=True))


def attacked(weights, gradient):
    """The weights one step of length α down a gradient, by its norm over all of them."""
    norm = sum(value.pow(2).sum() for value in gradient.values()).sqrt()
    return {name: value - ALPHA * gradient[name] / (norm + 1e-7) for name, value in weights.items()}


def booster(run, trained, case):
    """The loss, and the sum of three gradients that stands for its own.

    ``run(trained, batch)`` is the forward pass of what trains.
    """

    def on(name):
        return lambda at: answer_cross_entropy(run(at, case[name]).logits, case[name])

    safe, before = slope(on("safe"), trained), slope(on("harmful"), trained)
    after = slope(on("harmful"), attacked(trained, before[1]))
    gradient = {name: safe[1][name] + LAMBDA * (before[1][name] - after[1][name]) for name in trained}
    return safe[0] + LAMBDA * (before[0] - after[0]), gradient


def forms(objective):
    """``objective(run, trained, case)`` of all weights, and of adapters."""

    def whole(net, weights, case, draws):
        return objective(net, weights, case)

    def adapted(net, weights, case, draws):
        return objective(lambda at, batch: net(merged(weights, at), batch), adapters(net, draws), case)

    return whole, adapted


FORMS = dict(zip(("both", "adapters"), forms(booster), strict=True))
