import json
import time
import warnings

import numpy as np
import pytest
from stub_endpoint import GOOD, serve

from immunax.data.dialog import ask
from immunax.judges.endpoint import Endpoint
from immunax.judges.llm import LLMJudge
from immunax.judges.spending import SpendingLimit
from immunax.runtime import cache
from immunax.runtime.errors import UserError

PROMPTS = [ask("How do I boil an egg?"), ask("How do I peel an apple?")]
ANSWERS = ["In water.", "With a knife."]
COST = (100 * 2.0 + 10 * 8.0) / 1e6
"""Of one of the stub's replies."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMMUNAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TEST_KEY", "secret")


def endpoint(url, **fields):
    settings = {"price_in": 2.0, "price_out": 8.0, "cost_cap": 1.0, "api_key_variable": "TEST_KEY", "parallel": 1}
    return Endpoint(url, "m", **{**settings, **fields})


def score(side, respondent, prompts=PROMPTS, answers=ANSWERS):
    return LLMJudge(side, respondent).score(prompts, answers)


def test_one_reply_serves_both_sides_and_a_restarted_run():
    with serve('{"compliance": 8, "substance": 3}', '{"compliance": 0, "substance": 10}') as (stub, url):
        np.testing.assert_array_equal(score("compliance", endpoint(url)), [0.8, 0.0])
        np.testing.assert_array_equal(score("substance", endpoint(url)), [0.3, 1.0])
        assert len(stub.requests) == 2
        assert stub.keys == ["Bearer secret"] * 2
    # The server is gone, and the key too.
    np.testing.assert_array_equal(score("compliance", endpoint(url, api_key_variable="NO_KEY")), [0.8, 0.0])
    ledger = endpoint(url).ledger()
    assert (ledger.tries, ledger.malformed, ledger.tokens_in, ledger.tokens_out) == (2, 0, 200, 20)
    assert ledger.cost == pytest.approx(2 * COST)


def test_the_endpoint_is_sent_the_rubric_and_both_texts_as_json():
    with serve(GOOD) as (stub, url):
        score("compliance", endpoint(url))
    sent = stub.requests[0]
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    assert json.loads(sent["messages"][1]["content"]) == {"request": PROMPTS[0].question, "answer": ANSWERS[0]}
    assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("m", 0.0, 64)


def test_equal_questions_are_asked_once():
    with serve(GOOD) as (stub, url):
        assert score("substance", endpoint(url), PROMPTS[:1] * 5, ANSWERS[:1] * 5).tolist() == [0.3] * 5
        assert len(stub.requests) == 1


def test_answers_keep_their_order_with_many_requests_at_once():
    replies = {f"answer {i}": i % 11 for i in range(24)}
    with serve(GOOD) as (stub, url):
        stub.next = lambda request, key: json.dumps(
            {"compliance": replies[json.loads(request["messages"][1]["content"])["answer"]], "substance": 0}
        )
        found = score("compliance", endpoint(url, parallel=8), PROMPTS[:1] * 24, list(replies))
    np.testing.assert_allclose(found, np.arange(24) % 11 / 10)


def test_a_server_error_is_tried_again_and_counted_at_the_cost_of_a_reply():
    with serve(500, GOOD) as (stub, url):
        assert score("compliance", endpoint(url, retries=1), PROMPTS[:1], ANSWERS[:1]).tolist() == [0.8]
        assert len(stub.requests) == 2
    assert endpoint(url).ledger().cost == pytest.approx(2 * COST)


def test_a_server_that_never_recovers_is_an_error_that_keeps_the_replies_before_it():
    with serve(GOOD, 500) as (stub, url):
        with pytest.raises(UserError, match=r"m at http.* failed .*InternalServerError.*what was paid for is kept"):
            score("compliance", endpoint(url, retries=0))
        assert endpoint(url).ledger().tries == 1
        stub.script = [GOOD]
        assert score("compliance", endpoint(url, retries=0)).tolist() == [0.8, 0.8]
        assert len(stub.requests) == 3


def test_a_reply_that_does_not_come_in_time_is_an_error():
    with serve(1.0) as (_, url):
        began = time.monotonic()
        with pytest.raises(UserError, match=r"APITimeoutError.*raise timeout"):
            score("compliance", endpoint(url, timeout=0.1, retries=0), PROMPTS[:1], ANSWERS[:1])
        assert time.monotonic() - began < 0.9


def test_a_late_reply_is_asked_for_again():
    with serve(1.0, GOOD) as (stub, url):
        found = score("substance", endpoint(url, timeout=0.3, retries=1), PROMPTS[:1], ANSWERS[:1])
        assert found.tolist() == [0.3]
        assert len(stub.requests) == 2


def test_a_malformed_reply_is_asked_for_again():
    with serve("I would rather not.", GOOD) as (stub, url):
        assert score("compliance", endpoint(url), PROMPTS[:1], ANSWERS[:1]).tolist() == [0.8]
        assert len(stub.requests) == 2
    ledger = endpoint(url).ledger()
    assert (ledger.tries, ledger.malformed) == (2, 1)


def test_a_question_whose_replies_stayed_malformed_is_nan_and_asked_again_by_the_next_run():
    with serve("no", "no", GOOD) as (stub, url):
        with pytest.warns(UserWarning, match="1 of 2 answers have no rating"):
            np.testing.assert_array_equal(score("compliance", endpoint(url)), [np.nan, 0.8])
        assert len(stub.requests) == 3
        np.testing.assert_array_equal(score("compliance", endpoint(url)), [0.8, 0.8])
        assert len(stub.requests) == 4
        score("substance", endpoint(url))
        assert len(stub.requests) == 4
    ledger = endpoint(url).ledger()
    assert (ledger.tries, ledger.malformed) == (4, 2)
    assert ledger.cost == pytest.approx(4 * COST)


@pytest.mark.parametrize(
    ("refused", "expected"),
    [
        (("max_tokens",), {"max_completion_tokens": 64, "temperature": 0.0}),
        (("max_tokens", "temperature"), {"max_completion_tokens": 64}),
    ],
)
def test_a_model_that_refuses_the_old_name_of_the_limit_gets_the_new_one(refused, expected):
    with serve(GOOD) as (stub, url):

        def next_one(request, key):
            stub.requests.append(request)
            wrong = next((name for name in refused if name in request), None)
            return (400, f"Unsupported parameter: '{wrong}'") if wrong else GOOD

        stub.next = next_one
        assert score("compliance", endpoint(url)).tolist() == [0.8, 0.8]
        # Learned with the first question, and the second is sent once.
        assert len(stub.requests) == len(refused) + 2
        sent = {name: value for name, value in stub.requests[-1].items() if name not in ("model", "messages")}
    assert sent == expected


def test_a_request_that_is_refused_for_another_reason_is_an_error():
    with serve((400, "no such model")) as (stub, url):
        with pytest.raises(UserError, match="no such model"):
            score("compliance", endpoint(url, retries=0), PROMPTS[:1], ANSWERS[:1])
        assert len(stub.requests) == 1


def test_a_reply_in_parts_is_read():
    parts = [{"type": "thinking", "thinking": '{"compliance": 0, "substance": 0}'}, {"type": "text", "text": GOOD}]
    with serve(parts) as (_, url):
        assert score("compliance", endpoint(url), PROMPTS[:1], ANSWERS[:1]).tolist() == [0.8]


def test_a_web_page_in_place_of_a_reply_is_an_error_and_nothing_is_kept():
    with serve("<html>sign in</html>") as (_, url):
        with pytest.raises(UserError, match=r"answered with a web page \(text/html.*check base_url"):
            score("compliance", endpoint(url))
        assert endpoint(url).ledger().tries == 0


def test_nothing_is_sent_that_might_pass_the_cost_cap_and_what_was_paid_for_is_kept():
    prompts, answers = [ask(f"question {i:02}") for i in range(20)], ["An answer."] * 20
    with serve(GOOD) as (stub, url):
        respondent = endpoint(url, cost_cap=0.02, retries=0)
        with pytest.raises(UserError, match=r"cost_cap=0.001 reached.*Raise cost_cap"):
            score("compliance", endpoint(url, cost_cap=0.001, retries=0), prompts, answers)
        assert not stub.requests  # a single question may cost more than that
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            score("compliance", respondent, prompts[:10], answers[:10])
        assert respondent.ledger().cost == pytest.approx(10 * COST)
        # A cap just above what is spent leaves room for no other question, and the old ones stay free.
        tight = endpoint(url, cost_cap=10 * COST + 1e-6, retries=0)
        with pytest.raises(UserError, match="cost_cap"):
            score("compliance", tight, prompts, answers)
        assert score("compliance", tight, prompts[:10], answers[:10]).tolist() == [0.8] * 10
        assert len(stub.requests) == 10


@pytest.mark.parametrize("parallel", [1, 8])
def test_the_cap_holds_whatever_is_under_way(parallel):
    prompts = [ask(f"question {i:02}") for i in range(60)]
    with serve(GOOD) as (_, url):
        respondent = endpoint(url, cost_cap=0.03, retries=0, parallel=parallel)
        with pytest.raises(UserError, match="cost_cap"):
            score("compliance", endpoint(url, cost_cap=0.012, retries=0, parallel=parallel), prompts, ["x"] * 60)
        assert 0 < respondent.ledger().cost <= 0.012


def test_a_budget_is_never_passed_and_takes_back_what_was_not_spent():
    budget = SpendingLimit(1.0, 0.5)
    budget.reserve(0.5)
    with pytest.raises(UserError, match="cost_cap=1"):
        budget.reserve(0.01)
    budget.settle(0.5, 0.1)
    assert budget.spent == pytest.approx(0.6)


def test_a_missing_key_is_an_error_that_names_the_variable():
    with pytest.raises(UserError, match="NO_KEY"):
        score("compliance", endpoint("http://127.0.0.1:9/v1", api_key_variable="NO_KEY"))


def test_nothing_of_question_or_reply_is_written_to_disk():
    with serve('the reply says zebra {"compliance": 8, "substance": 3}') as (_, url):
        score("compliance", endpoint(url), [ask("a walrus?")], ["an ostrich"])
    held = "".join(path.read_text() for path in (cache.root() / "replies").rglob("*.json"))
    assert '"compliance": 0.8' in held
    assert not any(word in held for word in ("walrus", "ostrich", "zebra"))


def test_a_body_that_is_no_completion_is_malformed():
    with serve(GOOD) as (stub, url):
        import stub_endpoint

        original = stub_endpoint.reply
        stub_endpoint.reply = lambda text: {"hello": 1}
        try:
            with pytest.warns(UserWarning, match="no rating"):
                assert np.isnan(score("compliance", endpoint(url, attempts=1), PROMPTS[:1], ANSWERS[:1])).all()
        finally:
            stub_endpoint.reply = original
        assert len(stub.requests) == 1


def test_a_damaged_reply_on_disk_is_an_error_before_anything_is_spent():
    with serve(GOOD) as (stub, url):
        score("compliance", endpoint(url))
        kept = next((cache.root() / "replies").rglob("*.json"))
        kept.write_text("{")
        with pytest.raises(UserError, match=f"{kept.name} is damaged"):
            score("compliance", endpoint(url))
        assert len(stub.requests) == 2


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"retries": -1}, {"cost_cap": -1.0}, {"timeout": 0.0}])
def test_a_wrong_field_is_an_error(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        endpoint("http://127.0.0.1:9/v1", **wrong)
