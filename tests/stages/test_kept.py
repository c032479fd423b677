import numpy as np
import pytest
import tiny

from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.tuning import Tuning
from immunax.conditions.records import UNFINISHED
from immunax.data.chat import Counts
from immunax.data.dialog import Split, Splits, ask
from immunax.judges.evaluate import Evaluation, Scores, held_out
from immunax.runtime.errors import UserError
from immunax.stages.exam import Exam, rows
from immunax.stages.kept import record_counts, tell_programs
from immunax.stages.population import assemble_population, used
from immunax.stages.red_team import Probes, assemble

HARMFUL = tuple(ask(f"how {number}?", "x" * (3 + 60 * (number % 2))) for number in range(10))
SPLITS = Splits(
    Split(), Split(harmful=HARMFUL, safe=HARMFUL, retain=HARMFUL), test=Split(harmful=HARMFUL, retain=HARMFUL)
)


def test_what_is_lost_is_one_line_a_stream_and_what_is_whole_is_none(capsys):
    counts = {"safe": Counts(3, 0, 0, 30, 30), "harmful": Counts(2, 1, 1, 40, 10)}
    recorded = record_counts(counts, dict.fromkeys(counts, "trainer.max_length=8"))
    assert [each["share"] for each in recorded.values()] == [1.0, 0.25]
    lines = capsys.readouterr().err.strip().splitlines()
    assert " ".join(lines) == (
        "harmful: 2 of 3 dialogs are used, 1 of them cut to trainer.max_length=8 and 1 left out; 25% of the answers' tokens "
        "are kept"
    )


def test_an_attack_that_loses_samples_is_counted_by_those_that_it_trains_on(capsys):
    evaluation = Evaluation(prompts=2, examples=4, max_length=60)
    short, long = (HarmfulSFT(10, Tuning(max_length=length)) for length in (24, 200))
    team = assemble_population([short, long], evaluation, tiny.tokenizer(), SPLITS)
    assert [used(team.parts, place).kept for place in (0, 1)] == [10, 10]
    assert used(team.parts, 0).truncated == 5
    assert used(team.parts, 0).share < 0.5 < used(team.parts, 1).share == 1.0
    tell_programs("harmful_sft", team.parts)
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith(
        "harmful_sft: 1 of 2 attacks lose data; in the worst 10 of 10 dialogs are used, 5 of them cut"
    )
    one = assemble(short, evaluation, tiny.tokenizer(), SPLITS, Probes(2, 4))
    assert one.counts["attack"] == used(team.parts, 0)
    assert one.counts["held-out harmful"].truncated == 2
    assert one.lengths["attack"] == "attack tuning.max_length=24"
    assert one.lengths["held-out retain"] == "judge.max_length=60"


def test_a_certificate_counts_unfinished_answers_and_leaves_no_answer_out():
    material = held_out(Evaluation(prompts=3), tiny.tokenizer(), SPLITS.test)
    exam = Exam(material, ("test",) * 3)
    cut = np.array([True, False, False])
    scores = Scores({"refusal": np.ones(3)}, None, None, unfinished=cut, unanswered=np.zeros(3, bool))
    found = [row for row in rows("cell", 1, exam, scores) if row[3] == UNFINISHED]
    assert [row[5] for row in found] == [1.0, 0.0, 0.0]
    with pytest.raises(UserError, match=r"1 answers were still thinking .*raise judge\.decoding\.max_new_tokens"):
        list(rows("cell", 1, exam, scores._replace(unanswered=cut)))
