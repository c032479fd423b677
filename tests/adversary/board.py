"""Cheats of a leaderboard: a better place by what was left out, claimed, named or sent twice."""

import shutil

import certified
from adversary.attempt import Attempt
from adversary.forge import good, put, read, sealed, stated, tabled

from immunax.certificate.signing import FILE as ENVELOPE
from immunax.certificate.verify import CELLS, RECORDS, tables
from immunax.conditions.records import JUDGED, SUBJECT, write


def _pair(change, others=()):
    """An honest certificate, more of them, and one of another model that cheats."""

    def forge(folder):
        *honest, cheat = (_named(folder, name) for name in ("honest", *others, "cheat"))
        change(cheat)
        return "leaderboard", *honest, certified.with_pages(cheat)

    return forge


def _named(folder, name):
    """A certificate of a model of that name, and of weights of its own."""
    path = good(folder / name, weights=name.encode())
    return certified.with_pages(stated(path, lambda said: said["model"].update(name=name)))


def _undefended(records):
    """Every answer to the family ``lora`` is harmful."""
    hard = (records["cell"] == "subject-lora") & records["measure"].str.startswith(JUDGED)
    return records.assign(value=records["value"].where(~hard, 1.0))


def _claims(cheat):
    """The hard family is said to have been trained against, which takes it out of what a model is ranked by."""
    stated(cheat, lambda said: said["model"]["trained"].update(against=["lora"]))
    tabled(cheat, RECORDS, _undefended)


def _skips(cheat):
    """Every family but the easiest is skipped."""

    def change(said):
        said["model"]["trained"].update(against=[])
        said["attacks"] = [
            {**each, "skipped": "out of memory"} if each["family"] == "lora" else each for each in said["attacks"]
        ]

    stated(cheat, change)
    at = cheat.parent
    _drop(at, "lora")
    sealed(cheat)


def _drop(folder, family):
    records, cells = tables(folder)
    gone = set(cells.loc[cells["family"] == family, "cell"])
    write(folder / RECORDS, records[~records["cell"].isin(gone)])
    write(folder / CELLS, cells[~cells["cell"].isin(gone)])


def _again(folder):
    """The same weights, with one more file in the model's folder."""
    one = good(folder / "one")
    other = good(folder / "other")
    found = read(other)
    found["predicate"]["model"]["name"] = "again"
    found["subject"] = [{"name": "README.md", "digest": {"sha256": "1" * 64}}, *found["subject"]]
    return "leaderboard", one, certified.with_pages(put(other, found))


def _own_reference(cheat):
    """The reference is one that the submission's own manifest builds: a model that knows almost nothing."""

    def change(said):
        said["reference"].update(digests={"weights": "f" * 64})
        for name in ("weights", "named_by"):
            if name in said["reference"]:
                said["reference"][name] = {"weights": "f" * 64, "named_by": "model"}[name]

    sealed(stated(cheat, change))


def _broken(folder):
    honest = _named(folder, "honest")
    broken = good(folder / "broken", weights=b"broken")
    (broken.parent / RECORDS).write_bytes(b"PAR1")
    return "leaderboard", broken, honest


def _easier(cheat):
    sealed(stated(cheat, lambda said: said["suite"]["config"]["suite"].update(measured=1)))


def _lenient(cheat):
    def change(said):
        said["suite"]["config"]["policy"]["harm"]["compliance"].update(threshold=0.9)

    sealed(stated(cheat, change))


def _with_key(folder):
    one = good(folder / "one")
    other = good(folder / "other", weights=b"other")
    (other.parent / ENVELOPE).unlink()
    return "leaderboard", one, other, "--key", folder / "one" / "key.pub.pem"


def _copied(folder):
    one = good(folder / "one")
    shutil.copytree(one.parent, folder / "again")
    return "leaderboard", one, folder / "again"


def _shared(folder):
    own = [good(folder / name, weights=name.encode()) for name in ("one", "other")]
    return "leaderboard", *own, good(folder / "shared", weights=b"third", attacker="shared")


def _tie(folder):
    """Two rules with one model each: the order of the paths would choose."""
    _, honest, cheat = _pair(_lenient)(folder)
    return "leaderboard", cheat, honest


def _rival(folder):
    """Somebody else's certificate of the same weights, worse and first by name."""
    honest = good(folder / "b-honest")
    rival = stated(good(folder / "a-rival"), lambda said: said["model"].update(name="rival"))
    tabled(rival, RECORDS, lambda table: table.assign(value=table["value"].where(~_mine(table), 1.0)))
    return "leaderboard", certified.with_pages(rival), honest


def _mine(table):
    return table["measure"].str.startswith(JUDGED) & table["cell"].str.startswith(SUBJECT)


ATTEMPTS = (
    Attempt("One certificate of easier rules comes before one of harder ones", _tie, 2, r"^error: equally many models"),
    Attempt(
        "A rival certifies the same weights and makes them worse", _rival, 2, r"of the same weights, and they differ"
    ),
    Attempt(
        "A model says it was trained against the attack that breaks it", _pair(_claims), None, r"^row: 2 \| cheat", "B9"
    ),
    Attempt("The hard attacks could not be run on a model", _pair(_skips), None, r"^row: 2 \| cheat", "B10"),
    Attempt(
        "The same weights come twice, once with a file more", _again, None, r"(same (model|weights)|left out)", "B11"
    ),
    Attempt("A certificate is copied", _copied, None, r"(same (model|weights)|left out)"),
    Attempt(
        "A submission builds its own reference",
        _pair(_own_reference, ("other",)),
        None,
        r"(?i)(reference(, .*,)? differs|not vouched|another reference|named by the model)",
        "B23",
    ),
    Attempt("A damaged certificate comes first", _broken, None, r"^row: 1 \| honest", "B21"),
    Attempt("An easier suite has the same name", _pair(_easier, ("other",)), None, r"its suite(, .*,)? differs"),
    Attempt("A policy allows more harm", _pair(_lenient, ("other",)), None, r"its policy(, .*,)? differs"),
    Attempt("Attackers had the defense's own data", _shared, None, r"its attack data(, .*,)? differs"),
    Attempt("An entry is not signed by the organiser", _with_key, None, r"(signature: )"),
)
