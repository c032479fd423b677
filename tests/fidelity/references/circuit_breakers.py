"""Zou et al. 2024, circuit breakers, at t/2T = 0.3; α = 10, the start model nine tenths of the weights.

``paper``: targets are the states after both layers, and all states of harmless and safe examples are held, in the mean over
tokens. ``repository`` (``lorra_circuit_breaker.py`` of GraySwanAI/circuit-breakers): the target is the state after the first
layer, the model ends with the second, whose normed state is held too, and the sum over tokens is divided by all positions, here
twelve.
"""

import torch
from references.rmu import start_of
from torch_llama import LENGTH

ALPHA, PLACE = 10.0, 0.3


def _form(listed, targets, length):
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
        return ALPHA * (1 - PLACE) * reroute + ALPHA * PLACE * apart / positions

    return form


FORMS = {
    "paper": _form(lambda outputs: outputs.stream, (1, 2), None),
    "repository": _form(lambda outputs: [*outputs.stream[:-1], outputs.normed], (1,), LENGTH),
}
