"""Rosati et al. 2024b, representation noising, in the three forms that were published.

``paper``: cross entropies of answers, every state once, noise where the sequences differ. ``repository``:
domenicrosati/representation-noising, ``rep_noise_loss``. ``rerun``: boyiwei/RepNoise-Reproduce, loss ``minimality-mmd``:
answers' labels and noise, and the states as the repository counts them. α = 0.7 and β = 0.5, so that each term shows.

In these shorter sequences go on as padding. ``unpadded`` is ``paper`` without any: past the end of a harmful sequence there is
nothing to be noise. ``harmless`` is that with γ = 0.6 of CE(harmless).
"""

import torch
from references.adversarial_loss import differing_cross_entropy
from torch import Tensor
from torch_llama import answer_cross_entropy

ALPHA, BETA, GAMMA = 0.7, 0.5, 0.6


def discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """The squared MMD under five Gaussian kernels, the middle one as wide as the mean squared distance of all pairs."""
    points = torch.cat([x, y])
    squares = (points[:, None] - points[None]).pow(2).sum(-1)
    count = len(points)
    width = (squares.detach().sum() / (count * count - count)).item()
    kernel = sum(torch.exp(-squares / (width * 2.0**power)) for power in range(-2, 3))
    half = len(x)
    return (kernel[:half, :half] + kernel[half:, half:] - kernel[:half, half:] - kernel[half:, :half]).mean()


def noise_term(mlp: list[Tensor], where: Tensor, draws) -> Tensor:
    """Mean over layers of the discrepancy of masked activations and masked noise, an example being one point."""
    noise = draws.normal("noise", (len(mlp), *mlp[0].shape))
    masked = [(part * where[..., None]).flatten(1) for pair in zip(mlp, noise, strict=True) for part in pair]
    return torch.stack([discrepancy(*masked[i : i + 2]) for i in range(0, len(masked), 2)]).mean()


def lens_twice(net, weights, outputs, cross_entropy) -> Tensor:
    """As both codes add up layers: the library's list ends with the normed state, and the output is in the sum beside it."""
    listed = [*outputs.stream[:-1], outputs.normed]
    total = cross_entropy(outputs.logits)
    for state in listed:
        total = total + cross_entropy(net.read(weights, state))
    return total / len(listed)


def lens_once(net, weights, outputs, cross_entropy) -> Tensor:
    """The mean over all states."""
    return torch.stack([cross_entropy(net.read(weights, state)) for state in outputs.stream]).mean()


def _form(on_safe, on_harmful, lens, where, gamma=0.0):
    def form(net, weights, case, draws):
        safe, harmful = case["safe"], case["harmful"]
        outputs = net(weights, harmful)
        layers = lens(net, weights, outputs, lambda logits: on_harmful(logits, harmful, safe))
        noise = noise_term(outputs.mlp, where(safe, harmful), draws)
        total = on_safe(net(weights, safe).logits, safe, harmful) + BETA * noise - ALPHA * torch.log(layers + 1)
        return total + gamma * answer_cross_entropy(net(weights, case["retain"]).logits, case["retain"])

    return form


def _answer(logits, batch, other):
    return answer_cross_entropy(logits, batch)


def _differ(safe, harmful):
    return safe.ids != harmful.ids


def _differ_within(safe, harmful):
    return _differ(safe, harmful) & harmful.real.bool()


FORMS = {
    "paper": _form(_answer, _answer, lens_once, _differ),
    "repository": _form(differing_cross_entropy, differing_cross_entropy, lens_twice, _differ),
    "rerun": _form(_answer, _answer, lens_twice, lambda safe, harmful: harmful.answer),
    "unpadded": _form(_answer, _answer, lens_once, _differ_within),
    "harmless": _form(_answer, _answer, lens_once, _differ_within, GAMMA),
}
