"""Liu et al. 2024, Targeted Vaccine, with the second of two layers drawn. ρ = 3.

``attention`` is the authors' code (Lslland/T-Vaccine, ``BaseTrainer``): attention is what is perturbed, and outside the draw
frozen. ``layer`` is the paper's text: whole layers. The chances of all layers are added to the loss, the second one twice, so
that they are compared too; they have no gradient. ``harmless`` is ``attention`` with γ = 0.6 of CE(harmless), by which
too nothing frozen moves.
"""

import torch
from references.vaccine import gradient_at, harmless, perturbed

RHO, DRAWN, FROZEN = 3.0, [1], "model.layers.0."


def _form(place, with_harmless=False):
    frozen = FROZEN + ("self_attn." if place == "attention" else "")

    def form(net, weights, case, draws):
        norms = torch.stack([slope.norm() for slope in gradient_at(net, weights, case["harmful"], place)])
        chances = norms / norms.sum()
        loss = perturbed(net, weights, case["safe"], place, RHO, DRAWN)
        if with_harmless:
            loss = loss + harmless(net, weights, case)
        slopes = torch.autograd.grad(loss, list(weights.values()))
        gradient = {
            name: torch.zeros_like(slope) if name.startswith(frozen) else slope
            for name, slope in zip(weights, slopes, strict=True)
        }
        return loss + chances[0] + 2 * chances[1], gradient

    return form


FORMS = {"attention": _form("attention"), "layer": _form("layer"), "harmless": _form("attention", with_harmless=True)}
