"""Outer steps of defenses, as ``immunax.train`` takes them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from accelerated.examples import dense
from accelerated.models import model_of
from accelerated.work import Work, random_weights
from immunax.data.batches import Batch
from immunax.defenses.mlac import Mlac
from immunax.defenses.rep_noise import RepNoise
from immunax.defenses.tar import Tar
from immunax.inner.optimizers import AdamW
from immunax.outer.attacker import Attacker
from immunax.outer.defense import Defense, Mixture, StreamBatch
from immunax.outer.simulation import SimulatedAttack, Simulation
from immunax.outer.training import Training, begin, outer_step

Sizes = Mapping[str, Any]


def _rep_noise(sizes: Sizes) -> Defense:
    count = sizes["examples"]
    return RepNoise(mixture=Mixture(count, count, count, paired=True))


def _tar(sizes: Sizes) -> Defense:
    attacker = Attacker(learning_rates=(2e-6, 2e-5, 4e-5), retain_first=0.25)  # conf/defense/tar.yaml
    simulation = _simulation(sizes, paired=True, mixed=True)
    return Tar(attacker=attacker, mixture=Mixture(retain=sizes["examples"], simulation=simulation))


def _mlac(sizes: Sizes) -> Defense:
    count = sizes["examples"]
    return Mlac(mixture=Mixture(safe=count, retain=count, simulation=_simulation(sizes)))


def _simulation(sizes: Sizes, **others: bool) -> Simulation:
    return Simulation(sizes["inner"], sizes["batch"], sizes["checks"], sizes["batch"], **others)


DEFENSES: Mapping[str, Callable[[Sizes], Defense]] = {"rep_noise": _rep_noise, "tar": _tar, "mlac": _mlac}
"""By the names of ``conf/defense``, with its values but for the sizes."""


def defense_work(sizes: Sizes, platform: str) -> Work:
    """One outer step on full rows, all of whose tokens are learned."""
    model, defense = model_of(sizes, platform), DEFENSES[sizes["defense"]](sizes)
    training = Training(steps=1000, optimizer=AdamW(2e-5), max_length=sizes["length"])
    batch = partial(_streams, defense.mixture, sizes["length"], model.config.vocab_size)

    def inputs(weights: Any) -> tuple[Any, StreamBatch]:
        data = batch()
        return begin(model, weights, defense, training, data), data

    def counted(state: Any, data: StreamBatch) -> Any:
        # The same number whatever computes attention.
        return outer_step(replace(model, remat="none", attention="blocks"), defense, training, state, data)

    def seen(outputs: Any) -> dict[str, Any]:
        return {"shape": sizes["shape"], "loss": float(outputs[1]["loss"])}

    return Work(
        partial(outer_step, model, defense, training),
        partial(random_weights, model),
        inputs,
        1,
        counted=counted,
        warm=1,
        seen=seen,
    )


def _streams(mixture: Mixture, length: int, vocab: int) -> StreamBatch:
    seeds = iter(range(100))

    def rows(*shape: int) -> Batch | None:
        return dense((*shape, length), vocab, next(seeds)) if shape[-1] else None

    simulation = None
    if mixture.simulation is not None:
        counts = mixture.simulation
        attack, checks = rows(counts.steps, counts.batch), rows(counts.checks, counts.check)
        safe = rows(counts.checks, counts.check) if counts.paired else None
        retain = rows(counts.steps, counts.batch) if counts.mixed else None
        simulation = SimulatedAttack(attack, checks, safe, retain)  # pyright: ignore[reportArgumentType]
    return StreamBatch(rows(mixture.safe), rows(mixture.harmful), rows(mixture.retain), simulation)
