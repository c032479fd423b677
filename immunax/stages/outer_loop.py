"""The outer loop for what is made once and cached, without checkpoints: pretraining, and implanting a guard."""

from typing import Any

from immunax.data.dialog import Split
from immunax.models.model import Model, Params
from immunax.outer import training as outer
from immunax.outer.defense import Defense
from immunax.outer.feed import feed
from immunax.runtime import console


def minimise(
    title: str,
    model: Model,
    params: Params,
    tokenizer: Any,
    split: Split,
    defense: Defense,
    training: outer.Training,
) -> Params:
    """Trains weights under a progress bar.

    Args:
      title: of the bar.
      model: static.
      params: where to start; untouched.
      tokenizer: the model's.
      split: training data.
      defense, training: what is minimised, and the budget.

    Returns:
      The weights after the last step.

    Raises:
      UserError: the data lack a stream, or the loss is not finite.
    """
    data = feed(tokenizer, split, defense.mixture, training)
    state = outer.begin(model, params, defense, training, data.batch(0))
    with console.progress(title, training.steps, "step") as bar:

        def log(step: int, scalars: dict[str, float]) -> None:
            bar.advance(loss=scalars["loss"])

        state, _ = outer.fit(model, defense, training, state, data.batch, log)
    return outer.released(model, defense, training, state)
