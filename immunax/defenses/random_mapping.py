"""Random mapping, the safeguard that TAR starts from.

Tamirisa et al. 2024 (arXiv:2408.00761, appendix) and the authors' code:

    L = CE(x_r) + mean over {h_0, ..., h_L} and the tokens of x_h of 1 − |cos(h, r)|

r is one Gaussian vector for each token id of the vocabulary, drawn once: harmful text is mapped to what says nothing
about it but its current token.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from immunax.defenses.representations import cosine, states, token_mean
from immunax.inner.losses import answer_loss
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch


@dataclass(frozen=True)
class RandomMapping(Defense):
    """The objective above.

    Attributes:
      weight: of the mapping.
      mixture: harmful and harmless examples a step.
    """

    needs = ("harmful", "retain")

    weight: float = 1.0
    mixture: Mixture = Mixture(harmful=8, retain=8)

    def init(self, model: Model, params: Params, batch: StreamBatch, key: jax.Array) -> jax.Array:
        """The key of the vectors: they are made again where they are needed, one for each token of a batch."""
        return key

    def loss(self, model: Model, params: Params, state: jax.Array, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, and its terms before weighting."""
        hidden = states(model, params, batch.harmful, tuple(range(model.config.n_layers + 1)))
        random = token_vectors(state, batch.harmful.tokens, model.config.d_model)
        mapping = token_mean(1 - jnp.abs(cosine(hidden, random)), batch.harmful)
        retain = answer_loss(model, params, batch.retain)
        return retain + self.weight * mapping, {"mapping": mapping, "retain": retain}


def token_vectors(key: jax.Array, tokens: jax.Array, width: int) -> jax.Array:
    """A standard Gaussian vector of each token id ``[B, T]``, the same for one id wherever it stands: ``[B, T, width]``."""
    draw = jax.vmap(lambda token: jax.random.normal(jax.random.fold_in(key, token), (width,)))
    return draw(tokens.reshape(-1)).reshape(*tokens.shape, width)
