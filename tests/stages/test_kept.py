import numpy as np
import pytest
import tiny

from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.tuning import Tuning
from immunax.conditions.records import UNFINISHED
from immunax.data.chat import Counts
from immunax.data.dialog import Split, Splits, ask
from immunax.data.packing import Tokens
from immunax.judges.evaluate import Evaluation, Scores, held_out
from immunax.outer.defense import Mixture
from immunax.runtime import goodput
from immunax.runtime.errors import UserError
from immunax.stages.exam import Exam, rows
from immunax.stages.kept import (
    count_tokens,
    help_with_rows,
    record_counts,
    record_tokens,
    tell_programs,
    tokens_by_family,
)
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


def test_real_tokens_are_one_line_with_advice_where_they_are_few(capsys):
    mixture = Mixture(safe=4, retain=4)
    for ways, real, advised in (
        (64, 9, "raise the examples of defense.mixture to 64"),
        (1, 9, "trainer.max_length"),
        (64, 90, None),
    ):
        tokens = {"safe": Tokens(real, 100), "retain": Tokens(3 * real, 300)}
        found = record_tokens("a step", tokens, help_with_rows(mixture, ways))
        assert found["all"] == {"real": 4 * real, "shape": 400, "share": real / 100}
        line = " ".join(capsys.readouterr().err.split())
        assert line.startswith(f"a step: {real}.0% of the tokens computed are real (safe {real}.0%, retain {real}.0%)")
        assert (advised or "padding") in line
        assert (";" in line) == (advised is not None)
    assert record_tokens("nothing", {}, "") == {}
    assert capsys.readouterr().err == ""


def test_the_tokens_of_a_program_are_those_of_its_batches_and_are_added_up_by_family(tmp_path, capsys):
    evaluation = Evaluation(prompts=2, examples=4, max_length=60)
    attacks = [HarmfulSFT(count, Tuning(max_length=200, batch_size=5, epochs=1)) for count in (10, 5)]
    parts = assemble_population(attacks, evaluation, tiny.tokenizer(), SPLITS).parts
    assert len(parts) == 2
    for part in parts:
        sizes = [size for member in part.examples for batch in member for size, _ in batch]
        batches = part.batches.of(range(len(part.places)), 0, part.steps)
        assert part.tokens == (sum(sizes), batches.tokens.size)
        assert part.tokens.real == (batches.segment_ids > 0).sum()
    with goodput.kept(whole_process=False):
        goodput.record(tmp_path)
        for _ in range(2):
            count_tokens("harmful_sft", parts)
        found = tokens_by_family(tmp_path)
    assert found["harmful_sft"]["real"] == 2 * sum(part.tokens.real for part in parts)
    assert found["all"] == found["harmful_sft"]
    capsys.readouterr()
    count_tokens("harmful_sft", [])
    assert capsys.readouterr().err == ""


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
