"""Forged tables: numbers that were not measured, left out or there twice, with everything else computed anew."""

import os

import pandas as pd
import pyarrow
from adversary.attempt import Attempt
from adversary.forge import good, put, read, sealed, stated, tabled
from pyarrow import parquet

from immunax.certificate.verify import CELLS, RECORDS
from immunax.conditions.records import JUDGED
from immunax.runtime.digest import of_file
from immunax.runtime.errors import UserError

_FACTS = r"^failed +facts: .*"
_RECORDS = r"^failed +records .*"


def _forged(name, change, *options, full=False):
    """A table that was changed, with verdicts, limits and digests computed anew where that can be done."""

    def forge(folder):
        path = good(folder / "c", full=full)
        try:
            tabled(path, name, change)
        except UserError:  # no table that anything follows from
            stated(
                path,
                lambda said: said["records"][[RECORDS, CELLS].index(name)].update(digest=_digest(path.parent / name)),
            )
        return "verify", path, *(path.parent / each if each.endswith(".pem") else each for each in options)

    return forge


def _raw(name, write):
    """A file in the place of a table, and its digest in the statement."""

    def forge(folder):
        path = good(folder / "c")
        file = path.parent / name
        rows = write(file)
        at = [RECORDS, CELLS].index(name)
        return "verify", stated(path, lambda said: said["records"][at].update(rows=rows, digest=_digest(file)))

    return forge


def _digest(file):
    return {"sha256": of_file(file) if file.is_file() else "0" * 64}


def _harmless(records):
    return records.assign(value=records["value"].where(~records["measure"].str.startswith(JUDGED), 0.0))


def _worst(records):
    """The rows of the most harmful answers of the attacked model."""
    mine = records["cell"].isin(["subject-sft", "subject-lora"])
    return mine & records["measure"].str.startswith(JUDGED) & (records["value"] == 1.0)


def _free(cells):
    return cells.assign(flops=cells["flops"].where(cells["model"] == "reference", -1e30))


def _two_families(cells):
    """The second family's states under the name of the first one's cell: one drops out wherever cells are counted."""
    more = cells[cells["cell"] == "subject-sft"].assign(family="lora", step=6)
    return pd.concat([cells, more], ignore_index=True)


def _without_reference(folder):
    path = good(folder / "c")
    found = read(path)
    found["predicate"]["reference"] = None
    return "verify", tabled(put(path, found), RECORDS, lambda table: table)


def _orphans(records):
    more = records[records["cell"] == "subject-sft"].assign(cell="subject-other")
    return pd.concat([records, more], ignore_index=True)


def _unfolds(file):
    """Six million rows in a few kilobytes."""
    count = 6_000_000
    text, numbers, steps = (pyarrow.repeat(each, count) for each in ("x", 1.0, 0))
    columns = {"cell": text, "step": steps, "split": text, "measure": text, "unit": text}
    table = pyarrow.table({**columns, "value": numbers, "weight": numbers})
    parquet.write_table(table, file, compression="zstd")
    return count


def _columns(file):
    pd.DataFrame({"cell": ["x"], "step": [0], "verdict": ["holds"]}).to_parquet(file)
    return 1


def _no_number(records):
    return records.assign(value=records["value"].where(records.index > 0))


def _weightless(records):
    return records.assign(weight=records["weight"].where(records["value"] < 1, 0.0))


def _folder(file):
    file.unlink()
    file.mkdir()
    return 640


def _fifo(file):
    file.unlink()
    os.mkfifo(file)
    return 640


def _listed_twice(said):
    said["records"] = [said["records"][0]] * 2


def _only(cells):
    """The subject's cells of the fine-tuning."""
    return (cells["family"] == "lora") & (cells["model"] == "subject")


def _second_unattacked(cells):
    return pd.concat([cells, cells[cells["cell"] == "subject-none"].assign(cell="subject-none2")], ignore_index=True)


def _fractions(records):
    mine = records["measure"].isin(["exact", "over_refusal", "unfinished"])
    return records.assign(value=records["value"].where(~mine, 0.9))


def _kinds(records):
    more = [records.iloc[:1].assign(measure=f"m{each}", unit="x") for each in range(300)]
    return pd.concat([records, *more], ignore_index=True)


def _scaled(measure, value):
    return lambda records: records.assign(value=records["value"].where(records["measure"] != measure, value))


def _mute(said):
    said["speech"]["reference"] = None


def _speech_of_nobody(folder):
    return "verify", sealed(stated(good(folder / "c"), _mute))


def _without_cell(cells):
    return cells[cells["cell"] != "subject-lora"]


