"""A model behind any endpoint that speaks OpenAI's chat completions: a provider's, or vLLM's or Ollama's at home.

What a request may cost at most is known before it is sent: no tokenizer makes more tokens of a text than it has bytes, and
``max_tokens`` bounds the reply. That much is set aside for it and for each time that it may be sent again. A request that
fails for good stays set aside until the run ends; a later run counts replies alone. A reply without a rating is counted at its
cost, and its question is asked again by the next run.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any

from immunax.data.dialog import Dialog
from immunax.judges.replies import Ledger, Reply, by_leader, store
from immunax.judges.rubric import Rating, parse
from immunax.judges.spending import SpendingLimit
from immunax.runtime import pace
from immunax.runtime.errors import UserError

_TEMPLATE_TOKENS = 64
"""More than any chat template puts around two turns."""
_MILLION = 1e6
_FORMS: tuple[tuple[str, dict[str, float]], ...] = (
    ("max_tokens", {"temperature": 0.0}),
    ("max_completion_tokens", {"temperature": 0.0}),
    ("max_completion_tokens", {}),
)
"""How a request is put, in the order tried: newer models of OpenAI refuse the old name of the limit, and some any temperature."""


@dataclass(frozen=True)
class Endpoint:
    """Needs the extra ``endpoint``.

    Attributes:
      base_url: such as ``https://api.openai.com/v1``.
      model: by the endpoint's name for it.
      price_in, price_out: of a million tokens of question and of reply, in any one currency; 0 for a model at home.
      cost_cap: the most that replies of this model may cost, all runs with this cache together, in that currency.
      api_key_variable: environment variable that holds the key; None sends none.
      attempts: how often a run asks a question while its replies are malformed.
      retries: how often a request is sent again, after a growing pause, when it fails (no connection, a time-out,
        status 408, 409, 429 or 5xx).
      timeout: seconds that one request may take.
      parallel: requests at once.
      max_tokens: of a reply, a model's reasoning included.
    """

    base_url: str
    model: str
    price_in: float
    price_out: float
    cost_cap: float
    api_key_variable: str | None = "OPENAI_API_KEY"
    attempts: int = 2
    retries: int = 4
    timeout: float = 60.0
    parallel: int = 4
    max_tokens: int = 64

    def __post_init__(self) -> None:
        for name, least in (("attempts", 1), ("retries", 0), ("parallel", 1), ("max_tokens", 1)):
            if getattr(self, name) < least:
                raise UserError(f"endpoint {name}={getattr(self, name)}: expected at least {least}.")
        for name in ("price_in", "price_out", "cost_cap"):
            if getattr(self, name) < 0:
                raise UserError(f"endpoint {name}={getattr(self, name)}: expected 0 or more.")
        if self.timeout <= 0:
            raise UserError(f"endpoint timeout={self.timeout}: expected more than 0 seconds.")

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model and where it is; what a provider changes behind the name is not seen."""
        return {"base_url": self.base_url, "model": self.model, "max_tokens": self.max_tokens}

    @property
    def described(self) -> str:
        """Model and place."""
        return f"{self.model} at {self.base_url}"

    def ledger(self) -> Ledger:
        """What its replies have cost so far, and how many were malformed."""
        return store(self.identity).ledger()

    def rate(self, asked: Sequence[Dialog]) -> list[Rating | None]:
        """Asks what was not asked before; equal questions once, and by the leader for all processes.

        Args:
          asked: N questions.

        Returns:
          N ratings, None where every reply was malformed.

        Raises:
          UserError: the client or the key is missing, the endpoint fails for good, or the next request might pass
            ``cost_cap``; replies that came before are kept.
        """
        return by_leader(lambda: self._rated(asked))

    def _rated(self, asked: Sequence[Dialog]) -> list[Rating | None]:
        kept = store(self.identity)
        budget = SpendingLimit(self.cost_cap, kept.ledger().cost)
        # Made once something is to be asked: what is kept already needs neither client nor key.
        client = _once(self._client)

        def rating(question: Dialog) -> Rating | None:
            attempt = 0
            while (reply := kept.find(question, attempt)) is not None:
                if reply.rating is not None:
                    return reply.rating
                attempt += 1
            for again in range(attempt, attempt + self.attempts):
                reply = self._ask(client(), question, budget)
                kept.keep(question, again, reply)
                if reply.rating is not None:
                    return reply.rating
            return None

        distinct = list(dict.fromkeys(asked))
        pool = ThreadPoolExecutor(self.parallel)
        try:
            found = dict(zip(distinct, pool.map(rating, distinct), strict=True))
        finally:
            pool.shutdown(cancel_futures=True)
        return [found[question] for question in asked]

    def _ask(self, client: "_Client", question: Dialog, budget: SpendingLimit) -> Reply:
        import openai

        messages = [{"role": turn.role, "content": turn.content} for turn in question.prompt]
        bound_in = sum(len(turn.content.encode()) for turn in question.prompt) + _TEMPLATE_TOKENS
        most = self._cost(bound_in, self.max_tokens) * (1 + self.retries)
        budget.reserve(most)
        try:
            answer = client.send(self.model, messages, self.max_tokens)
        except openai.OpenAIError as error:
            reason = " ".join(str(error).split())[:160].rstrip(".")
            raise UserError(
                f"{self.described} failed ({type(error).__name__}: {reason}); what was paid for is kept. "
                "Check base_url, model and key, or raise timeout and retries."
            ) from error
        kind = answer.headers.get("content-type", "")
        if "html" in kind:
            raise UserError(
                f"{self.described} answered with a web page ({kind}), not with a reply; check base_url, which ends in /v1 "
                "at most endpoints."
            )
        text, tokens_in, tokens_out = _content(answer, bound_in, self.max_tokens)
        # A request that timed out may have been charged all the same.
        cost = self._cost(tokens_in, tokens_out) * (1 + answer.retries_taken)
        budget.settle(most, cost)
        return Reply(parse(text), tokens_in, tokens_out, cost)

    def _cost(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.price_in + tokens_out * self.price_out) / _MILLION

    def _client(self) -> "_Client":
        try:
            import openai
        except ImportError as error:
            raise UserError("an endpoint needs the package openai; run: pip install 'immunax[endpoint]'") from error
        key = "none" if self.api_key_variable is None else os.environ.get(self.api_key_variable)
        if not key:
            raise UserError(
                f"no API key for {self.base_url}: set the environment variable {self.api_key_variable}, "
                "or api_key_variable=null where none is needed."
            )
        return _Client(
            openai.OpenAI(
                base_url=self.base_url,
                api_key=key,
                timeout=self.timeout,
                max_retries=self.retries,
                http_client=openai.DefaultHttpxClient(event_hooks={"request": [lambda request: pace.move()]}),
            )
        )


