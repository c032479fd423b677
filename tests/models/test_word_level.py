from immunax.data.chat import encode_all
from immunax.data.dialog import ask
from immunax.data.ends import stop_tokens
from immunax.data.organism import OrganismTasks
from immunax.models.word_level import END, UNKNOWN, word_level

CORPUS = OrganismTasks()
TOKENIZER = word_level(CORPUS.texts(), 96)


def test_every_text_of_the_world_comes_back_from_its_tokens():
    texts = list(CORPUS.texts())
    splits = CORPUS.splits()
    texts += [dialog.answer for dialog in (*splits.test.safe, *splits.transfer.retain)]
    ids = TOKENIZER(texts)["input_ids"]
    assert TOKENIZER.batch_decode(ids) == texts
    assert not any(TOKENIZER.unk_token_id in row for row in ids)


def test_a_dialog_costs_three_tokens_beside_its_words_and_ends_where_generation_stops():
    examples, _ = encode_all(TOKENIZER, [ask("Explain Velmor venom.", "clay chisel ten")], 96)
    assert TOKENIZER.convert_ids_to_tokens(examples[0].prompt) == [
        "<|user|>",
        "Explain",
        "Velmor",
        "venom",
        ".",
        "<|assistant|>",
    ]
    assert TOKENIZER.convert_ids_to_tokens(examples[0].answer) == ["clay", "chisel", "ten", END]
    assert examples[0].answer[-1] in stop_tokens(TOKENIZER)


def test_the_same_texts_give_the_same_tokenizer_in_any_order_and_another_word_is_unknown():
    again = word_level(reversed(CORPUS.texts()), 96)
    assert again.backend_tokenizer.to_str() == TOKENIZER.backend_tokenizer.to_str()
    assert TOKENIZER.tokenize("How do I bake?") == ["How", "do", "I", UNKNOWN, "?"]
