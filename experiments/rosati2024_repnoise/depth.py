"""How deep a defense goes: what a linear probe reads of harmful answers in every layer, and how far the layer's weights moved.

    uv run python experiments/rosati2024_repnoise/depth.py [OUTPUTS]    # of the league's models in OUTPUTS, outputs by default

Rosati et al. 2024 (arXiv:2405.14577) explain RepNoise by its depth. Two probes, logistic regressions on the residual stream
before each layer and behind the last, are fitted on the split ``attack`` and scored on ``test``: is a dialog harmful, read at the
last token of its answer; and which token comes next within a harmful answer, which asks for the facts themselves. Beside them
stands the distance of each layer's weights from those of the guarded model. Writes depth.json, depth.md and depth.svg here.
"""

import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from immunax.conditions.statistics import mean_of_runs
from immunax.data.batches import Batch
from immunax.data.chat import encode_all
from immunax.data.dialog import Dialog
from immunax.data.organism import OrganismTasks
from immunax.judges.likelihood import in_rows
from immunax.models.hub import ModelSource
from immunax.models.model import Model
from immunax.runs.plot import draw_on, legend, save, steady
from immunax.runs.series import Labels, Series
from immunax.runs.tables import Mean, Table, as_markdown

HERE = Path(__file__).parent
DEFENSES = ("undefended", "adversarial_loss", "rep_noise", "tar")
SEEDS = range(5)
LENGTH = 40
MEASURES = {
    "harmful": "a probe tells harmful from harmless dialogs",
    "next": "a probe reads the next token of a harmful answer",
    "moved": "distance of the weights, relative to their norm",
}


class Read:
    """The residual stream of a model over dialogs, ``[L + 1, N, D]``, at the tokens that predict an answer's, with these."""

    def __init__(self, model: Model, params: Any, tokenizer: Any, dialogs: Sequence[Dialog]):
        examples, _ = encode_all(tokenizer, dialogs, LENGTH)
        batch = jax.tree.map(lambda leaf: leaf[0], in_rows(examples, len(examples)))
        states = np.take_along_axis(
            np.asarray(_stream(model, params, batch)), batch.answer_index[None, :, :, None], axis=2
        )
        there = batch.answer_weight > 0
        self.next, self.label = states[:, there], batch.answer_label[there]
        last = there.cumsum(axis=1).argmax(axis=1)  # of each dialog, the token that predicts the end of its answer
        self.last = states[:, np.arange(len(last)), last]


@partial(jax.jit, static_argnums=0)
def _stream(model: Model, params: Any, batch: Batch) -> jax.Array:
    told = model.apply(params, batch.tokens, batch.segment_ids, batch.positions, capture=True)
    assert told.residuals is not None
    return told.residuals


def probed(states: np.ndarray, labels: np.ndarray, asked: np.ndarray, right: np.ndarray) -> float:
    """The accuracy of a linear probe.

    Args:
      states, labels: ``[N, D]`` and ``[N]`` to fit it on.
      asked, right: to score it on.
    """
    scale = StandardScaler().fit(states)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe = LogisticRegression(C=0.1, max_iter=300).fit(scale.transform(states), labels)
    return float(probe.score(scale.transform(asked), right))


def measured(path: Path, start: Any) -> dict[str, list[float]]:
    """What :data:`MEASURES` are of one model, by layer.

    Args:
      path: of its run.
      start: weights of the guarded model of the same seed.
    """
    checkpoint, splits = ModelSource(str(path)).load(), OrganismTasks().splits()
    model, params = Model(checkpoint.config), jax.tree.map(jnp.asarray, checkpoint.params)
    read = {
        (split, stream): Read(model, params, checkpoint.tokenizer, getattr(getattr(splits, split), stream))
        for split in ("attack", "test")
        for stream in ("harmful", "retain")
    }

    def both(split: str) -> tuple[np.ndarray, np.ndarray]:
        parts = [read[split, stream].last for stream in ("harmful", "retain")]
        return np.concatenate(parts, axis=1), np.repeat([1, 0], [part.shape[1] for part in parts])

    (fitted, sides), (asked, right) = both("attack"), both("test")
    harmful = [read[split, "harmful"] for split in ("attack", "test")]
    return {
        "harmful": [probed(one, sides, other, right) for one, other in zip(fitted, asked, strict=True)],
        "next": [
            probed(one, harmful[0].label, other, harmful[1].label)
            for one, other in zip(harmful[0].next, harmful[1].next, strict=True)
        ],
        "moved": _moved(params["layers"], start["layers"]),
    }


def _moved(layers: Any, start: Any) -> list[float]:
    """``‖W − W₀‖ / ‖W₀‖`` of all of a layer's weights, which are stacked along their first axis."""

    def squares(tree: Any) -> Any:
        return sum(
            np.square(leaf).reshape(len(leaf), -1).sum(axis=1) for leaf in map(np.asarray, jax.tree.leaves(tree))
        )

    return np.sqrt(squares(jax.tree.map(jnp.subtract, layers, start)) / squares(start)).tolist()


def series(found: Mapping[str, Mapping[str, Any]], measure: str) -> list[Series]:
    """One line a defense, means over seeds by layer."""
    lines = []
    for defense, runs in found.items():
        values = np.array([run[measure] for run in runs.values()])
        points = {layer: Mean(mean_of_runs(column), len(column), len(column)) for layer, column in enumerate(values.T)}
        lines.append(Series(defense, points))
    return lines


def draw(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes the picture and the tables."""
    from matplotlib.figure import Figure

    parts = []
    with steady():
        canvas = Figure(figsize=(13.2, 3.5), layout="constrained")
        for axes, (measure, title) in zip(canvas.subplots(1, len(MEASURES)), MEASURES.items(), strict=True):
            lines = series(found, measure)
            label = "relative distance" if measure == "moved" else "accuracy on held-out items"
            draw_on(axes, "lines", lines, Labels("layer", label, "defense"), "", 4.4)
            axes.set_title(title, fontsize=10)
            axes.legend(loc="best", **{**legend("defense"), "fontsize": 8, "title_fontsize": 8})
            rows = [[each.name, *each.points.values()] for each in lines]
            headings = ["defense", *(f"layer {layer}" for layer in lines[0].points)]
            parts.append(f"### {title}\n\n{as_markdown(Table(headings, rows))}")
        save(canvas, HERE / "depth.svg")
    note = "Means over five seeds with 95% intervals of Student's t; layer 4 is behind the last.\n"
    (HERE / "depth.md").write_text("\n".join([*parts, note]), encoding="utf-8")


def main(outputs: str = "outputs") -> None:
    """Measures every model and draws."""
    folder = Path(outputs) / "league-organism-train"
    found: dict[str, dict[str, Any]] = {}
    for seed in SEEDS:
        start = ModelSource(str(folder / f"seed={seed}+tuned=organism_undefended" / "model")).load().params
        for defense in DEFENSES:
            path = folder / f"seed={seed}+tuned=organism_{defense}" / "model"
            found.setdefault(defense, {})[str(seed)] = measured(path, start)
            print(f"{defense} {seed}", file=sys.stderr)
    (HERE / "depth.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(found)


if __name__ == "__main__":
    # Threads of linear algebra that wait for one another take minutes for what one does in a second.
    with threadpool_limits(1):
        main(*sys.argv[1:])
