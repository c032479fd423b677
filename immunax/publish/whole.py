"""Everything that one push sends: the model's files, the certificate's, and a card where the model has none of its own."""

from immunax.models import peft
from immunax.publish.card import card, check
from immunax.publish.checked import Checked
from immunax.publish.files import CARD, Item, of_certificate, of_model, of_text
from immunax.publish.options import Options
from immunax.runtime.errors import UserError
from immunax.runtime.untrusted.files import read_text


def whole(options: Options, found: Checked) -> list[Item]:
    """The files in the order in which they are told.

    Args:
      options: of the command.
      found: the model, checked.

    Raises:
      UserError: the model's own card cannot be read, or is to be given what stands in it; or a certificate's file is refused.
    """
    items = of_model(found.folder, found.digests)
    if CARD in found.digests:
        _check_own(options, found)
    else:
        adapter = peft.is_adapter(found.folder)
        base = options.base_model or (peft.base_of(found.folder)[0] if adapter else None)
        items.append(of_text(CARD, card(options.repo, found.stated, found.made, options.license, base, adapter)))
    if options.certificate is not None:
        items += of_certificate(options.certificate.parent)
    return items


def _check_own(options: Options, found: Checked) -> None:
    path = found.folder / CARD
    for name, given in (("license", options.license), ("base_model", options.base_model)):
        if given is not None:
            raise UserError(f"{name}={given}: the model has a card of its own, {path}; write it there.")
    check(read_text(path), str(path))