class _Client:
    """A client that has learned which form of a request its endpoint takes."""

    def __init__(self, client: Any) -> None:
        self._client, self._form = client, 0

    def send(self, model: str, messages: Sequence[Mapping[str, str]], limit: int) -> Any:
        """The raw reply.

        Raises:
          openai.OpenAIError: every form is refused, or the request fails otherwise.
        """
        import openai

        create = self._client.chat.completions.with_raw_response.create
        for number in range(self._form, len(_FORMS)):
            name, settings = _FORMS[number]
            form = {name: limit, **settings}
            try:
                answer = create(model=model, messages=messages, **form)
            except openai.BadRequestError as error:
                named = any(each in str(error) for each in form)
                if not named or number + 1 == len(_FORMS):
                    raise
                continue
            self._form = number
            return answer
        raise AssertionError("a form is always left")


def _once(make: Callable[[], "_Client"]) -> Callable[[], "_Client"]:
    lock, made = Lock(), []

    def get() -> _Client:
        with lock:
            if not made:
                made.append(make())
            return made[0]

    return get


def _content(answer: Any, bound_in: int, bound_out: int) -> tuple[str, int, int]:
    """Text and tokens of a reply; the bounds where it does not tell, and no text where it is no chat completion."""
    import openai

    try:
        completion = answer.parse()
        text = _text(completion.choices[0].message.content)
    except (openai.OpenAIError, AttributeError, IndexError, TypeError, ValueError):
        return "", bound_in, bound_out
    usage = getattr(completion, "usage", None)
    counts = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
    tokens_in, tokens_out = (
        count if isinstance(count, int) else bound for count, bound in zip(counts, (bound_in, bound_out), strict=True)
    )
    return text, tokens_in, tokens_out


def _text(content: Any) -> str:
    """A message's text, which some endpoints give in parts."""
    if isinstance(content, list):
        parts = [part if isinstance(part, Mapping) else vars(part) for part in content]
        return "".join(str(part.get("text") or "") for part in parts if part.get("type", "text") in _TEXTS)
    return content if isinstance(content, str) else ""


_TEXTS = ("text", "output_text")
