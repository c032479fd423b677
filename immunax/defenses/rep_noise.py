"""Representation noising.

Rosati et al. 2024, *Representation noising effectively prevents harmful fine-tuning on LLMs* (arXiv:2405.14577):

    L = CE(x_s) + β · noise − α · log(1 + mean over {h_0, ..., h_L} of CE_h)

- ``CE_h`` at the hidden state h_i is the cross entropy of the harmful answer under ``lm_head(final_norm(h_i))``; the
  output is h_L, and h_0 ... h_{L−1} are the residual stream before each layer.
- ``noise`` is the mean over layers of a multi-kernel MMD between the MLP outputs on x_h, flattened per example, and
  standard Gaussian noise, both under the mask of the positions where the token sequences of x_s and x_h differ.
- Pairs share the prompt, so that the mask leaves the prompt's own representations alone. Past the end of the shorter
  sequence all positions differ; of x_h none are left where it is the shorter one, but for padding that counts as tokens.

Three forms of it have been published, and four options make them:

====================  ==========  ===========  ==========  ====================
form                  labels      noise_on     output      padding
====================  ==========  ===========  ==========  ====================
the paper's, default  answer      differing    once        null
authors' repository   differing   differing    twice       their end-of-text id
authors' re-run       answer      answer       twice       null
====================  ==========  ===========  ==========  ====================

The repository is domenicrosati/representation-noising: see :mod:`~immunax.defenses.pairs` for its labels and
:mod:`~immunax.defenses.logit_lens` for its layers. It pads with the end-of-text token, which is a label where one sequence is
longer. The re-run is the one of Qi et al. 2024 on durability (arXiv:2412.07097; boyiwei/RepNoise-Reproduce, ``minimality-mmd``).

A mixture with harmless examples adds ``γ · CE(x_r)``, which the paper does not have: with refusals as the only safe
answers, nothing else holds the model's ordinary abilities.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from immunax.data.batches import Batch
from immunax.defenses.logit_lens import OUTPUTS, every_layer_loss
from immunax.defenses.mmd import multi_kernel_mmd
from immunax.defenses.pairs import PAIR_LABELS, check_labels, labels_loss
from immunax.inner.losses import answer_loss
from immunax.inner.padding import padded_with
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.runtime.errors import check_choice
from immunax.runtime.mesh import split_rows


def differing_positions(safe: Batch, harmful: Batch) -> jax.Array:
    """Where the sequences of each pair differ, and the harmful one has a token, ``[B, T]`` bool.

    Padding is a token where :func:`~immunax.inner.padding.padded_with` made it one.
    """
    differ = (safe.tokens != harmful.tokens) | (safe.segment_ids == 0)
    return differ & (harmful.segment_ids != 0)


def answer_positions(safe: Batch, harmful: Batch) -> jax.Array:
    """Where the tokens of the harmful answers are, ``[B, T]`` bool."""
    rows = jnp.arange(len(harmful.tokens))[:, None]
    nowhere = jnp.zeros(harmful.tokens.shape, bool)
    return nowhere.at[rows, harmful.answer_index + 1].max(harmful.answer_weight > 0, mode="drop")


NOISE_ON: Mapping[str, Callable[[Batch, Batch], jax.Array]] = {
    "differing": differing_positions,
    "answer": answer_positions,
}
"""Which positions' representations are to be noise."""


@dataclass(frozen=True)
class RepNoise(Defense):
    """The objective above.

    Attributes:
      alpha: weight of the ascent on harmful answers.
      beta: weight of the noise.
      gamma: weight of harmless examples; without effect where the mixture has none.
      labels: of the cross entropies on x_s and x_h: ``answer`` or ``differing``.
      noise_on: positions whose representations are to be noise: ``differing`` or ``answer``.
      output: how often the output counts among the layers: ``once`` or ``twice``.
      padding: the token id that the shorter of a pair is padded with, which then is noise, and learned with
        ``labels=differing``, as other tokens are; None for none.
      mixture: pairs a step, and harmless examples, 0 for the objective as published.
    """

    needs = ("paired", "safe")

    alpha: float = 1.0
    beta: float = 0.001
    gamma: float = 1.0
    labels: str = "answer"
    noise_on: str = "differing"
    output: str = "once"
    padding: int | None = None
    mixture: Mixture = Mixture(safe=8, harmful=8, paired=True)

    def __post_init__(self):
        super().__post_init__()
        check_labels(self.labels, self.mixture)
        check_choice("defense.noise_on", self.noise_on, NOISE_ON)
        check_choice("defense.output", self.output, OUTPUTS)

    def loss(self, model: Model, params: Params, state: tuple, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, and its terms before weighting."""
        pair = padded_with(batch.safe, self.padding), padded_with(batch.harmful, self.padding)
        learned, unlearned = (PAIR_LABELS[self.labels](*sides) for sides in (pair, pair[::-1]))
        safe = labels_loss(model, params, learned)
        harmful = unlearned.batch
        outputs = model.apply(params, harmful.tokens, harmful.segment_ids, harmful.positions, capture=True)
        layers = every_layer_loss(model, params, outputs, unlearned, self.output)
        noise = noise_distance(outputs.mlp, NOISE_ON[self.noise_on](*pair), key)
        ascent = jnp.log1p(layers)
        total = safe + self.beta * noise - self.alpha * ascent
        metrics = {"safe": safe, "noise": noise, "harmful_layers": layers}
        if batch.retain is None:
            return total, metrics
        retain = answer_loss(model, params, batch.retain)
        return total + self.gamma * retain, metrics | {"retain": retain}


def gaussian(key: jax.Array, activations: jax.Array) -> jax.Array:
    """Noise of the shape of ``[L, B, T, D]``; a row's does not depend on how many rows there are."""

    def draw(row: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(key, row), activations[:, 0].shape, activations.dtype)

    return jax.vmap(draw, out_axes=1)(jnp.arange(activations.shape[1]))


def noise_distance(activations: jax.Array, mask: jax.Array, key: jax.Array) -> jax.Array:
    """Mean over layers of the MMD between masked activations and masked standard Gaussian noise.

    Args:
      activations: ``[L, B, T, D]``.
      mask: ``[B, T]`` bool, the positions that count; a row without any is padding, and no member of the sample.
      key: of the noise.

    Returns:
      A float32 scalar.
    """
    n_layers, rows = activations.shape[:2]
    noise = gaussian(key, activations)

    def flat(values: jax.Array) -> jax.Array:
        # Distances are between all pairs of rows: over devices the numbers of a row are split, and not the rows.
        return split_rows(jnp.where(mask[None, :, :, None], values, 0.0).reshape(n_layers, rows, -1), 2)

    return jax.vmap(partial(multi_kernel_mmd, weights=mask.any(axis=1)))(flat(activations), flat(noise)).mean()
