"""Representation noising.

Rosati et al. 2024, *Representation noising effectively prevents harmful fine-tuning on LLMs* (arXiv:2405.14577):

    L = CE(x_s) + β · noise − α · log(1 + mean over {h_0, ..., h_L} of CE_h)

- ``CE_h`` at the hidden state h_i is the cross entropy of the harmful answer under ``lm_head(final_norm(h_i))``; the
  output is h_L, and h_0 ... h_{L−1} are the residual stream before each layer.
- ``noise`` is the mean over layers of a multi-kernel MMD between the MLP outputs on x_h, flattened per example, and
  standard Gaussian noise, both under the mask of the positions where the token sequences of x_s and x_h differ.
- Pairs share the prompt, so that the mask leaves the prompt's own representations alone. Past the end of the shorter
  sequence all positions differ.

A mixture with harmless examples adds ``γ · CE(x_r)``, which the paper does not have: with refusals as the only safe
answers, nothing else holds the model's ordinary abilities.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from immunax.data.batches import Batch
from immunax.defenses.mmd import multi_kernel_mmd
from immunax.inner.losses import answer_loss, hidden_loss
from immunax.models.model import Model, Outputs, Params
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.runtime.mesh import split_rows


@dataclass(frozen=True)
class RepNoise(Defense):
    """The objective above.

    Attributes:
      alpha: weight of the ascent on harmful answers.
      beta: weight of the noise.
      gamma: weight of harmless examples; without effect where the mixture has none.
      mixture: pairs a step, and harmless examples, 0 for the objective as published.
    """

    needs = ("paired", "safe")

    alpha: float = 1.0
    beta: float = 0.001
    gamma: float = 1.0
    mixture: Mixture = Mixture(safe=8, harmful=8, paired=True)

    def loss(self, model: Model, params: Params, state: tuple, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, and its terms before weighting."""
        safe = answer_loss(model, params, batch.safe)
        harmful = batch.harmful
        outputs = model.apply(params, harmful.tokens, harmful.segment_ids, harmful.positions, capture=True)
        layers = every_layer_loss(model, params, outputs, harmful)
        noise = noise_distance(outputs.mlp, batch.safe.tokens != harmful.tokens, key)
        ascent = jnp.log1p(layers)
        total = safe + self.beta * noise - self.alpha * ascent
        metrics = {"safe": safe, "noise": noise, "harmful_layers": layers}
        if batch.retain is None:
            return total, metrics
        retain = answer_loss(model, params, batch.retain)
        return total + self.gamma * retain, metrics | {"retain": retain}


def every_layer_loss(model: Model, params: Params, outputs: Outputs, batch: Batch) -> jax.Array:
    """Mean over the L + 1 states of the residual stream of the answers' cross entropy, read by the logit lens.

    Args:
      model: static.
      params: weights.
      outputs: captured forward pass on ``batch``.
      batch: labels and weights.

    Returns:
      A float32 scalar, nats per token.
    """
    return hidden_loss(model, params, model.final_norm(params, outputs.residuals), batch)


def noise_distance(activations: jax.Array, mask: jax.Array, key: jax.Array) -> jax.Array:
    """Mean over layers of the MMD between masked activations and masked standard Gaussian noise.

    Args:
      activations: ``[L, B, T, D]``.
      mask: ``[B, T]`` bool, the positions that count; a row without any is padding, and no member of the sample.
      key: of the noise; a row's noise does not depend on how many rows there are.

    Returns:
      A float32 scalar.
    """
    n_layers, rows = activations.shape[:2]

    def draw(row: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(key, row), activations[:, 0].shape, activations.dtype)

    noise = jax.vmap(draw, out_axes=1)(jnp.arange(rows))

    def flat(values: jax.Array) -> jax.Array:
        # Distances are between all pairs of rows: over devices the numbers of a row are split, and not the rows.
        return split_rows(jnp.where(mask[None, :, :, None], values, 0.0).reshape(n_layers, rows, -1), 2)

    return jax.vmap(partial(multi_kernel_mmd, weights=mask.any(axis=1)))(flat(activations), flat(noise)).mean()
