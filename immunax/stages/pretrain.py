"""A model that is made here: pretrained from random weights on a generated corpus, once, and cached by content."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import jax
from jax.sharding import Mesh

from immunax.data.dialog import Dialog, Split
from immunax.models.config import DecoderConfig
from immunax.models.hf_config import build_config
from immunax.models.hub import Checkpoint
from immunax.models.model import Model, Params
from immunax.models.word_level import END, PAD, word_level
from immunax.outer.defense import Defense
from immunax.outer.training import Training
from immunax.runtime import cache, digest, mesh
from immunax.runtime.errors import UserError
from immunax.runtime.manifest import versions
from immunax.stages.outer_loop import minimise


class PretrainingCorpus(Protocol):
    """What a model is pretrained on; frozen, built from YAML."""

    def pretraining(self) -> Sequence[Dialog]:
        """The dialogs."""
        ...

    def texts(self) -> Sequence[str]:
        """All that is ever written in this world: the tokenizer knows its words and no others."""
        ...


@dataclass(frozen=True)
class Pretrained:
    """A model source, as :class:`~immunax.models.hub.ModelSource`, that makes its model.

    Attributes:
      corpus: what it is trained on.
      decoder: its shape; the vocabulary may be larger than the tokenizer's.
      objective: the loss, on the corpus as the stream ``retain``.
      trainer: the budget; its seed also draws the first weights.
    """

    corpus: PretrainingCorpus
    decoder: DecoderConfig
    objective: Defense
    trainer: Training

    def shape(self) -> DecoderConfig:
        """The decoder's."""
        return self.decoder

    def load(self, devices: Mesh | None = None) -> Checkpoint:
        """Pretrains the model on one device, or takes it from the cache.

        Args:
          devices: the mesh that its weights are split over; None is the default device.

        Raises:
          UserError: the vocabulary is too small for the corpus, or the loss is not finite.
        """
        dialogs = tuple(self.corpus.pretraining())
        tokenizer = word_level(self.corpus.texts(), self.decoder.max_positions)
        if len(tokenizer) > self.decoder.vocab_size:
            raise UserError(
                f"model.decoder.vocab_size={self.decoder.vocab_size}: the corpus has {len(tokenizer)} words and markers; "
                "raise it."
            )

        def make() -> Params:
            model = Model(self.decoder)
            first = jax.jit(model.init)(jax.random.key(self.trainer.seed))
            data = Split(retain=dialogs)
            one = mesh.alone()
            first = mesh.shard(first, one)
            return minimise("pretrain", "pretrain", model, first, tokenizer, data, self.objective, self.trainer, one)

        def read(folder: Path) -> Params:
            return cache.read_arrays(folder, devices)

        key = {
            "source": asdict(self),
            "dialogs": digest.of_json([asdict(dialog) for dialog in dialogs]),
            "tokenizer": tokenizer.backend_tokenizer.to_str(),
            "versions": versions(),
        }
        params = cache.get_or_make("pretrained", key, make, read, cache.write_arrays, [self], alone=True)
        ids = {f"{name}_token_id": tokenizer.get_vocab()[token] for name, token in (("eos", END), ("pad", PAD))}
        return Checkpoint(
            config=self.decoder,
            params=params,
            tokenizer=tokenizer,
            hf_config=build_config(self.decoder, ids),
            dtype="float32",
            digests={"pretrained": digest.of_tree(params)},
            generation_config=ids,
        )
