"""Do the 95% statements of a certificate hold 95% of the time, and how many examples do the four conditions need?

    uv run python experiments/certificate_coverage/run.py

Worlds with known rates are drawn again and again, and the functions that certificates use make their statements about each.
Prompts differ in how hard they are, and every attack meets the same prompts, so that cells are as dependent as real ones.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from immunax.conditions.resistance import outcome, worst_rate
from immunax.conditions.statistics import Estimate, mean_difference, mean_ratio, rate_difference

HERE = Path(__file__).parent
SEED, WORLDS = 0, 1000
CELLS = 20
DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.normal(0.02, 0.3, n),
    "Laplace": lambda rng, n: rng.laplace(0.02, 0.2, n),
    "Student t, 3 degrees": lambda rng, n: 0.02 + 0.2 * rng.standard_t(3, n),
    "lognormal, σ = 0.5": lambda rng, n: rng.lognormal(0, 0.5, n) - 1,
    "lognormal, σ = 1": lambda rng, n: 0.3 * (rng.lognormal(0, 1, n) - 1),
}


def share(hits: list[bool]) -> dict[str, float]:
    """The share of worlds in which a statement held, with its exact 95% interval."""
    interval = stats.binomtest(sum(hits), len(hits)).proportion_ci(0.95, "exact")
    return {"share": float(np.mean(hits)), "low": float(interval.low), "high": float(interval.high)}


def answers(rng: np.random.Generator, rates: np.ndarray, prompts: int) -> np.ndarray:
    """Harmful answers ``[A]`` of attacks with known rates to the same prompts, whose difficulty they share."""
    hard = rng.normal(0, 1, prompts)
    noise = rng.normal(0, 1, (len(rates), prompts))
    latent = np.sqrt(0.5) * hard + np.sqrt(0.5) * noise
    return (latent < stats.norm.ppf(rates)[:, None]).sum(axis=1)


def table(harmful: np.ndarray, prompts: int) -> pd.DataFrame:
    """Points as :func:`~immunax.conditions.resistance.worst_rate` reads them."""
    return pd.DataFrame({"harmful": harmful, "trials": prompts})


def worst_case(rng: np.random.Generator, prompts: int, highest: float) -> list[bool]:
    """Whether the interval of the worst case covers the highest true rate."""
    found = []
    for _ in range(WORLDS):
        rates = np.append(rng.uniform(0.01, highest, CELLS - 1), highest)
        worst = worst_rate(table(answers(rng, rates, prompts), prompts), 0.95)
        found.append(worst.low <= highest <= worst.high)
    return found


def difference(rng: np.random.Generator, examples: int, name: str) -> list[bool]:
    """Whether the interval of a mean difference per token covers the true one."""
    draw = DISTRIBUTIONS[name]
    true = float(draw(np.random.default_rng(1), 4_000_000).mean())
    found = []
    for _ in range(WORLDS):
        tokens = rng.integers(5, 40, examples).astype(float)
        base = tokens * rng.uniform(0.5, 2, examples)
        estimate = mean_difference(base + tokens * draw(rng, examples), base, tokens, 0.95)
        found.append(estimate.low <= true <= estimate.high)
    return found


def rates_apart(rng: np.random.Generator, examples: int, up: float, down: float) -> list[bool]:
    """Whether the interval of a difference of two rates on the same items covers the true one."""
    found = []
    for _ in range(WORLDS):
        kind = rng.choice(3, examples, p=[up, down, 1 - up - down])
        both = rng.random(examples) < 0.5
        first, second = (
            np.where(kind == 0, 1.0, np.where(kind == 1, 0.0, both)),
            np.where(kind == 1, 1.0, np.where(kind == 0, 0.0, both)),
        )
        estimate = rate_difference(first, second, 0.95)
        found.append(estimate.low <= up - down <= estimate.high)
    return found


def power(rng: np.random.Generator, examples: int) -> dict[str, float]:
    """How often each condition is decided where it is true by a fair margin: share of worlds that say ``holds``.

    Resistance: 20 attacks of rate 0.05 against a threshold of 0.25; generalization asks the same. Stability: no change of
    perplexity against a margin of 10%, and an accuracy that differs on one item in a hundred each way against one of 5 points.
    Trainability: the same loss against a margin of 10%.
    """
    said: dict[str, list[bool]] = {name: [] for name in ("resistance", "perplexity", "accuracy", "trainability")}
    for _ in range(WORLDS // 4):
        worst = worst_rate(table(answers(rng, np.full(CELLS, 0.05), examples), examples), 0.95)
        said["resistance"].append(outcome(worst, 0.25) == "holds")
        tokens = rng.integers(5, 40, examples).astype(float)
        base = tokens * rng.uniform(0.5, 2, examples)
        moved = base + tokens * rng.normal(0, 0.2, examples)
        change = mean_difference(moved, base, tokens, 0.95)
        said["perplexity"].append(outcome(Estimate(*map(np.exp, change)), 1.1) == "holds")
        said["trainability"].append(outcome(mean_ratio(moved, base, 0.95), 1.1) == "holds")
        kind = rng.choice(3, examples, p=[0.01, 0.01, 0.98])
        lost = rate_difference((kind == 0).astype(float), (kind == 1).astype(float), 0.95)
        said["accuracy"].append(outcome(lost, 0.05) == "holds")
    return {name: float(np.mean(values)) for name, values in said.items()}


def main() -> None:
    """Runs the simulation, and writes ``results.json`` and ``power.png``."""
    rng = np.random.default_rng(SEED)
    coverage = {
        f"worst of {CELLS} attacks, {n} prompts, highest rate {rate}": share(worst_case(rng, n, rate))
        for n in (20, 40, 100)
        for rate in (0.05, 0.3, 0.9)
    }
    coverage |= {
        f"mean difference, {n} examples, {name}": share(difference(rng, n, name))
        for n in (24, 40, 100)
        for name in DISTRIBUTIONS
    }
    coverage |= {
        f"difference of rates, {n} items, {up:.0%} up and {down:.0%} down": share(rates_apart(rng, n, up, down))
        for n in (24, 60, 200)
        for up, down in ((0.01, 0.01), (0.2, 0.05))
    }
    sizes = (24, 40, 60, 100, 200, 400)
    powers = {str(n): power(rng, n) for n in sizes}
    results = {"seed": SEED, "worlds": WORLDS, "coverage": coverage, "power": powers}
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name in powers["24"]:
        axes.plot(sizes, [powers[str(n)][name] for n in sizes], marker="o", label=name)
    axes.set(xscale="log", xlabel="prompts or examples", ylabel="share of worlds that say: holds", ylim=(0, 1.02))
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.minorticks_off()
    axes.legend(frameon=False)
    figure.savefig(HERE / "power.png", dpi=150)
    for name, each in coverage.items():
        print(f"{each['share']:.3f} [{each['low']:.3f}, {each['high']:.3f}]  {name}")
    print(json.dumps(powers, indent=1))


if __name__ == "__main__":
    main()
