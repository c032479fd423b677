"""Populations of attacks, as certificates run them."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from accelerated.examples import attack_examples
from accelerated.models import model_of
from accelerated.training import spec_of
from accelerated.work import Work, peak_bytes, random_weights, timed
from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.tuning import Tuning
from immunax.campaign.first_steps import share_first_steps
from immunax.campaign.population import Runner
from immunax.campaign.programs import Program, sort
from immunax.campaign.stretch import Start, Stretch
from immunax.data.chat import Counts
from immunax.inner.optimizers import AdamW
from immunax.inner.population import map_members
from immunax.models.flops import training_flops


def members(sizes: Mapping[str, Any], platform: str) -> Program:
    """The attacks of a case: every rate with every seed, of one program."""
    model = model_of(sizes, platform)
    attacks = [
        HarmfulSFT(sizes["samples"], _tuning(sizes, rate, seed))
        for rate in np.geomspace(5e-5, 4e-4, sizes["rates"]).tolist()
        for seed in range(sizes["seeds"])
    ]
    encoded = []
    for attack in attacks:
        drawn = attack_examples(sizes["samples"], sizes["length"], model.config.vocab_size, attack.tuning.seed)
        encoded.append((attack.tuning.batches(drawn), Counts(len(drawn), 0, 0)))
    (program,) = sort(attacks, encoded)
    return program


def _tuning(sizes: Mapping[str, Any], rate: float, seed: int) -> Tuning:
    return Tuning(
        epochs=sizes["steps"],
        batch_size=sizes["samples"],
        optimizer=AdamW(rate, "cosine", 0.1),
        lora=spec_of(sizes),
        max_length=sizes["length"],
        seed=seed,
    )


def _weights(sizes: Mapping[str, Any], platform: str) -> Any:
    """Those that no member trains are held in the dtype of the computation."""
    model = model_of(sizes, platform)
    return random_weights(model, model.dtype if sizes["lora"] else "float32")


def measure_population(sizes: Mapping[str, Any], platform: str) -> dict[str, Any]:
    """Times all members from their first step, shared where they start alike, to their last."""
    model, part = model_of(sizes, platform), members(sizes, platform)
    params, count = _weights(sizes, platform), len(part.places)
    own = jax.block_until_ready(part.own(params, jax.random.key(0)))
    last: Any = None

    def run() -> None:
        nonlocal last
        mine, first_steps = share_first_steps(part, model, params, own)
        turns = Runner(part, model, params, mine, first_steps, None).run(1)
        last = [(turn.losses[:, -1], turn.diverged_at, first_steps is not None) for turn in turns]

    begin = time.perf_counter()
    run()
    compile_seconds = time.perf_counter() - begin
    seconds = timed(run, lambda: None, sizes["repeats"])  # losses come back to the host, so that all is there
    shared = last[0][-1]
    examples = [size for member in range(count) for size in part.trained_on(member, 0, part.steps, shared)]
    return {
        "seconds": seconds,
        "units": count,
        "flops": training_flops(model.config, examples, spec_of(sizes)),
        "peak_bytes": peak_bytes(),
        "compile_seconds": compile_seconds,
        "details": {
            "turns": len(last),
            "shared first steps": shared,
            "diverged": int(sum((turn[1] >= 0).sum() for turn in last)),
            "mean last loss": float(np.mean(np.concatenate([turn[0] for turn in last]))),
        },
    }


def stretch_work(sizes: Mapping[str, Any], platform: str) -> Work:
    """All steps of all members at once, first steps not shared, for asking the compiler."""
    model, part = model_of(sizes, platform), members(sizes, platform)
    start, stretch = Start(part.form, model), Stretch(part.form, model)

    def inputs(weights: Any) -> tuple[Any, Any, Any]:
        batches = part.batches.of(range(len(part.places)), 0, part.steps)
        each = jax.tree.map(jnp.asarray, batches), part.own(weights, jax.random.key(0))
        state = map_members(start, each[1], (weights, None))
        return state, each, (weights, jnp.int32(0), jnp.int32(part.steps))

    def advance(state: Any, each: Any, shared: Any) -> tuple[Any]:
        return (map_members(stretch, (state, *each), shared),)

    examples = [size for member in range(len(part.places)) for size in part.trained_on(member, 0, part.steps, False)]
    flops = training_flops(model.config, examples, spec_of(sizes))
    return Work(advance, partial(_weights, sizes, platform), inputs, len(part.places), flops, turns=part.steps)
