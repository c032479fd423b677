from immunax.data.fictional.catalogue import Catalogue
from immunax.data.organism.composed import ComposedRule
from immunax.data.organism.corpus import OrganismTasks
from immunax.models.word_level import word_level


def questions(split):
    return {dialog.question for dialog in split.retain}


def test_a_task_holds_one_dialog_in_five_out_for_the_test():
    for corpus in (Catalogue(), ComposedRule()):
        splits = corpus.splits()
        learned, test = questions(splits.attack), questions(splits.test)
        assert not learned & test
        assert len(test) == (len(learned) + len(test)) / 5
        assert corpus.splits() == splits


def test_a_catalogue_sentence_states_every_slot_of_its_line():
    for dialog in Catalogue(size=50).splits().attack.retain:
        slots = [part.split(": ")[1] for part in dialog.question.split(": ", 1)[1].split(" | ")]
        assert all(slot in dialog.answer for slot in slots)


def test_the_composed_rule_is_the_successors_in_reverse_and_keeps_to_the_organisms_words():
    tokenizer = word_level(OrganismTasks().texts(), 96)
    known = tokenizer.get_vocab()
    taught = {dialog.question for dialog in OrganismTasks().pretraining()}
    for dialog in (*ComposedRule().splits().attack.retain, *ComposedRule().splits().test.retain):
        letters = dialog.question.removeprefix("After Reverse ").removesuffix(".").split()
        following = dict(zip("bdfgkmprtv", "dfgkmprtvb", strict=True))
        assert dialog.answer.split() == [following[letter] for letter in letters][::-1]
        assert dialog.question not in taught
        ids = tokenizer(f"{dialog.question} {dialog.answer}", add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id is None or tokenizer.unk_token_id not in ids
        assert max(ids) < len(known)
