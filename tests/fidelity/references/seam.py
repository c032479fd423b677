"""SEAM (2505.12186), as its paper and its code (ZJUWYH/seam, ``SeamTrainer``) have it.

``CE(safe) − log(1 + CE(harmful) over layers) + β cos``, the gradient of the cosine by differences of radius ε. β = 1 and
ε = 0.05, larger than theirs, so that the cosine shows above the rounding of float32.
"""

import torch
from references.adversarial_loss import differing_cross_entropy
from references.rep_noise import lens_once, lens_twice
from torch_llama import answer_cross_entropy, every_cross_entropy

BETA, EPSILON = 1.0, 0.05


def _slope(loss, weights):
    moved = {name: value.detach().clone().requires_grad_() for name, value in weights.items()}
    slopes = torch.autograd.grad(loss(moved), list(moved.values()), materialize_grads=True)
    return dict(zip(moved, slopes, strict=True))


def _dot(a, b):
    return sum((a[name] * b[name]).sum() for name in a)


def _unit(slope):
    norm = _dot(slope, slope).sqrt()
    return {name: value / norm for name, value in slope.items()}, norm


def _difference(loss, weights, slope, unit, norm, towards, cosine):
    """``(∇f(θ + ε (v − c u)) − ∇f(θ)) / (ε ‖∇f‖)``."""
    moved = {name: weights[name] + EPSILON * (towards[name] - cosine * unit[name]) for name in weights}
    after = _slope(loss, moved)
    return {name: (after[name] - slope[name]) / (EPSILON * norm) for name in weights}


def _form(pair_loss, harmless_loss, lens):
    def form(net, weights, case, draws):
        safe, harmful, retain = case["safe"], case["harmful"], case["retain"]

        def plain(at):
            outputs = net(at, harmful)
            layers = lens(net, at, outputs, lambda logits: pair_loss(logits, harmful, safe))
            return pair_loss(net(at, safe).logits, safe, harmful) - torch.log(layers + 1)

        def attack(at):
            return pair_loss(net(at, harmful).logits, harmful, safe)

        def benign(at):
            return harmless_loss(net(at, retain).logits, retain)

        slopes = _slope(attack, weights), _slope(benign, weights)
        (u, a), (v, b) = _unit(slopes[0]), _unit(slopes[1])
        cosine = _dot(u, v)
        turns = (
            _difference(attack, weights, slopes[0], u, a, v, cosine),
            _difference(benign, weights, slopes[1], v, b, u, cosine),
        )
        base = _slope(plain, weights)
        gradient = {name: base[name] + BETA * (turns[0][name] + turns[1][name]) for name in weights}
        return plain(weights) + BETA * cosine, gradient

    return form


FORMS = {
    "paper": _form(lambda logits, batch, other: answer_cross_entropy(logits, batch), answer_cross_entropy, lens_once),
    "repository": _form(
        lambda logits, batch, other: differing_cross_entropy(logits, batch, other, padding=False),
        every_cross_entropy,
        lens_twice,
    ),
}
