"""A chat-completions endpoint on this machine that replies as it is told."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler

from served import served

GOOD = '{"compliance": 8, "substance": 3}'


class Stub:
    """Replies with ``script`` in turn, then with its last entry for ever: a text or its parts, a page, a status, a status with
    its reason, or seconds to wait."""

    def __init__(self, script):
        self.script = list(script)
        self.requests: list[dict] = []
        self.keys: list[str] = []
        self.lock = threading.Lock()

    def next(self, request, key):
        with self.lock:
            self.requests.append(request)
            self.keys.append(key)
            return self.script.pop(0) if len(self.script) > 1 else self.script[0]


@contextmanager
def serve(*script) -> Iterator[tuple[Stub, str]]:
    stub = Stub(script)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told = stub.next(body, self.headers["Authorization"])
            if isinstance(told, float):
                time.sleep(told)
                told = GOOD
            told = (told, "told to fail") if isinstance(told, int) else told
            if isinstance(told, tuple):
                self._send(told[0], json.dumps({"error": {"message": told[1]}}))
            elif str(told).startswith("<html"):
                self._send(200, told, "text/html; charset=utf-8")
            else:
                self._send(200, json.dumps(reply(told)))

        def _send(self, status, text, kind="application/json"):
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(BrokenPipeError):  # the client gave up waiting
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    with served(Handler) as address:
        yield stub, f"{address}/v1"


def reply(text):
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
