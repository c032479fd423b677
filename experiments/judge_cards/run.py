"""Measures judges against people; see the README beside this.

    IMMUNAX_DATA=FOLDER uv run python experiments/judge_cards/run.py
    IMMUNAX_DATA=FOLDER uv run python experiments/judge_cards/run.py scorer=llm_local scorer.respondent.source.path=PATH

Without arguments it measures what comes with the package and both classifiers, and writes ``results.json``, the figure and
the package's cards. With a scorer it measures that one and keeps its card in the cache folder, where the judge finds it.
"""

import json
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib

from immunax.judges.agreement import Agreement
from immunax.judges.card import JudgeCard, from_json, keep, own_card
from immunax.judges.labelled import Labelled, agreement
from immunax.judges.refusal import Refusal
from immunax.runtime.atomic import file
from immunax.runtime.launch import composed

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
CARDS = Path(str(resources.files("immunax.judges"))) / "cards"


def chosen(group: str, *overrides: str) -> Any:
    """What a choice of a group gives, built."""
    return composed("attack", overrides).build(group)


def measure(judge: Any, sources: dict[str, Labelled]) -> JudgeCard:
    """The judge's card with fresh agreements."""
    return replace(judge.card, agreements=tuple(agreement(judge, source) for source in sources.values()))


def main() -> None:
    """Measures what is asked for."""
    sources = chosen("labelled", "+labelled=xstest")
    if sys.argv[1:]:
        first, *rest = sys.argv[1:]
        card = measure(chosen("scorer", f"+{first}", *rest), sources)
        keep(own_card(card.name, card.identity), card, card.agreements)
        print(table([card]))
        return
    cards = [measure(Refusal(where), sources) for where in ("first_sentence", "anywhere")]
    for card in cards:
        keep(CARDS / f"{card.name}.json", card, card.agreements)
    for name in ("classifier_words", "classifier_states"):
        cards.append(chosen("scorer", f"+scorer={name}").card)
        print(f"{name}: done", flush=True)
    with file(RESULTS) as temp:
        temp.write_text(json.dumps([card.as_json() for card in cards], indent=1) + "\n")
    draw([from_json(each) for each in json.loads(RESULTS.read_text())])
    print(table(cards))


def table(cards: list[JudgeCard]) -> str:
    """The README's table."""
    lines = [
        "| judge | labelled answers | n | harmful | agreement (95%) | kappa | AUC |",
        "| --- | --- | ---: | ---: | --- | ---: | ---: |",
    ]
    for card in cards:
        lines += [f"| {card.name} | {_cells(each)} |" for each in card.agreements]
    return "\n".join(lines)


def _cells(found: Agreement) -> str:
    rate = f"{found.agreement:.3f} ({found.low:.3f} to {found.high:.3f})"
    numbers = ["" if value is None else f"{value:.3f}" for value in (found.kappa, found.auc)]
    return " | ".join([found.source, str(found.n), str(found.harmful), rate, *numbers])


def draw(cards: list[JudgeCard]) -> None:
    """Agreement with its interval, by source and judge."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(each.source for card in cards for each in card.agreements))
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for place, card in enumerate(cards):
        for each in card.agreements:
            height = len(names) - names.index(each.source) - 0.15 * (place - (len(cards) - 1) / 2)
            axes.plot([each.low, each.high], [height, height], color=f"C{place}", lw=1.5)
            label = card.name if each is card.agreements[0] else None
            axes.plot(each.agreement, height, "o", ms=4, color=f"C{place}", label=label)
    axes.set(
        yticks=range(len(names), 0, -1), yticklabels=names, xlim=(0, 1), xlabel="share of answers judged as people did"
    )
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    figure.savefig(HERE / "figure.png", dpi=120)


if __name__ == "__main__":
    main()
