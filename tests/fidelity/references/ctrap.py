"""CTRAP (2505.16559), as its code (clearloveclearlove/CTRAP, ``CTRAPTrainer``) has it; α = 0.1, λ = 0.1, e = 7.

``repository``: all weights train. ``adapters``: adapters do, as in the authors' scripts.
"""

import torch
from references.booster import attacked, forms, slope
from torch_llama import answer_cross_entropy, token_losses

LAMBDA, TOKEN = 0.1, 7


def ctrap(run, trained, case):
    """The loss over safe and harmless answers together, and the sum of two gradients that stands for its own."""
    parts = case["safe"], case["retain"]

    def both(at, labels):
        losses, counts = 0.0, 0
        for part in parts:
            where = part.answer[:, 1:]
            losses = losses + (token_losses(run(at, part).logits, labels(part)) * where).sum()
            counts += where.sum()
        return losses / counts

    harmful = slope(lambda at: answer_cross_entropy(run(at, case["harmful"]).logits, case["harmful"]), trained)[1]
    general = slope(lambda at: both(at, lambda part: part.ids), trained)
    trap = slope(lambda at: both(at, lambda part: torch.full_like(part.ids, TOKEN)), attacked(trained, harmful))
    gradient = {name: general[1][name] + LAMBDA * trap[1][name] for name in trained}
    return general[0] + LAMBDA * trap[0], gradient


FORMS = dict(zip(("repository", "adapters"), forms(ctrap), strict=True))
