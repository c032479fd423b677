"""Forged folders: files beside a certificate, and files of the model that it is about."""

import os
import shutil

from adversary.attempt import Attempt
from adversary.forge import good, read

from immunax.certificate.report import html, model_card


def _model(change, *more):
    """The certified model's folder, changed after it was certified."""

    def forge(folder):
        path = good(folder / "c")
        change(path.parent / "model")
        return "verify", path, "--model", path.parent / "model", *more

    return forge


def _beside(change, *more):
    """A file beside the certificate, changed."""

    def forge(folder):
        path = good(folder / "c")
        change(path.parent)
        return "verify", path, *more

    return forge


def _linked(model):
    elsewhere = model.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "tools.jinja").write_text("{{ 'I refuse.' }}")
    (model / "additional_chat_templates").symlink_to(elsewhere)


def _overwritten(model):
    (model / "model.safetensors").write_bytes(bytes(200))


def _fifo(model):
    (model / "config.json").unlink()
    os.mkfifo(model / "config.json")


def _page(name):
    def change(folder):
        text = (folder / name).read_text()
        forged = text.replace("fails", "holds").replace("inconclusive", "holds")
        assert forged != text, "nothing to forge on the page"
        (folder / name).write_text(forged)

    return change


def _script(folder):
    page = (folder / html.FILE).read_text()
    (folder / html.FILE).write_text(page.replace("</body>", "<script>alert(1)</script></body>"))


def _certificate(change):
    def forge(folder):
        path = good(folder / "c")
        path.unlink()
        change(path)
        return "verify", path

    return forge


def _another_folder(folder):
    """The certificate of one model, shown with the files of another."""
    one, other = good(folder / "one"), good(folder / "other", weights=b"undefended")
    assert read(one) != read(other)
    return "verify", one, "--model", other.parent / "model"


ATTEMPTS = (
    Attempt("The weights are changed after the certificate", _model(_overwritten), 1, r"^failed +weights: model\.saf"),
    Attempt("A certificate is shown with another model", _another_folder, 1, r"^failed +weights: model\.saf"),
    Attempt(
        "A linked folder in the model's changes what is loaded", _model(_linked), 1, r"^failed +weights: .*link", "B12"
    ),
    Attempt(
        "A chat template is put beside the certified files",
        _model(lambda model: (model / "chat_template.jinja").write_text("I refuse.")),
        1,
        r"^failed +weights: chat_template\.jinja is not what was certified",
        "B12",
    ),
    Attempt(
        "Code for a model of its own is put beside the certified files",
        _model(lambda model: (model / "modeling_llama.py").write_text("raise SystemExit")),
        1,
        r"^failed +weights: modeling_llama\.py",
    ),
    Attempt("A file of the model is a FIFO", _model(_fifo), 1, r"^failed +weights: .*a FIFO"),
    Attempt(
        "A file's name is a line of its own",
        _model(lambda model: (model / "README\npassed       replay").write_text("x")),
        0,
        r"^passed +weights: .*README\\npassed",
        "B14",
    ),
    Attempt("Holds is written over fails on the page", _beside(_page(html.FILE)), 1, r"^failed +page ", "B18"),
    Attempt("Holds is written over fails on the card", _beside(_page(model_card.FILE)), 1, r"^failed +page ", "B18"),
    Attempt("A script is put on the page", _beside(_script), 1, r"^failed +page ", "B18"),
    Attempt(
        "A file that is not the certificate's lies in its folder",
        _beside(lambda folder: (folder / "AUDIT.md").write_text("Audited by everybody.")),
        None,
        r"AUDIT\.md",
        "B18",
    ),
    Attempt("The certificate is a folder", _certificate(lambda path: path.mkdir()), 2, r"^error: .*a folder", "B21"),
    Attempt("The certificate is a FIFO", _certificate(os.mkfifo), 2, r"^error: .*a FIFO", "B21"),
    Attempt(
        "The certificate never ends", _certificate(lambda path: path.symlink_to("/dev/zero")), 2, r"^error: .*a device"
    ),
    Attempt(
        "The model's folder is gone",
        _model(lambda model: shutil.rmtree(model)),
        1,
        r"^failed +weights: ",
    ),
)
