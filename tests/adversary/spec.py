"""Attacks that somebody submits: files that run code, read what is not theirs, or would take a month."""

import json
import os

from adversary.attempt import CANARY, Attempt

_TABLE = "not one of the classes that an attack from elsewhere may name"
_SFT = {"_target_": "immunax.attacks.harmful_sft.HarmfulSFT"}
_TUNING = "immunax.attacks.tuning.Tuning"


def _sent(node):
    """A specification of plain values."""

    def forge(folder):
        text = json.dumps(node).replace("CANARY", str(folder / CANARY))
        (folder / "attack.yaml").write_text(text)
        return "spec", folder / "attack.yaml"

    return forge


def _text(text):
    def forge(folder):
        (folder / "attack.yaml").write_text(text.replace("CANARY", str(folder / CANARY)))
        return "spec", folder / "attack.yaml"

    return forge


def _beside(folder):
    """A Python file beside the specification that names it."""
    (folder / "theirs.py").write_text(f"import os\nos.mkdir({str(folder / CANARY)!r})\n")
    return _sent({"_target_": "theirs.Attack"})(folder)


def _fifo(folder):
    os.mkfifo(folder / "attack.yaml")
    return "spec", folder / "attack.yaml"


def _obeyed(folder):
    """A command gets the specification of a shell command."""
    _sent({"_target_": "os.system", "command": "touch CANARY"})(folder)
    return "attack", "model=organism", f"+attack={folder / 'attack.yaml'}"


_FUNCTION = {"_target_": "immunax.runtime.atomic.file", "path": "CANARY"}
_SUITE = {"_target_": "immunax.stages.suite.Suite", "name": "x", "attacks": {}}
_GRID = {"_target_": "immunax.campaign.grid.Population", "attack": _SFT}

ATTEMPTS = (
    Attempt(
        "A submitted attack names os.system", _sent({"_target_": "os.system", "command": "touch CANARY"}), 2, _TABLE
    ),
    Attempt("A submitted attack names a file beside it", _beside, 2, _TABLE),
    Attempt(
        "A submitted attack names a function of the package",
        _sent(_FUNCTION),
        2,
        _TABLE,
    ),
    Attempt(
        "A submitted attack names a function by a tag",
        _text("!!python/object/apply:os.system ['touch CANARY']"),
        2,
        r"^error: the submitted attack .*not readable as YAML",
    ),
    Attempt(
        "A submitted attack reads a file of the organiser's",
        _sent(
            {
                "_target_": "immunax.attacks.identity_shift.IdentityShift",
                "identity": {"_target_": "immunax.data.identity.PublishedIdentity", "path": "/etc/passwd"},
            }
        ),
        2,
        _TABLE,
    ),
    Attempt(
        "A submitted attack loads a model from elsewhere",
        _sent(
            {
                "_target_": "immunax.attacks.merge.Merge",
                "source": {"_target_": "immunax.models.hub.ModelSource", "path": "evil/model"},
            }
        ),
        2,
        _TABLE,
    ),
    Attempt(
        "A submitted attack brings data of its own",
        _sent(
            {
                "_target_": "immunax.attacks.multilingual_sft.MultilingualSFT",
                "corpus": {"_target_": "immunax.data.sources.Source", "path": "/etc/passwd"},
            }
        ),
        2,
        _TABLE,
    ),
    Attempt(
        "A submitted attack is a suite",
        _sent(_SUITE),
        2,
        _TABLE,
    ),
    Attempt("A submitted attack is a part of one", _sent({"_target_": _TUNING}), 2, "is a Tuning; expected an attack"),
    Attempt(
        "A submitted attack would take a month",
        _sent({**_SFT, "tuning": {"_target_": _TUNING, "epochs": 10**6}}),
        2,
        "epochs=1000000 is more than 100",
    ),
    Attempt(
        "A grid says what an attack may not",
        _sent({**_GRID, "grid": {"tuning.epochs": [1, 10**6]}}),
        2,
        "epochs=1000000 is more than 100",
    ),
    Attempt(
        "A grid has more members than atoms",
        _sent({**_GRID, "grid": {f"a{i}": list(range(40)) for i in range(40)}}),
        2,
        r"members, more than 64",
    ),
    Attempt(
        "A grid changes a field that there is not",
        _sent({**_GRID, "grid": {"__class__": [1]}}),
        2,
        "no field '__class__'",
    ),
    Attempt(
        "A submitted attack has a number that is none",
        _text(json.dumps(_SFT)[:-1] + ', "harmless": .nan}'),
        2,
        r"^error: the submitted attack ",
    ),
    Attempt("A submitted attack unfolds without end", _text("a: &a [1, 1]\nb: [*a, *a]"), 2, "repeats an anchor"),
    Attempt("A submitted attack never ends", _fifo, 2, r"a FIFO"),
    Attempt(
        "A submitted attack takes a value from the organiser's environment",
        _sent({**_SFT, "tuning": {"_target_": _TUNING, "epochs": "${oc.env:HOME}"}}),
        2,
        "expected a whole number",
    ),
    Attempt("A submitted attack is given to a command that would build it", _obeyed, 2, _TABLE, slow=True),
)
