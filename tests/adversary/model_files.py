"""Folders of models that run code, claim what they do not hold, or lead elsewhere."""

import base64
import json
import os
import pickle
import shutil
import struct

from adversary.attempt import CANARY, Attempt
from adversary.forge import edited, model

_NAMES = {
    "numpy.load": {"_target_": "numpy.load", "file": "payload.npy", "allow_pickle": True},
    "pandas.read_pickle": {"_target_": "pandas.read_pickle", "filepath_or_buffer": "payload.npy"},
    "a file of its own": {"_target_": "payload.Model"},
    "os.system": {"_target_": "os.system", "command": "touch CANARY"},
}


class _Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def _run(node, place="model"):
    """The folder of a run that a stranger sends: manifest, checkpoints, and code that it names."""

    def forge(folder):
        run = folder / "run"
        canary = str(folder / CANARY)
        (run / "checkpoints").mkdir(parents=True)
        (run / "payload.npy").write_bytes(pickle.dumps(_Payload(canary)))
        (run / "payload.py").write_text(f"import os\nos.mkdir({canary!r})\n")
        named = json.loads(json.dumps(node).replace("CANARY", canary).replace("payload.npy", str(run / "payload.npy")))
        source = {"_target_": "immunax.models.hub.ModelSource", "path": str(model(folder / "base"))}
        compute = {"_target_": "immunax.stages.setup.Compute"}
        data = {"_target_": "immunax.data.fictional.FictionalHazards", "seed": 0}
        config = {
            "model": source,
            "compute": compute,
            "data": data,
            "start": {},
            "defense": {},
            "trainer": {},
            place: named,
        }
        (run / "manifest.json").write_text(json.dumps({"config": config, "digests": {}}))
        if place != "model":
            model(run / "model")
            return "reference", run
        return "load", run

    return forge


def _config(**fields):
    def forge(folder):
        at = model(folder / "model")
        (at / "canary.py").write_text(f"open({str(folder / CANARY)!r}, 'w')\n")
        edited(at / "config.json", **fields)
        return "load", at

    return forge


def _text(old, new):
    def forge(folder):
        at = model(folder / "model")
        text = (at / "config.json").read_text()
        assert old in text
        (at / "config.json").write_text(text.replace(old, new, 1))
        return "load", at

    return forge


def _pickled(folder):
    at = model(folder / "model")
    (at / "model.safetensors").unlink()
    (at / "pytorch_model.bin").write_bytes(pickle.dumps(_Payload(str(folder / CANARY))))
    return "load", at


def _header(header, size=None):
    def forge(folder):
        at = model(folder / "model")
        raw = json.dumps(header).encode() if not isinstance(header, bytes) else header
        (at / "model.safetensors").write_bytes(struct.pack("<Q", len(raw) if size is None else size) + raw)
        return "load", at

    return forge


def _index(folder):
    """An index whose shards lie outside of the folder, where no digest covers them."""
    at = model(folder / "model")
    (at / "model.safetensors").rename(folder / "elsewhere.safetensors")
    names = ["model.embed_tokens.weight", "model.norm.weight"]
    text = json.dumps({"weight_map": dict.fromkeys(names, "../elsewhere.safetensors")})
    (at / "model.safetensors.index.json").write_text(text)
    return "load", at


def _gguf(folder):
    path = folder / "model.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60))
    return "load", path


def _special(name):
    def forge(folder):
        at = model(folder / "model")
        (at / name).unlink(missing_ok=True)
        os.mkfifo(at / name)
        return "load", at

    return forge


def _against(value):
    def forge(folder):
        (folder / "against.json").write_text(json.dumps(value))
        return "faced", folder / "against.json"

    return forge


def _settings(name, change):
    """A model of which one file of settings is changed."""

    def forge(folder):
        at = model(folder / "model")
        found = json.loads((at / name).read_text())
        change(found)
        (at / name).write_text(json.dumps(found))
        return "load", at

    return forge


def _other_weights(folder):
    """A configuration that names other weights for a library, in a folder that no digest covers."""
    at = model(folder / "model")
    (at / "sub").mkdir()
    shutil.copy(at / "model.safetensors", at / "sub" / "other.safetensors")
    edited(at / "config.json", transformers_weights="sub/other.safetensors")
    return "load", at


def _led_out(folder):
    """A file of settings is a link to one of the user's, which an export would carry on."""
    at = model(folder / "model")
    (folder / "secret.json").write_text('{"auth": "of the user"}')
    (at / "generation_config.json").unlink(missing_ok=True)
    (at / "generation_config.json").symlink_to("../secret.json")
    return "load", at


