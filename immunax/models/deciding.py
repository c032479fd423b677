"""Which files of a model's folder decide what is loaded from it, by this package or by ``transformers`` and those who read its
folders.

Publishing adds others: a README, a license, ``.gitattributes``, what a download keeps for itself. These change nothing that is
computed. A file that could is named here whether this package reads it or not: somebody else would load it.
"""

from fnmatch import fnmatchcase

TEMPLATES = "additional_chat_templates"
BASE = "base/"
"""Before the names of the files that a folder of adapters takes from its base."""

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack", "*.gguf", "*.index.json")
# Both config.json and tokenizer_config.json can name further ones for one version of the library, as config.4.0.0.json.
_SETTINGS = ("*config*.json", "params.json", "*chat_template*", "*.jinja")
_TOKENIZER = (
    "*tokenizer*",
    "tekken.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
)


def holds_weights(name: str) -> bool:
    """Whether a file is one of weights, by its name, as they lie in a model's folder."""
    return any(fnmatchcase(name.lower(), pattern) for pattern in _WEIGHTS if not pattern.endswith(".json"))


def decides(name: str) -> bool:
    """Whether a file can change what is loaded from its folder.

    Args:
      name: its path below the folder, with slashes, or below :data:`BASE`.
    """
    # Not all disks tell capitals from small letters.
    folder, _, own = name.removeprefix(BASE).lower().rpartition("/")
    if folder == TEMPLATES or own.endswith(".py"):
        return True
    return not folder and any(fnmatchcase(own, pattern) for pattern in (*_WEIGHTS, *_SETTINGS, *_TOKENIZER))
