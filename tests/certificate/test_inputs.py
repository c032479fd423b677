"""What is said of models is held against the models themselves."""

import pytest

from immunax.certificate.inputs import Found, model_fault, reference_fault, undefended_fault

_SPEECH = {"tokenizer": "2" * 64, "template": None}
_SAID = {
    "model": {"weights": "1" * 64, "parameters": 200},
    "reference": {"weights": "0" * 64},
    "undefended": "8" * 64,
    "speech": {"model": _SPEECH, "reference": _SPEECH},
}
_MODEL, _REFERENCE = Found("1" * 64, 200, _SPEECH), Found("0" * 64, 200, _SPEECH)
_SPOKEN = {**_SPEECH, "template": "3" * 64}


def test_models_that_are_as_it_is_said_have_no_fault():
    assert model_fault(_SAID, _MODEL) is None
    assert reference_fault(_SAID, _REFERENCE) is None


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"weights": "4" * 64}, "weights here"),
        ({"parameters": 7}, "7 parameters, not 200"),
        ({"speech": _SPOKEN}, "tokenizer"),
    ],
)
def test_other_weights_another_size_and_another_template_of_the_model_are_told(other, told):
    assert told in model_fault(_SAID, _MODEL._replace(**other))


@pytest.mark.parametrize(
    ("other", "told"), [({"weights": "4" * 64}, "is not the model that"), ({"speech": _SPOKEN}, "its template")]
)
def test_other_weights_and_another_template_of_the_reference_are_told(other, told):
    assert told in reference_fault(_SAID, _REFERENCE._replace(**other))


@pytest.mark.parametrize("other", ["4" * 64, None])
def test_another_model_before_the_guard_is_told(other):
    assert undefended_fault(_SAID, _SAID["undefended"]) is None
    assert "comes out otherwise" in undefended_fault(_SAID, other)