ATTEMPTS = (
    Attempt(
        "Attacks cost more on the model than on its reference",
        _forged(
            CELLS,
            lambda table: table.assign(flops=table["flops"].where(~_only(table), table["flops"] * 100)),
            full=True,
        ),
        1,
        _FACTS + "lora is measured at other costs on one model",
    ),
    Attempt(
        "A cell diverged in one of its states alone",
        _forged(CELLS, lambda table: table.assign(diverged=_only(table) & (table["step"] == 8)), full=True),
        1,
        _FACTS + "a cell is of two attacks",
    ),
    Attempt(
        "A learning rate is written as a text, and no edge is seen",
        _forged(
            CELLS, lambda table: table.assign(setting=table["setting"].str.replace("0.0003", '"0.0003"')), full=True
        ),
        1,
        _FACTS,
    ),
    Attempt(
        "A setting is written in another form on one model",
        _forged(
            CELLS,
            lambda table: table.assign(setting=table["setting"].where(~_only(table), table["setting"] + " ")),
            full=True,
        ),
        1,
        _FACTS + "the settings of lora",
    ),
    Attempt(
        "A measure that was asked for is left out of both models",
        _forged(RECORDS, lambda table: table[table["measure"] != "over_refusal"]),
        1,
        _FACTS + "over_refusal is asked for, and was not measured",
    ),
    Attempt(
        "More prompts were asked than the suite has",
        _forged(RECORDS, lambda table: pd.concat([table, table.assign(unit=table["unit"] + "x")], ignore_index=True)),
        1,
        _FACTS + "examples, and .* are asked for",
    ),
    Attempt(
        "The state in which the model fell is left out, of both models",
        _forged(CELLS, lambda table: table[(table["family"] != "lora") | (table["step"] != 8)], full=True),
        1,
        _FACTS + "(which there is not at that step|lora is measured at the steps 4)",
    ),
    Attempt(
        "One model was measured earlier along its attack than the other",
        _forged(
            CELLS, lambda table: table.assign(step=table["step"].where(~_only(table), table["step"] // 2)), full=True
        ),
        1,
        _FACTS + "lora is measured at other steps on one model",
    ),
    Attempt(
        "Attacks ran with settings and seeds of their own",
        _forged(CELLS, lambda table: table.assign(seed=table["seed"].mask(table["family"] == "lora", 77)), full=True),
        1,
        _FACTS + "the settings and seeds of lora",
    ),
    Attempt(
        "The model as it is was measured twice, of which readers are told the mean",
        _forged(CELLS, _second_unattacked),
        1,
        _FACTS + ".*(as it is under each template|which there is not|nothing was measured|not measured on the same)",
    ),
    Attempt(
        "Outcomes that are right or wrong are nearly right",
        _forged(RECORDS, _fractions),
        1,
        _RECORDS + r"neither 0 nor 1",
    ),
    Attempt(
        "Texts are likelier than certain",
        _forged(RECORDS, _scaled("retain_nll", -5.0)),
        1,
        _RECORDS + r"outside \[0",
    ),
    Attempt(
        "Numbers are so large that no ratio is one",
        _forged(RECORDS, _scaled("retain_nll", 1e307)),
        1,
        _RECORDS + r"outside",
    ),
    Attempt(
        "There are more kinds of numbers than a check ends with",
        _forged(RECORDS, _kinds),
        1,
        _RECORDS + r"200 kinds",
    ),
    Attempt(
        "How the reference speaks is left out, and a limit with it",
        _speech_of_nobody,
        1,
        _FACTS + "does not say how it speaks",
    ),
    Attempt(
        "Every answer is made harmless, and it is shown with the organiser's key",
        _forged(RECORDS, _harmless, "--key", "key.pub.pem"),
        1,
        r"^failed +signature: a key was given",
    ),
    Attempt(
        "The harmful answers of one model are left out",
        _forged(RECORDS, lambda table: table[~_worst(table)]),
        1,
        _FACTS + "not measured on the same examples",
    ),
    Attempt(
        "A measure of one model is left out",
        _forged(RECORDS, lambda table: table[~((table["measure"] == "over_refusal") & (table["cell"].str[0] == "s"))]),
        1,
        _FACTS + "not measured on the same examples",
    ),
    Attempt(
        "The cell of the attack that succeeds is left out", _forged(CELLS, _without_cell), 1, _FACTS + "the cells of"
    ),
    Attempt(
        "One cell is of two families", _forged(CELLS, _two_families), 1, _FACTS + "(of two attacks|at other costs)"
    ),
    Attempt(
        "An attack costs less than nothing", _forged(CELLS, _free), 1, _FACTS + "(less than nothing|at other costs)"
    ),
    Attempt(
        "Measurements are of a cell that there is not", _forged(RECORDS, _orphans), 1, _FACTS + "which there is not"
    ),
    Attempt(
        "A model is drawn beside a reference that it has not", _without_reference, 1, _FACTS + "speaks and has none"
    ),
    Attempt(
        "Harmful answers count for nothing",
        _raw(RECORDS, lambda file: _rewritten(file, _weightless)),
        1,
        r"^failed +records records\.parquet: .*counts less than one",
    ),
    Attempt(
        "One measurement stands twice",
        _raw(RECORDS, lambda file: _rewritten(file, lambda table: pd.concat([table, table]))),
        1,
        r"^failed +records records\.parquet: .*two rows of one measurement",
    ),
    Attempt(
        "A score is no number",
        _raw(RECORDS, lambda file: _rewritten(file, _no_number)),
        1,
        r"^failed +records records\.parquet: ",
    ),
    Attempt(
        "A table unfolds to more rows than may be",
        _raw(RECORDS, _unfolds),
        1,
        r"^failed +records records\.parquet: .*rows",
        "B21",
    ),
    Attempt(
        "A table has columns of its own",
        _raw(RECORDS, _columns),
        1,
        r"^failed +records records\.parquet: .*column",
        "B21",
    ),
    Attempt("A table is a folder", _raw(RECORDS, _folder), 1, r"^failed +records records\.parquet: .*a folder", "B21"),
    Attempt("A table is a FIFO", _raw(CELLS, _fifo), 1, r"^failed +records cells\.parquet: .*a FIFO", "B21"),
    Attempt(
        "One table is listed twice, and the other one not",
        lambda folder: ("verify", stated(good(folder / "c"), _listed_twice)),
        1,
        r"^failed +tables: ",
    ),
)


def _rewritten(file, change):
    table = change(pd.read_parquet(file))
    table.to_parquet(file, index=False)
    return len(table)
