"""What a guarded start model is known by, where recorded numbers rest on one that every machine makes for itself."""

import json
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from immunax.data.dialog import Split
from immunax.judges.evaluate import Evaluation, held_out
from immunax.judges.refusal import Refusal
from immunax.models import speech
from immunax.models.generate import Decoding
from immunax.models.model import Params
from immunax.runtime import cache, console, digest
from immunax.runtime.manifest import versions
from immunax.stages.asking import evaluate
from immunax.stages.setup import Setup

_FILE = "refusal.json"


@dataclass(frozen=True)
class Fingerprint:
    """How often the start model refuses harmful prompts of the validation split.

    Another number of threads, processor or device rounds otherwise, and training makes another model of that: what it does
    under attack compares with runs on the same machine alone.

    Attributes:
      refusal: the share where the recorded numbers were made.
      within: how far off a model may be to count as the same.
      prompts: how many are asked.
      max_length: tokens of a prompt.
      max_new_tokens: of an answer.
    """

    refusal: float
    within: float
    prompts: int = 40
    max_length: int = 40
    max_new_tokens: int = 12

    def check(self, setup: Setup, params: Params) -> float:
        """Says in one line where the model is another one.

        Args:
          setup: model, tokenizer and data.
          params: the start model's weights.

        Returns:
          Its share of refusals.
        """
        key = {
            "weights": digest.of_tree(params),
            "data": setup.digests["data"],
            "speech": speech.digests(setup.checkpoint.tokenizer),
            "model": repr(setup.model),
            "prompts": self.prompts,
            "max_new_tokens": self.max_new_tokens,
            "versions": versions(),
        }
        share = cache.get_or_make("fingerprint", key, lambda: _ask(self, setup, params), _read, _write, [_ask])
        if abs(share - self.refusal) > self.within:
            console.note(
                f"the guarded start model refuses {share:.2f} of {self.prompts} validation prompts, not {self.refusal:.2f} "
                "as where recorded numbers were made: it was rounded otherwise here; compare with runs of this machine alone"
            )
        return share


def _ask(asked: Fingerprint, setup: Setup, params: Params) -> float:
    evaluation = Evaluation(
        {"refusal": Refusal()},
        split="validation",
        prompts=asked.prompts,
        max_length=asked.max_length,
        decoding=Decoding(asked.max_new_tokens),
        batch_size=asked.prompts,
    )
    tokenizer, split = setup.checkpoint.tokenizer, setup.splits.validation
    # As safe dialogs alone: no given answer is weighed.
    material = held_out(evaluation, tokenizer, Split(safe=split.harmful or split.safe))
    scores = evaluate(evaluation, setup.model, params, tokenizer, material, jax.random.key(0))
    return float(1.0 - np.nanmean(scores.judged["refusal"]))


def _read(folder: Path) -> float:
    return json.loads((folder / _FILE).read_text())


def _write(share: float, folder: Path) -> None:
    (folder / _FILE).write_text(json.dumps(share))
