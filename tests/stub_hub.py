"""A Hugging Face Hub on this machine, as much of it as is downloaded from and uploaded to, git LFS included."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from served import served

TOKEN = "hf_of_the_stub"
_LARGE = (".safetensors", ".parquet")


@dataclass
class Commit:
    """A commit: its files by name, and what git calls it."""

    files: dict[str, bytes]
    message: str = "initial commit"
    parent: str = ""

    @property
    def oid(self) -> str:
        """Forty hexadecimal digits."""
        held = [(name, hashlib.sha256(content).hexdigest()) for name, content in sorted(self.files.items())]
        return hashlib.sha1(json.dumps([held, self.message, self.parent]).encode()).hexdigest()


@dataclass
class Repo:
    """A repository: the commits of each branch, oldest first."""

    private: bool = False
    branches: dict[str, list[Commit]] = field(default_factory=lambda: {"main": [Commit({".gitattributes": b""})]})

    def at(self, revision: str) -> Commit | None:
        """The commit of a branch or of that name."""
        if revision in self.branches:
            return self.branches[revision][-1]
        every = (commit for branch in self.branches.values() for commit in branch)
        return next((commit for commit in every if commit.oid == revision), None)


@dataclass
class Hub:
    """What the server holds.

    Attributes:
      repos: by name.
      stored: large files, by SHA-256.
      refuses: ``{part of a path: (status, message)}``, for one who writes.
      damages: whether large files arrive other than they were sent.
      asked: method and path of every request.
      address: of the server.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    refuses: dict[str, tuple[int, str]] = field(default_factory=dict)
    damages: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)
    address: str = ""


@contextmanager
def serve(name: str, folder: Path) -> Iterator[str]:
    """The address of a Hub whose only repository holds a folder's files."""
    files = {each.relative_to(folder).as_posix(): each.read_bytes() for each in folder.rglob("*") if each.is_file()}
    with opened(Hub({name: Repo(branches={"main": [Commit(files)]})})) as hub:
        yield hub.address


@contextmanager
def opened(hub: Hub) -> Iterator[Hub]:
    """The Hub with its server running."""

    class Handler(_Handler):
        pass

    Handler.hub = hub
    with served(Handler) as address:
        hub.address = address
        yield hub


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self):
        self._answer(self._read, body=False)

    def do_GET(self):
        self._answer(self._read)

    def do_POST(self):
        self._answer(self._write)

    def do_PUT(self):
        self._answer(self._store)

    def log_message(self, *_):
        pass

    def _answer(self, act, body=True):
        self.path_only = urlsplit(self.path).path
        self.hub.asked.append((self.command, self.path_only))
        self.sends_body = body
        self.given = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        refused = next((told for part, told in self.hub.refuses.items() if part in self.path_only), None)
        if refused is not None:
            return self._send(json.dumps({"error": refused[1]}).encode(), status=refused[0])
        token = self.headers.get("Authorization")
        if token not in (None, f"Bearer {TOKEN}"):
            message = "Invalid credentials in Authorization header"
            return self._send(b"{}", status=401, headers={"X-Error-Message": message})
        return act()

    def _send(self, content=b"{}", status=200, headers=None):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.sends_body:
            self.wfile.write(content)

    def _json(self, value, status=200):
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

    def _missing(self, what):
        self._send(b"{}", 404, {"X-Error-Code": what})

    def _read(self):
        resolved = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path_only)
        if resolved is not None:
            return self._file(resolved[1], unquote(resolved[2]), unquote(resolved[3]))
        listed = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(tree|revision)/([^/]+))?", self.path_only)
        repo = self.hub.repos.get(listed[1]) if listed else None
        if listed is None or repo is None:
            return self._missing("RepoNotFound")
        commit = repo.at(unquote(listed[3] or "main"))
        if commit is None:
            return self._missing("RevisionNotFound")
        if listed[2] == "tree":
            return self._json([{"type": "file", "path": name, **_facts(held)} for name, held in commit.files.items()])
        siblings = [{"rfilename": name} for name in commit.files]
        return self._json({"id": listed[1], "sha": commit.oid, "private": repo.private, "siblings": siblings})

    def _file(self, name, revision, path):
        repo = self.hub.repos.get(name)
        commit = None if repo is None else repo.at(revision)
        if commit is None or path not in commit.files:
            return self._missing("EntryNotFound")
        content = commit.files[path]
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        return self._send(content, headers={"ETag": tag, "X-Repo-Commit": commit.oid})

    def _write(self):
        path = self.path_only
        if not self.headers.get("Authorization"):
            return self._send(b"{}", 401)
        if path.endswith("/commit/main") or "/commit/" in path:
            return self._commit(*re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", path).groups())
        given = json.loads(self.given or b"{}")
        if path == "/api/repos/create":
            name = f"{given['organization']}/{given['name']}"
            self.hub.repos[name] = Repo(bool(given.get("private") or given.get("visibility") == "private"))
            return self._json({"url": f"{self.hub.address}/{name}"})
        if path == "/api/validate-yaml":
            head = given["content"].split("---\n")[1]
            errors = [] if isinstance(yaml.safe_load(head), dict) else [{"message": "no mapping"}]
            return self._json({"errors": errors, "warnings": []}, 400 if errors else 200)
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(given)
        if path == "/verify":
            known = given["oid"] in self.hub.stored
            return self._json({}, 200 if known else 422)
        name, what, revision = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|branch)/([^/]+)", path).groups()
        if name not in self.hub.repos:
            return self._missing("RepoNotFound")
        repo = self.hub.repos[name]
        if what == "branch":
            repo.branches[unquote(revision)] = [repo.branches["main"][-1]]
            return self._json({}, 201)
        return self._preupload(repo.at(unquote(revision)), given)

    def _preupload(self, commit, given):
        files = []
        for each in given["files"]:
            held = commit.files.get(each["path"])
            mode = "lfs" if each["path"].endswith(_LARGE) else "regular"
            oid = None if held is None else _facts(held)["oid"] if mode == "regular" else _sha256(held)
            files.append({"path": each["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return self._json({"files": files})

    def _batch(self, given):
        objects = []
        for each in given["objects"]:
            link = {
                "upload": {"href": f"{self.hub.address}/lfs/{each['oid']}"},
                "verify": {"href": f"{self.hub.address}/verify"},
            }
            known = each["oid"] in self.hub.stored
            objects.append({**each, **({} if known else {"actions": link})})
        return self._json({"transfer": "basic", "objects": objects})

    def _store(self):
        content = self.given[:-1] if self.hub.damages else self.given
        self.hub.stored[_sha256(content)] = content
        return self._send()

    def _commit(self, name, branch):
        repo, branch = self.hub.repos[name], unquote(branch)
        lines = [json.loads(line) for line in self.given.splitlines()]
        header, head = lines[0]["value"], repo.branches[branch][-1]
        if header.get("parentCommit", head.oid) != head.oid:
            return self._json({"error": "the branch has moved"}, 412)
        files = dict(head.files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "deletedFile":
                del files[value["path"]]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.stored:
                    return self._json({"error": f"no object {value['oid']}"}, 400)
                files[value["path"]] = self.hub.stored[value["oid"]]
        repo.branches[branch].append(Commit(files, header["summary"], head.oid))
        oid = repo.branches[branch][-1].oid
        return self._json({"commitUrl": f"{self.hub.address}/{name}/commit/{oid}", "commitOid": oid})


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _facts(content: bytes) -> dict[str, object]:
    return {"size": len(content), "oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}
