"""Li et al. 2024, RMU, at the last layer; α = 2, c = 6.5, the start model nine tenths of the weights.

``tokens`` is the paper's formula, a mean over tokens. ``all`` is the authors' code (centerforaisafety/wmdp,
``rmu/unlearn.py``): a mean over every position of a batch that is padded to its longest example.
"""

import torch

ALPHA, STEERING = 2.0, 6.5


def start_of(weights):
    """The start model's weights."""
    return {name: 0.9 * value.detach() for name, value in weights.items()}


def _form(where):
    def form(net, weights, case, draws):
        def mean(squares, part):
            kept = where(part)
            return (squares.mean(-1) * kept).sum() / kept.sum()

        harmful, retain = case["harmful"], case["retain"]
        vector = draws.normal("vector", (net.model.config.hidden_size,)).abs()
        control = STEERING * vector / vector.norm()
        forget = mean((net(weights, harmful).stream[-1] - control).pow(2), harmful)
        drift = net(weights, retain).stream[-1] - net(start_of(weights), retain).stream[-1]
        return forget + ALPHA * mean(drift.pow(2), retain)

    return form


def _to_longest(part):
    return torch.ones_like(part.real) * (torch.arange(part.real.shape[1]) < part.real.sum(1).max())


FORMS = {"tokens": _form(lambda part: part.real), "all": _form(_to_longest)}
