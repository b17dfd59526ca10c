"""A Hugging Face Hub on this machine: as much of its HTTP interface as its real client uses, and faults to switch on.

    POST /api/repos/create                       a repository; 409 if it exists
    POST /api/models/ID/branch/NAME              a branch
    GET  /api/models/ID[/revision/REV]           what it is;  /tree/REV: its files
    POST /api/validate-yaml                      a card's header
    POST /api/models/ID/preupload/REV            which files are large
    POST /ID.git/info/lfs/objects/batch          where those go;  PUT /lfs/OID;  POST /lfs-verify
    POST /api/models/ID/commit/REV               lines of JSON: a header, files in base64, hashes of large files
    HEAD, GET /ID/resolve/REV/FILE               a file with its ETag and commit; a large one is a redirect to
    GET  http://localhost:PORT/cdn/OID           another host, with ranges

The requests that it got can be asked for afterwards.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

TOKEN = "hf_of_a_test"
LARGE = (".safetensors", ".bin")


@dataclass
class Repository:
    """Commits, each with all its files, and the branches that name them."""

    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, branch: str, files: Mapping[str, bytes]) -> str:
        """Add files to a branch; returns the commit."""
        before = self.branches.get(branch, "")
        whole = {**self.commits.get(before, {}), **files}
        listing = json.dumps([before, {path: hashlib.sha256(content).hexdigest() for path, content in whole.items()}])
        name = hashlib.sha1(listing.encode()).hexdigest()
        self.commits[name] = whole
        self.branches[branch] = name
        return name

    def resolve(self, revision: str) -> str | None:
        """The commit of a branch, or of its own name."""
        return self.branches.get(revision, revision if revision in self.commits else None)


@dataclass
class Fault:
    """What goes wrong with requests whose `METHOD path` holds a text; the first `times` of them.

    Attributes:
        status: is answered instead; None: the right answer.
        cut: bytes after which the connection is closed.
        meanwhile: done before the answer, as if by somebody else.
    """

    request: str
    status: int | None = None
    cut: int | None = None
    meanwhile: Callable[[], object] | None = None
    times: int = 1


class Hub(ThreadingHTTPServer):
    """The server; `requests` are those that it got, with their headers, in small letters."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, dict[str, str]]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def asked(self, text: str = "") -> list[str]:
        """The requests so far whose `METHOD path` holds a text."""
        return [request for request, _ in self.requests if text in request]

    def publish(self, repository: str, files: Mapping[str, bytes], private: bool = False, gated: bool = False) -> str:
        """Put files into a repository, as a push from elsewhere would; returns the commit."""
        made = self.repositories.setdefault(repository, Repository(private, gated))
        return made.commit("main", files)

    def files(self, repository: str, revision: str = "main") -> dict[str, bytes]:
        found = self.repositories[repository]
        return found.commits[found.branches[revision]]


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._handle(b"")

    def do_GET(self) -> None:
        self._handle(b"")

    def do_POST(self) -> None:
        self._handle(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_PUT(self) -> None:
        self.do_POST()

    def log_message(self, *_: object) -> None:
        pass

    def _handle(self, body: bytes) -> None:
        path = unquote(self.path.partition("?")[0])
        request = f"{self.command} {path}"
        self.server.requests.append((request, {name.lower(): value for name, value in self.headers.items()}))
        self.cut: int | None = None
        for fault in self.server.faults:
            if fault.times and fault.request in request:
                fault.times -= 1
                if fault.meanwhile:
                    fault.meanwhile()
                self.cut = fault.cut
                if fault.status is not None:
                    self._answer(fault.status)
                    return
        for pattern, method in _ROUTES:
            if match := re.fullmatch(pattern, request):
                getattr(self, method)(body, *match.groups())
                return
        self._answer(404)

    def _answer(self, status: int, content: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: self.cut])

    def _json(self, value: object, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _missing(self, what: str) -> None:
        self._answer(404, headers={"X-Error-Code": what})

    def _opened(self, name: str, writing: bool = False) -> Repository | None:
        """A repository, if there is one and the token may open it; otherwise the request is answered."""
        repository = self.server.repositories.get(name)
        has_token = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not has_token):
            self._answer(401 if not has_token else 404, headers={"X-Error-Code": "RepoNotFound"})
            return None
        if writing and not has_token:
            self._answer(403)
            return None
        return repository

    def create(self, body: bytes) -> None:
        wanted = json.loads(body)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, headers={"X-Error-Message": "Invalid credentials in Authorization header"})
            return
        name = f"{wanted['organization']}/{wanted['name']}"
        if name in self.server.repositories:
            self._json({"error": "You already created this model repo", "url": f"{self.server.address}/{name}"}, 409)
            return
        repository = self.server.repositories[name] = Repository(private=wanted.get("visibility") == "private")
        repository.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self._json({"url": f"{self.server.address}/{name}", "name": name})

    def branch(self, body: bytes, name: str, branch: str) -> None:
        if repository := self._opened(name, writing=True):
            if branch in repository.branches:
                self._json({"error": "exists"}, 409)
                return
            repository.branches[branch] = repository.branches["main"]
            self._json({})

    def info(self, body: bytes, name: str, revision: str | None) -> None:
        if repository := self._opened(name):
            commit = repository.resolve(revision or "main")
            if commit is None:
                self._missing("RevisionNotFound")
                return
            siblings = [{"rfilename": path} for path in repository.commits[commit]]
            about = {"id": name, "sha": commit, "private": repository.private, "siblings": siblings, "tags": []}
            self._json({**about, "downloads": 0, "likes": 0})

    def tree(self, body: bytes, name: str, revision: str) -> None:
        if repository := self._opened(name):
            commit = repository.resolve(revision)
            if commit is None:
                self._missing("RevisionNotFound")
                return
            files = repository.commits[commit]
            self._json(
                [
                    {"type": "file", "path": path, "size": len(content), "oid": _oid(path, content)}
                    for path, content in files.items()
                ]
            )

    def validate_yaml(self, body: bytes) -> None:
        content = json.loads(body)["content"]
        if re.match(r"---\n.*?\n---\n", content, re.DOTALL):
            self._json({"errors": [], "warnings": []})
        else:
            self._json({"errors": [{"message": "no header"}]}, 400)

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        if repository := self._opened(name, writing=True):
            there = repository.commits[repository.branches[revision]]
            self._json(
                {
                    "files": [
                        {
                            "path": file["path"],
                            "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                            "shouldIgnore": False,
                            "oid": _oid(file["path"], there[file["path"]]) if file["path"] in there else None,
                        }
                        for file in json.loads(body)["files"]
                    ]
                }
            )

    def batch(self, body: bytes, name: str) -> None:
        if self._opened(name, writing=True):
            objects: list[dict[str, Any]] = []
            for wanted in json.loads(body)["objects"]:
                actions = {
                    "upload": {"href": f"{self.server.address}/lfs/{wanted['oid']}"},
                    "verify": {"href": f"{self.server.address}/lfs-verify"},
                }
                known = wanted["oid"] in self.server.large
                objects.append(wanted if known else {**wanted, "actions": actions})
            self._json({"transfer": "basic", "objects": objects})

    def upload(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            self._answer(400)
            return
        self.server.large[oid] = body
        self._answer(200)

    def verify(self, body: bytes) -> None:
        wanted = json.loads(body)
        self._answer(200 if len(self.server.large.get(wanted["oid"], b"")) == wanted["size"] else 404)

    def commit(self, body: bytes, name: str, branch: str) -> None:
        if repository := self._opened(name, writing=True):
            files: dict[str, bytes] = {}
            for line in body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "lfsFile":
                    files[value["path"]] = self.server.large[value["oid"]]
            commit = repository.commit(branch, files)
            self._json(
                {"success": True, "commitOid": commit, "commitUrl": f"{self.server.address}/{name}/commit/{commit}"}
            )

    def resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        if repository := self._opened(name):
            commit = repository.resolve(revision)
            if repository.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._answer(403, headers={"X-Error-Code": "GatedRepo"})
            elif commit is None:
                self._missing("RevisionNotFound")
            elif path not in repository.commits[commit]:
                self._answer(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            else:
                content = repository.commits[commit][path]
                headers = {"X-Repo-Commit": commit, "ETag": f'"{_oid(path, content)}"'}
                if not path.endswith(LARGE):
                    self._answer(200, content, headers)
                    return
                self.server.large[_oid(path, content)] = content
                headers |= {"X-Linked-ETag": headers["ETag"], "X-Linked-Size": str(len(content))}
                elsewhere = f"http://localhost:{self.server.server_port}/cdn/{_oid(path, content)}"
                self._answer(302, headers={**headers, "Location": elsewhere})

    def cdn(self, body: bytes, oid: str) -> None:
        content = self.server.large[oid]
        headers = {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"}
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not match:
            self._answer(200, content, headers)
            return
        start = int(match[1])
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._answer(206, content[start:], headers)


_ID = r"([\w.-]+/[\w.-]+)"
_ROUTES = (
    (r"POST /api/repos/create", "create"),
    (r"POST /api/validate-yaml", "validate_yaml"),
    (rf"POST /api/models/{_ID}/branch/(.+)", "branch"),
    (rf"GET /api/models/{_ID}/tree/(.+)", "tree"),
    (rf"GET /api/models/{_ID}(?:/revision/(.+))?", "info"),
    (rf"POST /api/models/{_ID}/preupload/(.+)", "preupload"),
    (rf"POST /{_ID}\.git/info/lfs/objects/batch", "batch"),
    (r"PUT /lfs/([0-9a-f]{64})", "upload"),
    (r"POST /lfs-verify", "verify"),
    (rf"POST /api/models/{_ID}/commit/(.+)", "commit"),
    (rf"(?:HEAD|GET) /{_ID}/resolve/([^/]+)/(.+)", "resolve"),
    (r"(?:HEAD|GET) /cdn/([0-9a-f]{64})", "cdn"),
)


def _oid(path: str, content: bytes) -> str:
    """git's name of a file, or the sha256 of a large one."""
    if path.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
