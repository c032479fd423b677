from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import tiny_model

from immunax.data.chat import encode_all
from immunax.data.dialog import ask
from immunax.judges.features import HiddenStates, Words
from immunax.models.hub import ModelSource
from immunax.models.model import Model
from immunax.runtime.errors import UserError

DIALOGS = [
    ask("the cat?", "the cat sat on the mat"),
    ask("q", "the user asked"),
    ask("q " * 30, "the system knew " * 9),
]


def test_words_are_tf_idf_of_single_words_and_pairs():
    state, found = Words(2**18).fit(DIALOGS)
    texts = [dialog.answer.split() for dialog in DIALOGS]
    terms = [Counter([*words, *map(" ".join, pairwise(words))]) for words in texts]
    documents = Counter(term for counted in terms for term in counted)
    for counted, row in zip(terms, found.toarray(), strict=True):
        want = {t: (1 + np.log(n)) * (np.log(4 / (1 + documents[t])) + 1) for t, n in counted.items()}
        length = np.sqrt(sum(value**2 for value in want.values()))
        np.testing.assert_allclose(sorted(row[row > 0]), sorted(value / length for value in want.values()), rtol=1e-5)
    np.testing.assert_allclose(Words(2**18).vectors(state, DIALOGS).toarray(), found.toarray())


def test_words_do_not_see_the_prompt():
    state, _ = Words().fit(DIALOGS)
    one, other = Words().vectors(state, [ask("a", "the cat"), ask("b", "the cat")]).toarray()
    np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return ModelSource(str(tiny_model.write(tmp_path_factory.mktemp("tiny") / "model")))


def naive(source, dialog, layers, limit):
    """Runs the whole model on one unpadded dialog, and norms what stands after so many layers."""
    loaded = source.load()
    (example,), _ = encode_all(loaded.tokenizer, [dialog], 10**6)
    prompt = list(example.prompt)[-(limit // 2) :]
    tokens = np.array([[*prompt, *example.answer][:limit]])
    ones = np.ones_like(tokens)
    stream = Model(loaded.config).apply(loaded.params, tokens, ones, np.arange(tokens.shape[1])[None], capture=True)
    stream = np.asarray(stream.residuals)[layers, 0, len(prompt) :]
    norm = np.sqrt((stream**2).mean(axis=-1, keepdims=True) + loaded.config.norm_eps)
    return (stream / norm * loaded.params["norm"]["scale"]).mean(axis=0)


@pytest.mark.parametrize("layers", [1, 2])
def test_hidden_states_are_standardised_means_over_the_answer_of_each_dialog_alone(source, layers):
    features = HiddenStates(source, layers=layers, max_length=60, batch_size=2)
    state, found = features.fit(DIALOGS)
    want = np.stack([naive(source, dialog, layers, 60) for dialog in DIALOGS])
    np.testing.assert_allclose(found * state["deviation"] + state["mean"], want, atol=2e-5)
    np.testing.assert_allclose(state["mean"], want.mean(axis=0), atol=2e-5)
    np.testing.assert_allclose(features.vectors(state, DIALOGS[1:]), found[1:], atol=2e-3)


def test_more_layers_than_the_model_has_is_an_error(source):
    with pytest.raises(UserError, match="layers=3: the model has 2"):
        HiddenStates(source, layers=3).fit(DIALOGS)


def test_model_and_settings_identify_the_features(source):
    kinds = [
        HiddenStates(source),
        HiddenStates(source, layers=1),
        HiddenStates(source, max_length=9),
        Words(),
        Words(9),
    ]
    assert len({repr(each.identity) for each in kinds}) == len(kinds)
