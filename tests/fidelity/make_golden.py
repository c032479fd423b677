"""Makes the files that the tests beside it compare with, in PyTorch, from formulas written without this package.

    uv run --no-project --with torch --with transformers python tests/fidelity/make_golden.py [METHOD ...]

Each file in ``references`` is one method as its paper or its authors' code has it: ``FORMS``, by name, functions
``form(net, weights, case, draws)`` of a model, its weights, a case's examples by stream, and a source of normal numbers. It gives
a loss, which is differentiated here, or a loss and its gradient by weight, or by whatever else trains. For each form and case
``golden/METHOD.npz`` holds ``FORM.CASE.loss``, ``FORM.CASE.gradient`` (all that trains in the order of the names, one vector) and
what was drawn.

The cases: ``equal`` has no padding, in ``padded`` the answers' lengths differ, in ``shared`` the two answers of a pair have
tokens in common too.
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from torch_llama import LENGTH, Net, Rows, rows

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
SIZES = {
    "vocab_size": 40,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CASES = ("equal", "padded", "shared")
PAIRS, STEPS, CHECKS, SMALL = 3, 4, 2, 2
"""Examples of a stream; inner steps and checks of a simulated attack, and the examples of each."""


class Draws:
    """Standard normal numbers, kept by name for the other side; the first ones of a name stay."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        self.kept: dict[str, np.ndarray] = {}

    def normal(self, name: str, shape) -> torch.Tensor:
        """Numbers that float32 holds."""
        if name not in self.kept:
            self.kept[name] = torch.randn(tuple(shape), generator=self.generator, dtype=torch.float32).numpy()
        return torch.from_numpy(self.kept[name]).double()


def make_model() -> None:
    """Saves a random model whose every part matters."""
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.3 * noise if "norm" in name else 0.5 * noise)
    model.save_pretrained(GOLDEN / "model")
    (GOLDEN / "model" / "generation_config.json").unlink()


def make_cases() -> dict:
    """Random examples by case and stream; ``attack`` and ``checks`` are lists of batches."""
    return {name: _case(name, np.random.default_rng(seed)) for seed, name in enumerate(CASES)}


def _case(name: str, rng: np.random.Generator) -> dict:
    def ids(count: int) -> list[int]:
        return rng.integers(3, SIZES["vocab_size"], count).tolist()

    def sizes() -> tuple[int, int, int]:
        if name == "equal":
            return 5, LENGTH - 5, LENGTH - 5
        prompt = int(rng.integers(3, 6))
        return prompt, int(rng.integers(3, 6)), int(rng.integers(5, LENGTH - prompt + 1))

    def pair(number: int) -> tuple[tuple, tuple]:
        """A safe and a harmful answer; the longer one is now this, now that."""
        size, *lengths = sizes()
        prompt, answers = ids(size), [ids(length) for length in (lengths if number % 2 else lengths[::-1])]
        for column in range(min(lengths)):
            while answers[0][column] == answers[1][column]:
                answers[0][column] = ids(1)[0]
        if name == "shared":
            for column in ((0, 1), (0, 2), (1,))[number % 3]:
                answers[0][column] = answers[1][column]
        return (prompt, answers[0]), (prompt, answers[1])

    def pairs(count: int) -> tuple[list, list]:
        safe, harmful = zip(*(pair(number) for number in range(count)), strict=True)
        return list(safe), list(harmful)

    safe, harmful = pairs(PAIRS)
    checks = [pairs(SMALL) for _ in range(CHECKS)]
    return {
        "safe": safe,
        "harmful": harmful,
        "retain": pairs(PAIRS)[0],
        "attack": [pairs(SMALL)[1] for _ in range(STEPS)],
        "attack_retain": [pairs(SMALL)[0] for _ in range(STEPS)],
        "checks": [part[1] for part in checks],
        "safe_checks": [part[0] for part in checks],
    }


def laid_out(case: dict) -> dict[str, Rows | list[Rows]]:
    """A case's streams as arrays."""

    def batch(stream):
        nested = isinstance(stream[0][0][0], list)
        return [rows(part) for part in stream] if nested else rows(stream)

    return {name: batch(stream) for name, stream in case.items()}


def measure(form, net: Net, case: dict, seed: int) -> tuple[float, np.ndarray, dict[str, np.ndarray]]:
    """A form's loss, its gradient as one vector, and what it drew."""
    weights, draws = net.weights(), Draws(seed)
    result = form(net, weights, case, draws)
    loss, gradient = result if isinstance(result, tuple) else (result, _gradient(result, weights))
    flat = torch.cat([gradient[name].detach().reshape(-1) for name in sorted(gradient)])
    return float(loss.detach()), flat.float().numpy(), draws.kept


def _gradient(loss: torch.Tensor, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(zip(weights, torch.autograd.grad(loss, list(weights.values()), materialize_grads=True), strict=True))


def main(chosen: list[str]) -> None:
    """Makes the files of the methods named, or of all."""
    if not (GOLDEN / "model").exists():
        make_model()
        (GOLDEN / "cases.json").write_text(json.dumps(make_cases()) + "\n")
    cases = {name: laid_out(case) for name, case in json.loads((GOLDEN / "cases.json").read_text()).items()}
    for method in chosen or sorted(path.stem for path in (HERE / "references").glob("*.py")):
        model = transformers.LlamaForCausalLM.from_pretrained(GOLDEN / "model", attn_implementation="eager")
        net, arrays = Net(model), {}
        for name, form in importlib.import_module(f"references.{method}").FORMS.items():
            for seed, case in enumerate(CASES):
                loss, gradient, drawn = measure(form, net, cases[case], seed)
                named = {"loss": np.float64(loss), "gradient": gradient, **drawn}
                arrays |= {f"{name}.{case}.{key}": value for key, value in named.items()}
                print(f"{method} {name} {case}: loss {loss:.6f}, gradient {np.linalg.norm(gradient):.6f}")
        np.savez_compressed(GOLDEN / f"{method}.npz", **arrays)


if __name__ == "__main__":
    main(sys.argv[1:])
