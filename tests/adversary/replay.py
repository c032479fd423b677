"""Certificates that only a run of their own shows to be forged, and configurations that a replay must not obey.

One certificate of a short suite on the organism is made for all that need one, and forged in copies.
"""

import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import certified
from adversary import commands
from adversary.attempt import CANARY, Attempt
from adversary.forge import good, model, sealed, stated, tabled

from immunax.certificate.verify import CELLS, RECORDS, tables
from immunax.conditions.records import JUDGED, SPECIAL, SUBJECT, UNATTACKED

_SUITE = (
    "suite=smoke", "judge.prompts=4", "judge.examples=4", "judge.batch_size=4", "judge.decoding.max_new_tokens=4",
    "suite.transfer_prompts=2", "suite.harmless_prompts=4", "suite.choices.count=3", "suite.task.samples=4",
    "suite.task.examples=4", "suite.task.tuning.epochs=2", "suite.task.measured=2", "suite.measured=1",
    "~suite.attacks.harmful_sft_lora", "~suite.attacks.refusal_ablation", "~suite.attacks.merge",
    "suite.attacks.harmful_sft.attack.tuning.epochs=1", "suite.held_out=[prune]", "suite.attacks.quantize.grid.bits=[8]",
    "suite.attacks.prune.grid.sparsity=[0.1]",
)  # fmt: skip
_ORGANISM = ("model=organism", "model.trainer.steps=4", "model.objective.examples=8", "start.trainer.steps=2", *_SUITE)
_FILES = (
    "data=fictional", "data.items=40", "judge=standard", "suite=smoke", "suite.choices=null", "suite.task=null",
    "~suite.attacks.harmful_sft_lora", "~suite.attacks.refusal_ablation", "~suite.attacks.merge", "~suite.attacks.harmful_sft",
    "suite.held_out=[prune]", "policy.utility.measure=retain_nll",
    "judge.prompts=4", "judge.examples=4", "judge.batch_size=4", "judge.max_length=500",
    "judge.decoding.max_new_tokens=4", "suite.transfer_prompts=2", "suite.harmless_prompts=4",
)  # fmt: skip


@cache
def _certified() -> Path:
    """The folder of a certificate of the organism, with the caches that it left."""
    home = Path(tempfile.mkdtemp())
    done = commands.run("certify", [*_ORGANISM, "run=whole"], home)
    assert done.status == 0, done.text
    return home


def _forged(name, change, count=99):
    """A replay of a certificate of which a table was changed, and all that follows computed anew."""

    def forge(folder):
        home = _certified()
        os.symlink(home / "cache", folder / "cache")
        shutil.copytree(home / "outputs" / "whole", folder / "c")
        path = certified.with_pages(tabled(folder / "c" / "certificate.json", name, change))
        return "verify again", path, "--replay", count

    return forge


def _state(table, cells, families):
    names = cells[(cells["model"] == SUBJECT) & cells["family"].isin(families)]["cell"]
    return table["cell"].isin(names)


def _made_up(measure, families=()):
    """Every value of a measure of some of the subject's families, of all attacks by default: other scores, half the losses."""

    def change(records):
        cells = tables(_certified() / "outputs" / "whole")[1]
        mine = _state(records, cells, families or set(cells["family"]) - set(SPECIAL))
        mine &= records["measure"].str.startswith(measure)
        assert mine.any()
        other = records["value"] * 0.5 if measure.endswith("nll") else 1 - records["value"]
        return records.assign(value=records["value"].where(~mine, other))

    return change


def _one_part_harmless(records):
    """The harmful answers of one judge, split and step of one cell, made harmless: few of all answers, and most of their own."""
    harmful = records["measure"].str.startswith(JUDGED) & (records["value"] >= 0.5)
    harmful &= records["cell"].str.startswith(f"{SUBJECT}-harmful_sft")
    part = ["cell", "step", "split", "measure"]
    most = records[harmful].groupby(part).size().idxmax()
    mine = harmful & (records[part] == list(most)).all(axis=1)
    assert mine.sum() > 1
    return records.assign(value=records["value"].where(~mine, 0.0))


def _cheap(column, factor):
    def change(cells):
        attacked = (cells["model"] == SUBJECT) & ~cells["family"].isin(SPECIAL)
        dearer = (cells[column] * factor).astype(cells[column].dtype)
        return cells.assign(**{column: cells[column].where(~attacked, dearer)})

    return change


