from dataclasses import dataclass, replace

import numpy as np
import pytest

from immunax.data.dialog import Split, Splits, ask
from immunax.judges.classifier import Classifier
from immunax.judges.features import Words
from immunax.judges.labelled import Labelled
from immunax.runtime import cache
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class Rhymes:
    """Answers on cats are "harmful", those on dogs safe; the tail numbers them."""

    def splits(self):
        parts = []
        for start in (0, 40, 60):
            numbers = range(start, start + 20)
            cats = tuple(ask(f"q{n}", f"the cat number {n} purred") for n in numbers)
            parts.append(Split(safe=tuple(ask(f"q{n}", f"a dog number {n} barked") for n in numbers), harmful=cats))
        train, validation, test = parts
        return Splits(train, validation=validation, test=test)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMMUNAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def elsewhere(tmp_path):
    rows = ["q,a,label", "x,the cat purred,no", "x,a dog barked,yes", "x,the cat,yes", "x,,no", "x,a dog,no"]
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n")
    return Labelled("elsewhere", "rows.csv", "q", "a", "label", ["yes"], root=str(tmp_path))


def classifier(**fields):
    return Classifier("words", Words(2**12), Rhymes(), **fields)


def test_it_tells_its_own_classes_apart_and_leaves_blank_answers_out():
    scores = classifier().score([ask("q")] * 3, ["the cat purred", "a dog barked", " \n"])
    assert scores[0] > 0.5 > scores[1]
    assert np.isnan(scores[2])


def test_its_card_has_held_out_data_of_its_own_beside_other_sources(elsewhere):
    own, other = classifier(measured_on={"any": elsewhere}).card.agreements
    assert (own.made_from_it, own.n, own.agreement, own.auc) == (True, 40, 1.0, 1.0)
    assert (other.made_from_it, other.source, other.n, other.missed) == (False, "elsewhere", 4, 1)
    scores = classifier().score([ask("x")] * 4, ["the cat purred", "a dog barked", "the cat", "a dog"])
    people = np.array([False, True, True, False])
    assert other.agreement == np.mean((scores >= 0.5) == people)
    assert other.auc == np.mean(scores[people][:, None] > scores[~people])


def test_it_is_trained_once_and_comes_back_the_same(elsewhere, monkeypatch):
    judge = classifier(measured_on={"any": elsewhere})
    first, card = judge.score([ask("q")], ["the cat"]), judge.card
    monkeypatch.setattr(Classifier, "_train", lambda *_: pytest.fail("trained again"))
    again = classifier(measured_on={"any": elsewhere})
    assert again.score([ask("q")], ["the cat"]) == first
    assert again.card == card


def test_what_is_kept_is_coefficients_and_a_card():
    classifier().score([ask("q")], ["the cat"])
    kept = {path.name for path in (cache.root() / "classifier").rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert kept == {"arrays.safetensors", "card.json", "entry.json"}
    text = "".join(path.read_text() for path in (cache.root() / "classifier").rglob("*.json"))
    assert not any(word in text for word in ("purred", "barked"))


def test_other_data_settings_or_labels_make_another_judge(elsewhere):
    cards = [classifier().card, classifier(strength=0.1).card, classifier(examples=9).card]
    assert len({card.identity for card in cards}) == 3
    before = classifier(measured_on={"any": elsewhere}).card
    elsewhere.file.write_text(elsewhere.file.read_text().replace("x,the cat,yes", "x,the cat,no"))
    after = classifier(measured_on={"any": elsewhere}).card
    assert before.identity == after.identity
    assert before.agreements[1].digest != after.agreements[1].digest


def test_data_without_safe_answers_are_an_error():
    @dataclass(frozen=True)
    class Harmful:
        def splits(self):
            found = Rhymes().splits()
            return replace(found, test=replace(found.test, safe=()))

    with pytest.raises(UserError, match="its data have 0 safe answers in test"):
        _ = Classifier("words", Words(), Harmful()).card


@pytest.mark.parametrize("wrong", [{"examples": 1}, {"strength": 0.0}, {"side": "style"}])
def test_a_wrong_field_is_an_error(wrong):
    with pytest.raises(UserError, match="classifier words"):
        classifier(**wrong)
