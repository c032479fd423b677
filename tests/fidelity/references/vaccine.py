"""Huang et al. 2024, Vaccine: the loss under states moved by ρ g / (‖g‖ + 1e-7), g the loss's gradient by them. ρ = 2.

``attention`` is the authors' code (git-disl/Vaccine, ``VaccineTrainer``), which hooks the attention modules; ``layer`` moves
what each layer writes to the stream, as the paper's text has it. ``harmless`` is the former with γ = 0.6 of CE(harmless).
"""

from torch_hooks import layer_outputs
from torch_llama import answer_cross_entropy

RHO, GAMMA = 2.0, 0.6


def gradient_at(net, weights, batch, place):
    """The loss's gradient by what every layer, or its attention, gives: L of ``[B, T, D]``."""
    zeros = [batch.ids.new_zeros((*batch.ids.shape, net.model.config.hidden_size)).double() for _ in net.layers]
    added = [zero.requires_grad_() for zero in zeros]
    fixed = {name: value.detach() for name, value in weights.items()}
    with layer_outputs(net, place, added):
        loss = answer_cross_entropy(net(fixed, batch).logits, batch)
    loss.backward()
    return [part.grad for part in added]


def perturbed(net, weights, batch, place, rho, layers=None):
    """The loss under the perturbation of some layers, by default all, at a place."""
    chosen = range(len(net.layers)) if layers is None else layers
    slopes = gradient_at(net, weights, batch, place)
    norm = sum(slopes[layer].pow(2).sum() for layer in chosen).sqrt()
    moves = [slope * (rho / (norm + 1e-7) if layer in chosen else 0.0) for layer, slope in enumerate(slopes)]
    with layer_outputs(net, place, moves):
        return answer_cross_entropy(net(weights, batch).logits, batch)


def harmless(net, weights, case):
    """γ CE(harmless), unperturbed."""
    return GAMMA * answer_cross_entropy(net(weights, case["retain"]).logits, case["retain"])


def _form(place):
    return lambda net, weights, case, draws: perturbed(net, weights, case["safe"], place, RHO)


def _with_harmless(net, weights, case, draws):
    return perturbed(net, weights, case["safe"], "attention", RHO) + harmless(net, weights, case)


FORMS = {"attention": _form("attention"), "layer": _form("layer"), "harmless": _with_harmless}
