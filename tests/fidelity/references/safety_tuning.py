"""Bianchi et al. 2023: the cross entropy of safe and harmless examples, as many of each.

``answers``: of answers. ``all_tokens``: of instructions too, as the authors train (vinid/safety-tuned-llamas).
"""

from torch_llama import answer_cross_entropy, every_cross_entropy


def _form(cross_entropy):
    def form(net, weights, case, draws):
        safe, retain = (cross_entropy(net(weights, case[name]).logits, case[name]) for name in ("safe", "retain"))
        return (safe + retain) / 2

    return form


FORMS = {"answers": _form(answer_cross_entropy), "all_tokens": _form(every_cross_entropy)}
