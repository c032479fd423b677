"""``README.md`` of a repository: the fields that the Hub reads, what the certificate found, and how anyone checks it.

The fields are those of https://huggingface.co/docs/hub/model-cards. The same files give the same card.
"""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCard

from immunax.certificate.report import model_card
from immunax.certificate.report.markdown import markdown
from immunax.models.hub import ON_THE_HUB
from immunax.runtime.errors import UserError
from immunax.runtime.names import HUB_ID

_CHECK = """
## How to check it

```sh
pip install immunax
python -m immunax.verify {repo}
```

The certificate, with every number that it rests on, is in the folder `certificate`; its page is `certificate/report.html`.
"""


def card(
    repo: str,
    stated: Mapping[str, Any] | None,
    made: Mapping[str, Any] | None,
    license: str | None = None,
    base: str | None = None,
    adapter: bool = False,
) -> str:
    """The card, front matter included.

    Args:
      repo: where it goes.
      stated: the statement of a certificate that passed its checks, or None.
      made: the configuration of the run that made the model, where one is known.
      license, base: as the user gave them; the base of a run that began with a model of the Hub is known.
      adapter: whether the files are adapters alone.
    """
    base = base or base_of(made)
    fields: dict[str, Any] = {} if license is None else {"license": license}
    fields["library_name"] = "peft" if adapter else "transformers"
    fields["pipeline_tag"] = "text-generation"
    fields |= {} if base is None else {"base_model": base, "base_model_relation": "adapter" if adapter else "finetune"}
    fields["tags"] = model_card.TAGS
    fields |= {} if stated is None else model_card.index(stated)
    return f"{model_card.front_matter(fields)}\n{_text(repo, stated)}{_making(made, base)}{_checking(repo, stated)}"


def base_of(made: Mapping[str, Any] | None) -> str | None:
    """What the Hub calls the model that a run began with; None where that is not known.

    Args:
      made: the run's configuration.
    """
    model = (made or {}).get("model") or {}
    if model.get("package") is not None:
        return ON_THE_HUB.get(model["package"])
    # A folder is recorded by its whole path.
    name = str(model.get("path") or "").partition("@")[0]
    return name if HUB_ID.fullmatch(name) else None


def check(text: str, where: str) -> None:
    """Refuses a card whose fields the Hub could not read.

    Args:
      text: the card.
      where: its file, for the message.

    Raises:
      UserError: it has none, or they are no YAML.
    """
    try:
        fields = ModelCard(text, ignore_metadata_errors=False).data.to_dict()
    except Exception as error:  # of YAML's, and of the library's
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{where}: the Hub cannot read its fields ({reason}); mend the lines between ---.") from error
    if not fields:
        raise UserError(f"{where}: has no fields that the Hub reads; begin it with ---, license: NAME and ---.")


def _text(repo: str, stated: Mapping[str, Any] | None) -> str:
    if stated is not None:
        return model_card.body(stated)
    unknown = "No certificate comes with this model: how far its safeguards hold is not known."
    return f"# {markdown(repo.partition('/')[2])}\n\n{unknown}\n"


def _making(made: Mapping[str, Any] | None, base: str | None) -> str:
    """What the run says of how the model was made."""
    target = ((made or {}).get("defense") or {}).get("_target_")
    if not isinstance(target, str):
        return ""
    method = markdown(target.rpartition(".")[2])
    begun = "" if base is None else f" from {markdown(base)}"
    return f"\nMade by immunax{begun}, with the defense {method}.\n"


def _checking(repo: str, stated: Mapping[str, Any] | None) -> str:
    return "" if stated is None else _CHECK.format(repo=repo)
