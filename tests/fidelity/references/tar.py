"""TAR (Tamirisa et al. 2024): a held-out loss along a simulated attack, first order, beside what retains the rest.

``s Σ_j e^{λ (k_j − (K−1))} TR(φ_{k_j}) + CE(x_r) + ‖h − h⁰‖``, an attacker of AdamW, without decay unless said. ``paper`` is the
DPO form on answers and the residual stream. ``entropy_repository`` and ``dpo_repository`` are rishub-tamirisa/tamper-resistance,
``tar_training_loop``: the library's language-model loss of all tokens (of answers for what is harmful in preference data), the
entropy and the states at all positions, the last state normed, and h⁰ from another model than the start. Here h⁰ = 0.9 θ, and
the start, to which DPO compares, is 0.95 θ (0.9 θ for ``paper``). ``entropy_tokens`` leaves padding out of the entropy and the
states. ``decay`` is that with what the code leaves to torch: AdamW of all parameters, norms too, whose decay is 0.01 there and 20
here, so that it shows at all.
"""

import torch
from torch_llama import answer_cross_entropy, every_cross_entropy, mean_where, token_losses

RATE, DECAY, SCALE, BETA = 2e-3, 0.2, 4.0, 0.1
EVERY = 2
"""Inner steps from one check to the next."""


def simulate(net, weights, batches, losses, check, rule):
    """Follows an attacker, and sums a loss and its gradients at the weights on the way, as if they were those at the start."""
    moved = {name: value.detach().clone().requires_grad_() for name, value in weights.items()}
    optimizer = rule(list(moved.values()))
    total, gradient = 0.0, {name: torch.zeros_like(value) for name, value in weights.items()}
    for k, (batch, loss) in enumerate(zip(batches, losses, strict=True)):
        optimizer.zero_grad()
        loss(net(moved, batch).logits, batch).backward()
        optimizer.step()
        value = check(k, moved)
        if value is None:
            continue
        slopes = torch.autograd.grad(value, list(moved.values()), materialize_grads=True)
        total = total + value.detach()
        gradient = {name: gradient[name] + slope for name, slope in zip(moved, slopes, strict=True)}
    return total, gradient


def plus(net, weights, simulated, plain):
    """A loss and gradient beside those of a simulated attack."""
    value, gradient = simulated
    slopes = torch.autograd.grad(plain, list(weights.values()), materialize_grads=True)
    return value + plain.detach(), {name: gradient[name] + s for name, s in zip(weights, slopes, strict=True)}


def _scaled(weights, factor):
    return {name: (factor * value).detach() for name, value in weights.items()}


def _margin(net, weights, safe, harmful):
    sums = [-(token_losses(net(weights, b).logits, b.ids) * b.answer[:, 1:]).sum(-1) for b in (safe, harmful)]
    return sums[0] - sums[1]


def _form(entropy, everything, start, switch=0, padding=True, decay=0.0):
    """``switch``: inner steps of harmless data that the attacker begins with; ``padding``: whether it counts as tokens do."""

    def rule(moved):
        return torch.optim.AdamW(moved, lr=RATE, weight_decay=decay)

    def places(batch):
        return torch.ones_like(batch.real) if everything and padding else batch.real

    def form(net, weights, case, draws):
        policy, retained = _scaled(weights, start), _scaled(weights, 0.9)
        steps = len(case["attack"])
        batches = case["attack_retain"][:switch] + case["attack"][switch:]
        harmless = every_cross_entropy if everything else answer_cross_entropy
        harmful = every_cross_entropy if everything and entropy else answer_cross_entropy
        losses = [harmless] * switch + [harmful] * (steps - switch)

        def check(k, moved):
            if (k + 1) % EVERY:
                return None
            s = (k + 1) // EVERY - 1
            if entropy:
                logs = torch.log_softmax(net(moved, case["checks"][s]).logits, -1)
                resist = mean_where((logs.exp() * logs).sum(-1), places(case["checks"][s]))
            else:
                pair = case["safe_checks"][s], case["checks"][s]
                gain = _margin(net, moved, *pair) - _margin(net, policy, *pair).detach()
                resist = -torch.nn.functional.logsigmoid(BETA * gain).mean()
            return SCALE * torch.exp(torch.tensor(DECAY * (k - (steps - 1)), dtype=torch.float64)) * resist

        retain = case["retain"]
        now, then = net(weights, retain), net(retained, retain)
        lists = [[*o.stream[:-1], o.normed if everything else o.stream[-1]] for o in (now, then)]
        drift = torch.stack(
            [mean_where((a - b.detach()).norm(dim=-1), places(retain)) for a, b in zip(*lists, strict=True)]
        )
        plain = harmless(now.logits, retain) + drift.mean()
        return plus(net, weights, simulate(net, weights, batches, losses, check, rule), plain)

    return form


FORMS = {
    "paper": _form(entropy=False, everything=False, start=0.9),
    "entropy_repository": _form(entropy=True, everything=True, start=0.95),
    "dpo_repository": _form(entropy=False, everything=True, start=0.95, switch=2),
    "entropy_tokens": _form(entropy=True, everything=True, start=0.95, padding=False),
    "decay": _form(entropy=True, everything=True, start=0.95, padding=False, decay=20.0),
}
