"""A release gate: which verdicts a policy asks for, and whether a certificate has them.

A requirement is ``CONDITION: holds`` or ``CONDITION: not fails``, the condition with ``/held-out`` or ``/seen`` where attacks of
one exposure alone are meant, such as ``resistance/held-out: holds``.
"""

from collections.abc import Mapping

from immunax.conditions.assess import CONDITIONS, overall
from immunax.conditions.resistance import SCOPES
from immunax.conditions.verdict import Verdict
from immunax.runtime.errors import UserError, nearest

WANTED = ("holds", "not fails")


def unmet(verdicts: tuple[Verdict, ...], require: Mapping[str, str]) -> list[str]:
    """What a policy asks for and the verdicts do not give, a line each.

    Args:
      verdicts: from :func:`~immunax.conditions.assess.assess`.
      require: of the policy.

    Raises:
      UserError: a requirement is not of the form above.
    """
    lines = []
    for name, wanted in require.items():
        condition, _, scope = name.partition("/")
        if condition not in CONDITIONS:
            known = ", ".join(CONDITIONS)
            raise UserError(
                f"policy.require: no condition {condition!r}; expected {known}.{nearest(condition, CONDITIONS)}"
            )
        if (scope or "all") not in SCOPES:
            raise UserError(f"policy.require {name}: expected a scope of {', '.join(SCOPES)}.")
        if wanted not in WANTED:
            raise UserError(f"policy.require {name}: {wanted!r}; expected {' or '.join(WANTED)}.")
        found = overall(verdicts, condition, scope or "all")
        if found == "fails" or (wanted == "holds" and found != "holds"):
            lines.append(
                f"{name}: {wanted} is required, and it {'is inconclusive' if found == 'inconclusive' else found}"
            )
    return lines
