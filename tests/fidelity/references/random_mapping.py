"""Random mapping (Tamirisa et al. 2024), ``CE(x_r) + 1 − |cos(h, r)|``.

``paper``: CE of answers, the residual stream of real tokens. ``repository``: rishub-tamirisa/tamper-resistance,
``random_vector_cosine_obj``: CE of all tokens, the library's list of states, whose last is normed, at all positions.
"""

import torch
from torch_llama import answer_cross_entropy, every_cross_entropy


def paper(net, weights, case, draws):
    """Of tokens alone."""
    harmful = case["harmful"]
    mapping = _mapping(net(weights, harmful).stream, harmful.ids, harmful.real.bool(), weights, draws)
    return answer_cross_entropy(net(weights, case["retain"]).logits, case["retain"]) + mapping


def repository(net, weights, case, draws):
    """As the code has it."""
    harmful, outputs = case["harmful"], net(weights, case["harmful"])
    states = [*outputs.stream[:-1], outputs.normed]
    mapping = _mapping(states, harmful.ids, torch.ones_like(harmful.ids).bool(), weights, draws)
    return every_cross_entropy(net(weights, case["retain"]).logits, case["retain"]) + mapping


def _mapping(states, ids, where, weights, draws):
    table = draws.normal("vectors", weights["model.embed_tokens.weight"].shape)
    vectors = table[ids][where]
    apart = [1 - torch.cosine_similarity(state[where], vectors, dim=-1).abs() for state in states]
    return torch.stack(apart).mean()


FORMS = {"paper": paper, "repository": repository}
