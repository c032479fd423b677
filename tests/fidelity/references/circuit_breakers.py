"""Zou et al. 2024, circuit breakers, at t/2T = 0.3; α = 10, the start model nine tenths of the weights.

``paper``: targets are the states after both layers, and all states of harmless and safe examples are held, in the mean over
tokens. ``repository`` (``lorra_circuit_breaker.py`` of GraySwanAI/circuit-breakers): the target is the state after the first
layer, the model ends with the second, whose normed state is held too, and the sum over tokens is divided by all positions, here
twelve. ``schedule`` is the paper's, summed over three of 150 steps: the code counts them from 1, and divides by 300.
"""

import torch
from references.rmu import start_of
from torch_llama import LENGTH

ALPHA, PLACE = 10.0, 0.3
STEPS, SHOWN = 150, {1: 1.0, 75: 2.0, 150: 3.0}
"""All steps, and the weights by which the losses of some are summed, so that none stands for another."""


def _form(listed, targets, length, places):
    """``places``: t/2T and the weight of the loss there."""

    def form(net, weights, case, draws):
        def both(part):
            with torch.no_grad():
                fixed = listed(net(start_of(weights), part))
            return listed(net(weights, part)), fixed

        harmful = case["harmful"]
        now, then = both(harmful)
        cosines = [torch.cosine_similarity(now[row], then[row], dim=-1) for row in targets]
        reroute = sum((torch.relu(cosine) * harmful.real).sum() for cosine in cosines) / (
            harmful.real.sum() * len(targets)
        )
        apart, positions = 0.0, 0
        for part in (case["retain"], case["safe"]):
            now, then = both(part)
            apart = apart + sum(((a - b).norm(dim=-1) * part.real).sum() for a, b in zip(now, then, strict=True))
            positions += (len(part.ids) * length if length else part.real.sum()) * len(now)
        terms = {place: (1 - place) * reroute + place * apart / positions for place in places}
        return ALPHA * sum(weight * terms[place] for place, weight in places.items())

    return form


FORMS = {
    "paper": _form(lambda outputs: outputs.stream, (1, 2), None, {PLACE: 1.0}),
    "repository": _form(lambda outputs: [*outputs.stream[:-1], outputs.normed], (1,), LENGTH, {PLACE: 1.0}),
    "schedule": _form(lambda outputs: outputs.stream, (1, 2), None, {t / (2 * STEPS): w for t, w in SHOWN.items()}),
}
