"""Random mapping, the safeguard that TAR starts from.

Tamirisa et al. 2024 (arXiv:2408.00761, appendix) and the authors' code:

    L = CE(x_r) + mean over {h_0, ..., h_L} and the tokens of x_h of 1 − |cos(h, r)|

r is one Gaussian vector for each token id of the vocabulary, drawn once: harmful text is mapped to what says nothing
about it but its current token.

The defaults are the paper's symbols. The code (rishub-tamirisa/tamper-resistance) has ``labels=all_tokens``, CE(x_r) of prompts
too; ``last_state=normed``, h_L past the final norm; and ``padding``, its end-of-text token, which is mapped as any other.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from immunax.defenses.representations import LAST_STATES, cosine, states, token_mean
from immunax.inner.losses import LABELS, answer_loss
from immunax.inner.padding import padded_with
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.runtime.errors import check_choice


@dataclass(frozen=True)
class RandomMapping(Defense):
    """The objective above.

    Attributes:
      weight: of the mapping.
      labels: of the cross entropy on x_r: ``answers`` or ``all_tokens``.
      last_state: h_L: ``stream`` or ``normed``.
      padding: the token id as which padding is mapped; None for not at all.
      mixture: harmful and harmless examples a step.
    """

    needs = ("harmful", "retain")

    weight: float = 1.0
    labels: str = "answers"
    last_state: str = "stream"
    padding: int | None = None
    mixture: Mixture = Mixture(harmful=8, retain=8)

    def __post_init__(self):
        super().__post_init__()
        check_choice("defense.labels", self.labels, LABELS)
        check_choice("defense.last_state", self.last_state, LAST_STATES)

    def init(self, model: Model, params: Params, batch: StreamBatch, key: jax.Array) -> jax.Array:
        """The key of the vectors: they are made again where they are needed, one for each token of a batch."""
        return key

    def loss(self, model: Model, params: Params, state: jax.Array, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, and its terms before weighting."""
        harmful = padded_with(batch.harmful, self.padding)
        hidden = states(model, params, harmful, tuple(range(model.config.n_layers + 1)), self.last_state)
        random = token_vectors(state, harmful.tokens, model.config.d_model)
        mapping = token_mean(1 - jnp.abs(cosine(hidden, random)), harmful)
        retain = answer_loss(model, params, LABELS[self.labels](batch.retain))
        return retain + self.weight * mapping, {"mapping": mapping, "retain": retain}


def token_vectors(key: jax.Array, tokens: jax.Array, width: int) -> jax.Array:
    """A standard Gaussian vector of each token id ``[B, T]``, the same for one id wherever it stands: ``[B, T, width]``."""
    draw = jax.vmap(lambda token: jax.random.normal(jax.random.fold_in(key, token), (width,)))
    return draw(tokens.reshape(-1)).reshape(*tokens.shape, width)
