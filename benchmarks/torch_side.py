"""Attacks of a folder that ``exchange.py`` wrote, by ``transformers`` and ``peft``, one after the other on all cores.

Needs no package but those and torch. Examples are padded to the longest of their batch, as the Hugging Face collator
does. Prints seconds and losses by attack and step, and the peak memory of the process, as JSON.
"""

import copy
import json
import resource
import sys
import time
from pathlib import Path

import torch  # pyright: ignore[reportMissingImports]
from peft import PeftModel  # pyright: ignore[reportMissingImports]
from transformers import AutoModelForCausalLM


def collate(batch):
    """Tokens, mask and labels ``[B, T]`` of ``(tokens, answer length)`` pairs."""
    width = max(len(tokens) for tokens, _ in batch)
    tokens, mask = torch.zeros(2, len(batch), width, dtype=torch.long)
    labels = torch.full((len(batch), width), -100)
    for row, (example, answer) in enumerate(batch):
        size = len(example)
        tokens[row, :size], mask[row, :size] = torch.tensor(example), 1
        labels[row, size - answer : size] = tokens[row, size - answer : size]
    return {"input_ids": tokens, "attention_mask": mask, "labels": labels}


def attack(model, rates, batches) -> tuple[list[float], list[float]]:
    """Seconds and losses by step of AdamW on whatever of the model is trainable."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0, fused=True)
    seconds, losses = [], []
    for rate, batch in zip(rates, batches, strict=True):
        inputs = collate(batch)
        begin = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = model(**inputs, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - begin)
        losses.append(float(loss.detach()))
    return seconds, losses


def main(folder: Path) -> None:
    """Runs them all."""
    said = json.loads((folder / "attacks.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)

    def fresh(number: int):
        if said["lora"]:
            adapters = str(folder / f"adapters-{number}")
            return PeftModel.from_pretrained(copy.deepcopy(base), adapters, is_trainable=True)
        return copy.deepcopy(base)

    first = said["attacks"][0]
    attack(
        fresh(0).train(), first["rates"][:1], first["batches"][:1]
    )  # a process's first step is slower than any other
    found = []
    for number, each in enumerate(said["attacks"]):
        found.append(attack(fresh(number).train(), each["rates"], each["batches"]))
        print(f"torch: attack {number + 1} of {len(said['attacks'])}", file=sys.stderr, flush=True)
    seconds, losses = zip(*found, strict=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "losses": losses, "peak_gib": peak}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
