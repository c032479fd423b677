"""A recipe and a model that choose the same groups."""

import pytest

from immunax.runtime.errors import UserError
from immunax.runtime.precedence import of_the_model

DEFAULT = {
    "model": "default",
    "data": "fictional",
    "judge": "standard",
    "start": "guarded",
    "trainer": "default",
    "recipe": None,
}
TOY = {"data": "toy", "judge": "toy", "start": "toy", "trainer": "toy"}
PAPER = {"model": "large", "data": "paper", "start": "base", "trainer": "paper"}


def composing(**paper):
    """What Hydra would choose: the command line before the recipe, the recipe before the model."""

    def choices(overrides):
        given = dict(text.split("=") for text in overrides)
        recipe = {**PAPER, **paper} if "recipe" in given else {}
        model = given.get("model", recipe.get("model", DEFAULT["model"]))
        return {**DEFAULT, **(TOY if model == "toy" else {}), **recipe, **given}

    return choices


def test_a_model_keeps_its_data_and_judge_and_a_recipe_its_trainer():
    assert of_the_model(composing(), ["recipe=paper", "model=toy"]) == ["data=toy", "start=toy"]


def test_a_start_that_is_a_methods_stays():
    assert of_the_model(composing(start="random_mapping"), ["recipe=paper", "model=toy"]) == ["data=toy"]


def test_the_command_line_has_the_last_word():
    overrides = ["recipe=paper", "model=toy", "data=mine", "start=base"]
    assert of_the_model(composing(), overrides) == []


def test_without_a_recipe_or_with_the_papers_model_nothing_is_added():
    assert of_the_model(composing(), ["model=toy"]) == []
    assert of_the_model(composing(), ["recipe=paper"]) == []


def test_a_command_that_takes_no_recipe_says_so():
    with pytest.raises(UserError, match=r"recipe: is taken by immunax\.train and immunax\.compile alone"):
        of_the_model(lambda given: dict(text.split("=") for text in given), ["recipe=paper", "model=toy"])
