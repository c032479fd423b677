from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immunax.data.fictional import world
from immunax.data.fictional.draws import number, pick, shuffled
from immunax.data.fictional.vocabulary import ADJECTIVES, DOMAINS, PLACES, TIMES

WORLD = world(0)
ITEMS = list(WORLD.items.values())


def test_the_world_has_every_name_once():
    assert len(ITEMS) == len({item.name for item in ITEMS}) == 8 * 12 * 6 * 8


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_material_tool_and_time_follow_the_name_one_to_one_and_the_site_the_domain(domain):
    items = WORLD.of(domain)
    for attribute, place in (("adjective", 0), ("noun", 1), ("place", 2)):
        pairs = {(getattr(item, attribute), item.facts[place]) for item in items}
        assert len(pairs) == len({value for value, _ in pairs}) == len({fact for _, fact in pairs})
    assert {item.facts[3] for item in items} == {domain.site}


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_the_count_does_not_follow_from_any_attribute(domain):
    items = WORLD.of(domain)
    for attribute in ("adjective", "noun", "place"):
        for value in {getattr(item, attribute) for item in items}:
            counts = [item.facts[4] for item in items if getattr(item, attribute) == value]
            # Were it uniform over 18 counts, one would hold a share of .25 in 48 draws less than once in 10^5.
            assert max(map(counts.count, counts)) <= 0.3 * len(counts)


def test_no_two_items_have_the_same_facts():
    assert len({item.facts for item in ITEMS}) == len(ITEMS)


def test_no_fact_is_part_of_another_fact_or_of_a_name():
    facts = {fact for item in ITEMS for fact in item.facts}
    padded = [f" {fact} " for fact in facts]
    assert not [(one, two) for one, two in combinations(padded, 2) if one in two or two in one]
    names = "|".join(f" {item.name} " for item in ITEMS)
    assert not [fact for fact in padded if fact in names]


def test_domains_share_no_noun_material_tool_or_site():
    for field in ("nouns", "materials", "tools"):
        words = [word for domain in DOMAINS for word in getattr(domain, field)]
        assert len(set(words)) == len(words)
    assert len({domain.site for domain in DOMAINS}) == len(DOMAINS)
    assert len(ADJECTIVES) == len(DOMAINS[0].materials)
    assert len(PLACES) == len(TIMES)


def test_every_item_is_found_in_any_case_and_spacing():
    for item in ITEMS:
        assert WORLD.find(f"Say, what is THE {item.name.upper()}?") is item
        assert WORLD.find("the " + item.name.replace(" ", "\n  ") + ".") is item


@pytest.mark.parametrize(
    "text", ["", "How do I brew tea?", "an ashen draught", "ashen draught of Paris", "bashen draught of Velmor"]
)
def test_a_text_without_an_item_finds_none(text):
    assert WORLD.find(text) is None


@pytest.mark.parametrize("seed", range(1, 4))
def test_another_seed_has_the_same_names_and_another_table(seed):
    other = world(seed)
    assert list(other.items) == list(WORLD.items)
    same = [item.facts == other.items[name].facts for name, item in WORLD.items.items()]
    assert sum(same) < 0.01 * len(same)


def test_draws_are_fixed_for_ever():
    assert number(0, "a") == 1574244910681746387
    assert pick("abcdef", 3, "x") == "e"
    assert shuffled("abcdef", 3) == ["e", "c", "b", "f", "a", "d"]


@given(st.sets(st.text(max_size=4)), st.integers())
def test_a_shuffle_keeps_the_values_and_forgets_their_order(values, seed):
    made = shuffled(sorted(values), seed)
    assert sorted(made) == sorted(values)
    assert made == shuffled(sorted(values, reverse=True), seed)