def _charsmap(found):
    trie = bytes(4096)
    table = len(trie).to_bytes(4, "little") + trie + b"a\0" + b"e" * 1000 + b"\0"
    found["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}


def _added(count, length):
    def change(found):
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
        start = 1 + max(found["model"]["vocab"].values())
        for each in range(count):
            found["added_tokens"].append({"id": start + each, "content": f"{each:x}".rjust(length, "x"), **plain})

    return change


def _adapter(folder):
    """An adapter whose base is a name on the Hub, which loading it would download."""
    at = folder / "adapter"
    at.mkdir()
    (at / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "evil/model", "r": 1})
    )
    (at / "adapter_model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    return "load", at


def _loop(folder):
    """Two runs that each began with the other."""
    for name, other in (("a", "b"), ("b", "a")):
        (folder / name / "checkpoints").mkdir(parents=True)
        source = {"_target_": "immunax.models.hub.ModelSource", "path": str(folder / other)}
        (folder / name / "manifest.json").write_text(json.dumps({"config": {"model": source}, "digests": {}}))
    return "load", folder / "a"


_OUTSIDE = "not one of the classes that a file from elsewhere may name"
_HUGE = {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}

ATTEMPTS = (
    *(
        Attempt(f"A run's manifest names {name} as its model", _run(node), 2, _OUTSIDE, "B1")
        for name, node in _NAMES.items()
    ),
    *(
        Attempt(
            f"The manifest beside a certified model names os.system as its {place}",
            _run(_NAMES["os.system"], place),
            2,
            _OUTSIDE,
            "B2",
        )
        for place in ("data", "compute", "start")
    ),
    Attempt("A run began with a run that began with it", _loop, 2, r"leads back to itself"),
    Attempt(
        "A configuration names code", _config(auto_map={"AutoConfig": "canary.Payload"}), 2, r"auto_map names code"
    ),
    Attempt(
        "A configuration claims a billion layers", _config(num_hidden_layers=10**9), 2, r"^error: .*config\.json", "B15"
    ),
    Attempt(
        "A configuration claims a vocabulary of 10^12", _config(vocab_size=10**12), 2, r"^error: .*(vocab|embed)", "B15"
    ),
    Attempt(
        "A configuration has an infinite number",
        _text('"rms_norm_eps": 1e-05', '"rms_norm_eps": Infinity'),
        2,
        r"^error: .*Infinity",
        "B15",
    ),
    Attempt(
        "A configuration is nested without end",
        _text('"architectures": ', '"deep": ' + "[" * 5000 + "]" * 5000 + ', "architectures": '),
        2,
        r"^error: .*nested",
        "B15",
    ),
    Attempt(
        "A configuration has a number of five thousand digits",
        _text('"hidden_size": 32', '"hidden_size": ' + "9" * 5000),
        2,
        r"^error: .*digits",
        "B15",
    ),
    Attempt("Weights are a pickle", _pickled, 2, r"^error: .*safetensors"),
    Attempt(
        "A header claims a tensor of four terabytes", _header({"model.norm.weight": _HUGE}), 2, r"^error: .*safetensors"
    ),
    Attempt("A header is longer than its file", _header({}, 2**62), 2, r"^error: .*safetensors"),
    Attempt("An index leads out of the folder", _index, 2, r"^error: .*index"),
    Attempt("A GGUF file counts 10^18 tensors", _gguf, 2, r"^error: .*gguf"),
    Attempt("The weights are a FIFO", _special("model.safetensors"), 2, r"^error: .*a FIFO"),
    Attempt("A configuration names other weights for a library", _other_weights, 2, r"transformers_weights"),
    Attempt("A file of settings is a link to one of the user's", _led_out, 2, r"^error: .*(link|outside)"),
    Attempt(
        "A table of characters writes one as a thousand",
        _settings("tokenizer.json", _charsmap),
        2,
        r"1e\+03 times as long",
    ),
    Attempt(
        "A token is eight million characters long",
        _settings("tokenizer.json", _added(1, 1 << 19)),
        2,
        r"has 524288 characters, more than 4096",
    ),
    Attempt(
        "Its added tokens make a table of gigabytes",
        _settings("tokenizer.json", _added(2000, 2000)),
        2,
        r"added tokens take 40\d+ bytes, more than 1048576",
    ),
    Attempt(
        "Settings of a tokenizer name a special token that is no text",
        _settings("tokenizer_config.json", lambda found: found.update(extra_special_tokens={"__class__": 3})),
        2,
        r"^error: .*tokenizer",
    ),
    Attempt("An adapter names a base on the Hub", _adapter, 2, r"^error: .*(base|adapter)"),
    Attempt("The tokenizer is a FIFO", _special("tokenizer.json"), 2, r"^error: .*a FIFO"),
    *(
        Attempt(
            f"What a model was trained against is {word}", _against(value), 2, r"expected a list of families", "B13"
        )
        for word, value in (("a word", "harmful_sft"), ("a number", 3))
    ),
    Attempt(
        "What a model was trained against is misspelt",
        _against(["harmfull_sft"]),
        2,
        r"no attack 'harmfull_sft'",
        "B13",
    ),
)
