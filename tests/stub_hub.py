"""A Hugging Face Hub on this machine with one repository."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

from served import served

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve(name: str, folder: Path) -> Iterator[str]:
    """The address of a Hub whose only repository holds a folder's files."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET(body=False)

        def do_GET(self, body=True):
            path = urlsplit(self.path).path
            file = folder / path.rpartition("/")[2]
            if path.startswith(f"/api/models/{name}/tree/"):
                tree = [{"type": "file", "path": each.name, **_facts(each)} for each in sorted(folder.iterdir())]
                self._send(json.dumps(tree).encode(), "tree", body)
            elif path.startswith(f"/api/models/{name}"):
                siblings = [{"rfilename": each.name} for each in sorted(folder.iterdir())]
                self._send(json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode(), "listing", body)
            elif path.startswith(f"/{name}/resolve/") and file.is_file():
                self._send(file.read_bytes(), file.name, body)
            else:
                self.send_error(404)

        def _send(self, content, etag, body):
            self.send_response(200)
            for key, value in (("ETag", f'"{etag}"'), ("X-Repo-Commit", COMMIT), ("Content-Length", str(len(content)))):
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    with served(Handler) as address:
        yield address


def _facts(file: Path) -> dict[str, object]:
    return {"size": file.stat().st_size, "oid": file.name}