def _again(change):
    """Certifies a folder, changes it, and certifies it again under the same run: nothing old may stand under the new digests."""

    def forge(folder):
        at = model(folder / "model")
        done = commands.run("certify", [f"model={at}", *_FILES, "run=r"], folder)
        assert done.status == 0, done.text
        change(at)
        return "certify", f"model={at}", *_FILES, "run=r"

    return forge


def _other_run(change):
    """Certifies a folder, changes it, and certifies it again as another run with the same cache."""

    def forge(folder):
        _, *arguments = _again(change)(folder)
        done = commands.run("certify", [*arguments[:-1], "run=other"], folder)
        assert done.status == 0, done.text
        return "compare", *(folder / "outputs" / run / RECORDS for run in ("r", "other"))

    return forge


def _other_weights(at):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(at / "model.safetensors")
    save_file({name: each * 1.25 for name, each in tensors.items()}, at / "model.safetensors")


def _other_template(at):
    path = at / "chat_template.jinja"
    path.write_text("The cat knew the answer.\n" + path.read_text())


def _named(place, node):
    """A replay of a certificate whose configuration names what is no class of ours."""

    def forge(folder):
        path = good(folder / "c")
        named = json.loads(json.dumps(node).replace("CANARY", str(folder / CANARY)))

        def change(said):
            config = said["suite"]["config"]
            parent = config
            *parents, last = place.split(".")
            for name in parents:
                parent = parent[name]
            parent[last] = {**parent[last], **named} if isinstance(parent.get(last), dict) else named

        return (
            "verify",
            certified.with_pages(sealed(stated(path, change))),
            "--model",
            path.parent / "model",
            "--replay",
            1,
        )

    return forge


_OBEYED = r"^error: the certificate's configuration \(\w+\) is not obeyed: "
_FAILED = r"^failed +replay"

ATTEMPTS = (
    Attempt(
        "A replayed configuration names os.system as its suite",
        _named("suite", {"_target_": "os.system", "command": "touch CANARY"}),
        2,
        _OBEYED,
    ),
    Attempt(
        "A replayed configuration names a function of the package",
        _named("suite", {"_target_": "immunax.runtime.atomic.directory"}),
        2,
        _OBEYED,
    ),
    Attempt(
        "The folder is another model at the second certificate",
        _again(_other_weights),
        2,
        r"(other|another|changed|differ)",
        "B4",
        slow=True,
    ),
    Attempt(
        "The template is another one at the second certificate, and the cache is the first one's",
        _other_run(_other_template),
        0,
        r"^measured anew",
        "B5",
        slow=True,
    ),
    Attempt(
        "Every judged answer of attacked models is made up", _forged(RECORDS, _made_up(JUDGED)), 1, _FAILED, slow=True
    ),
    Attempt(
        "The exact answers of attacked models are made up",
        _forged(RECORDS, _made_up("exact")),
        1,
        _FAILED,
        "B6",
        slow=True,
    ),
    Attempt(
        "The exact answers of the unattacked model are made up",
        _forged(RECORDS, _made_up("exact", (UNATTACKED,))),
        1,
        # Utility that was lost asks for further learning rates.
        r"^failed +(facts: the cells of the subject|replay)",
        "B6",
        slow=True,
    ),
    Attempt(
        "Over-refusal is made up",
        _forged(RECORDS, _made_up("over_refusal", (UNATTACKED,))),
        1,
        _FAILED,
        "B6",
        slow=True,
    ),
    Attempt(
        "The losses of the harmless task are made up",
        _forged(RECORDS, _made_up("task_nll", ("trainability",))),
        1,
        _FAILED,
        "B6",
        slow=True,
    ),
    Attempt(
        "Attacks cost a thousand times as many FLOPs",
        _forged(CELLS, _cheap("flops", 1000.0)),
        1,
        _FAILED,
        "B6",
        slow=True,
    ),
    Attempt(
        "Attacks took a tenth of their samples", _forged(CELLS, _cheap("samples", 0.1)), 1, _FAILED, "B6", slow=True
    ),
    Attempt(
        "The tolerance is spent on one judge, split and step",
        _forged(RECORDS, _one_part_harmless),
        1,
        _FAILED,
        "B7",
        slow=True,
    ),
)
