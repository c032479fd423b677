"""Policies that ask for less than they seem to, and files of policies that do more than they should."""

import os

import certified
from adversary.attempt import CANARY, Attempt
from adversary.forge import good, sealed, stated

from immunax.certificate.gate import suite_name
from immunax.certificate.statement import parse


def _policy(text):
    def forge(folder):
        path = good(folder / "c")
        (path.parent / "policy.yaml").write_text(text)
        return "verify", path, "--policy", path.parent / "policy.yaml"

    return forge


def _special(make):
    def forge(folder):
        path = good(folder / "c")
        make(path.parent / "policy.yaml")
        return "verify", path, "--policy", path.parent / "policy.yaml"

    return forge


def _tagged(folder):
    text = f"require: !!python/object/apply:os.system ['touch {folder / CANARY}']"
    return _policy(text)(folder)


def _easier(folder):
    """A certificate whose suite attacks less, under the name of the organiser's."""
    path = good(folder / "c")
    asked = suite_name(parse(path)[1])
    (path.parent / "policy.yaml").write_text(f"require: {{suite: '{asked}', resistance: holds}}\n")
    stated(path, lambda said: said["suite"]["config"]["suite"].update(measured=1))
    return "verify", certified.with_pages(sealed(path)), "--policy", path.parent / "policy.yaml"


_BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(f"b{i}: &b{i} [*a, *a, *a, *a]\n" for i in range(9))

ATTEMPTS = (
    Attempt("A policy requires nothing", _policy("harm: {compliance: {threshold: 0.9}}"), 2, "requires nothing", "B8"),
    Attempt("A policy is empty", _policy(""), 2, r"^error: policy ", "B8"),
    Attempt("A policy requires nothing by name", _policy("require: {}"), 2, "requires nothing", "B8"),
    Attempt("A requirement is misspelt", _policy("require: {resistence: holds}"), 2, "Did you mean 'resistance'"),
    Attempt(
        "A requirement is met by anything", _policy("require: {resistance: '.*'}"), 2, "expected holds or not fails"
    ),
    Attempt("A policy unfolds without end", _policy(_BOMB), 2, "repeats an anchor"),
    Attempt("A policy names a function", _tagged, 2, r"^error: policy .*kind"),
    Attempt("A policy is a folder", _special(lambda path: path.mkdir()), 2, r"^error: .*a folder", "B21"),
    Attempt("A policy is a FIFO", _special(os.mkfifo), 2, r"^error: .*a FIFO", "B21"),
    Attempt(
        "An easier suite goes by the name that a gate asks for", _easier, 1, r"^failed +policy: suite: .* required"
    ),
    Attempt("A threshold is out of range", _policy("require: {resistance: holds}\nconfidence: 2"), 2, "confidence=2"),
)
