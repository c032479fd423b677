"""Sheshadri et al. 2024, latent adversarial training, at the embedding and what the first layer writes.

Two inner steps at 0.1 in balls of 0.3. What they find is stored beside the loss and the gradient at it: the ratio of Adam's
moments makes the rounding of small gradients large. Weights 0.3 and 0.4, and 0.5 of CE(harmless). ``paper``: no threshold, no
decay. ``llama2``: the authors' code (aengusl/latent-adversarial-training) with its threshold and AdamW's decay. ``llama3``: there
answers are perturbed too, and 0.1 of a divergence from the start model, nine tenths of the weights, stands for CE(harmless).
``updated`` is ``llama2`` after an update of the weights, here of gradient descent: a perturbation and its batch serve several.
"""

import torch
from references.booster import slope
from references.rmu import start_of
from torch_hooks import embedded, layer_outputs
from torch_llama import answer_cross_entropy, mean_where, token_losses

STEPS, RATE, RADIUS = 2, 0.1, 0.3
TOWARD, AWAY, SFT, KL = 0.3, 0.4, 0.5, 0.1
UPDATE = 0.01


def unlikelihood(logits, batch, threshold):
    """Mean over the answers' tokens of −log(1 − p), 0 where log p is below the threshold."""
    losses = token_losses(logits, batch.ids)
    values = -torch.log1p(-torch.exp(-losses))
    if threshold is not None:
        values = torch.where(-losses < threshold, torch.zeros_like(values), values)
    return mean_where(values, batch.answer[:, 1:])


def _logits(net, weights, batch, moves, mask):
    masked = [move * mask[..., None] for move in moves]
    with embedded(net, masked[0]), layer_outputs(net, "layer", [masked[1], torch.zeros_like(masked[1])]):
        return net(weights, batch).logits


def adversary(net, weights, case, mask, threshold, decay):
    """What perturbs the two rows after the inner steps."""
    fixed = {name: value.detach() for name, value in weights.items()}
    shape = (*mask.shape, net.model.config.hidden_size)
    moves = [torch.zeros(shape, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    optimizer = torch.optim.AdamW(moves, lr=RATE, weight_decay=decay)
    for _ in range(STEPS):
        optimizer.zero_grad()
        toward = answer_cross_entropy(_logits(net, fixed, case["harmful"], moves, mask), case["harmful"])
        away = unlikelihood(_logits(net, fixed, case["safe"], moves, mask), case["safe"], threshold)
        (TOWARD * toward + AWAY * away).backward()
        optimizer.step()
        with torch.no_grad():
            for move in moves:
                move /= (move.norm(dim=-1, keepdim=True) / RADIUS).clamp(min=1)
    return [(move.detach() * mask[..., None]).float().double() for move in moves]


def divergence(net, weights, batch):
    """Mean over answers' tokens and the vocabulary of p log(p / p⁰), predicted at those tokens, over its own value."""
    where = batch.answer.bool()
    now, then = (torch.log_softmax(net(each, batch).logits[where], -1) for each in (weights, start_of(weights)))
    value = (now.exp() * (now - then)).mean()
    return value / (value.detach() + 1e-8)


def _form(answers, threshold, decay, divergent, update=0.0):
    """``update``: length of the step, by the gradient, between finding the perturbation and the loss."""

    def form(net, weights, case, draws):
        safe, harmful, retain = case["safe"], case["harmful"], case["retain"]
        mask = (safe.real | harmful.real) if answers else safe.real - safe.answer
        moves = adversary(net, weights, case, mask, threshold, decay)
        draws.kept["found"] = torch.stack(moves).float().numpy()

        def objective(at):
            toward = answer_cross_entropy(_logits(net, at, safe, moves, mask), safe)
            away = unlikelihood(_logits(net, at, harmful, moves, mask), harmful, threshold)
            total = TOWARD * toward + AWAY * away
            if divergent:
                return total + KL * divergence(net, at, retain)
            return total + SFT * answer_cross_entropy(net(at, retain).logits, retain)

        if not update:
            return objective(weights)
        slopes = slope(objective, weights)[1]
        return slope(objective, {name: value - update * slopes[name] for name, value in weights.items()})

    return form


FORMS = {
    "paper": _form(False, None, 0.0, False),
    "llama2": _form(False, -5.0, 0.01, False),
    "llama3": _form(True, -5.0, 0.01, True),
    "updated": _form(False, -5.0, 0.01, False, UPDATE),
}
