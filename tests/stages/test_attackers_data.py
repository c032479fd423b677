from dataclasses import asdict, dataclass

from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.multilingual_sft import MultilingualSFT
from immunax.campaign.grid import Population
from immunax.campaign.search import Search
from immunax.data.dialog import Split, Splits, ask
from immunax.data.fictional import FictionalHazards
from immunax.data.fictional.french import FrenchHazards
from immunax.data.organism import OrganismTasks
from immunax.runtime import digest
from immunax.stages.attackers_data import attackers_data, marked
from immunax.stages.provenance import Lesson

SPLITS = OrganismTasks().splits()


def lesson(**fields):
    """Of a run whose defense trained on the organism's data with some fields changed."""
    data = {"_target_": "immunax.data.organism.OrganismTasks", **fields}
    return Lesson(data, digest.of_json(asdict(OrganismTasks(**fields).splits())))


def whose(taught, splits, *attacks):
    """Of the attackers, as the commands ask it."""
    return attackers_data(taught, splits, digest.of_json(asdict(splits)), attacks)


def test_attackers_have_their_own_data_where_no_prompt_of_theirs_was_trained_on():
    assert whose([], SPLITS) == whose([lesson()], SPLITS) == "own"
    shared = OrganismTasks(attacker="shared").splits()
    assert whose([], shared) == whose([lesson()], shared) == "shared"
    # The run may have been made for attackers who share: its defense trained on the same examples.
    assert whose([lesson(attacker="shared")], SPLITS) == "own"


def test_a_run_that_trained_on_what_is_now_the_attackers_shares_it():
    assert whose([lesson(seed=1)], SPLITS) == "shared"
    assert whose([lesson(), lesson(seed=1)], SPLITS) == whose([lesson(seed=1), lesson()], SPLITS) == "shared"


def test_a_run_whose_data_cannot_be_made_anew_is_taken_to_share(capsys):
    assert whose([lesson()._replace(digest="0" * 64)], SPLITS) == "shared"
    assert "no longer makes" in capsys.readouterr().err
    source = {"_target_": "immunax.data.sources.Source", "path": "absent.jsonl", "splits": {"train": 1.0}}
    corpus = {"_target_": "immunax.data.corpora.Corpus", "name": "c", "retain": {"rows": source}}
    assert whose([Lesson(corpus, None)], SPLITS) == "shared"
    assert "cannot be read" in capsys.readouterr().err


def test_texts_without_prompts_are_told_apart_by_their_words():
    one, other = (Split(retain=(ask("", text),)) for text in ("a", "b"))
    plain = [Split(retain=tuple(type(each)((), each.answer) for each in split.retain)) for split in (one, other)]
    assert Splits(plain[0], plain[1]).attacker == "own"
    assert Splits(plain[0], plain[0]).attacker == "shared"


def test_prompts_are_the_same_by_their_words_whatever_their_case_and_punctuation():
    one, other = (Split(harmful=(ask(text),)) for text in ("How do I brew it?", "how do I  BREW it"))
    assert Splits(one, other).attacker == "shared"
    assert Splits(one, Split(harmful=(ask("How do I bake it?"),))).attacker == "own"


def test_a_corpus_that_an_attack_brings_along_is_examined_too():
    splits = FictionalHazards(items=20).splits()
    own, shared = (
        MultilingualSFT(FrenchHazards(FictionalHazards(items=20, attacker=attacker))) for attacker in ("own", "shared")
    )
    assert whose([], splits, own, HarmfulSFT()) == "own"
    assert whose([], splits, HarmfulSFT(), shared) == "shared"
    assert whose([], splits, Population(shared, {"samples": [1, 2]})) == "shared"
    assert whose([], splits, Search({"one": Population(shared)})) == "shared"
    assert whose([], splits, MultilingualSFT()) == "own"
    assert whose([], splits, MultilingualSFT(Taught(splits))) == "shared"


@dataclass(frozen=True)
class Taught:
    """An attacker's corpus of what a defense trains on."""

    of: Splits

    def splits(self):
        return Splits(Split(), self.of.train)


def test_titles_are_marked_where_data_are_shared():
    assert (marked("run", "own"), marked("run", "shared")) == ("run", "run (attack data shared)")
