"""Who chooses where a recipe and a model both choose a group of the configuration."""

from collections.abc import Callable, Mapping, Sequence

from immunax.runtime.errors import UserError

AS_LOADED = "base"
"""The choice of ``start`` that takes a model as it comes."""


def of_the_model(choices: Callable[[Sequence[str]], Mapping[str, str]], overrides: Sequence[str]) -> list[str]:
    """What a model chooses by itself, where a recipe chose otherwise.

    A recipe fixes a whole run. But a model that is made for certain data (``model=organism``) knows no other words, so that its
    data, judge, attack and start come with it. The trainer stays the recipe's, and so does a start that is a method's.

    Args:
      choices: the choice of each group that overrides compose.
      overrides: of one run, as Hydra takes them.

    Returns:
      ``group=choice`` for every group that the model chooses and the command line does not; none without a recipe.

    Raises:
      UserError: the command takes no recipe.
    """
    given = choices(overrides)
    if given.get("recipe") in (None, "null"):
        return []
    plain = choices([])
    if "recipe" not in plain:
        raise UserError("recipe: is taken by immunax.train and immunax.compile alone; leave it out.")
    own = choices([f"model={given['model']}"])
    named = {text.partition("=")[0].lstrip("+~") for text in overrides}
    kept = {"model", "trainer"} | (set() if given.get("start") == AS_LOADED else {"start"})
    return [
        f"{group}={choice}"
        for group, choice in own.items()
        if choice != plain[group] and group not in named | kept and given[group] != choice
    ]
