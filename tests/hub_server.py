"""A small Hugging Face Hub on this machine: the real protocol over real HTTP, with switches that make it fail.

    server = HubServer(folder)
    server.start()
    server.add_repo("lab/tiny", {"config.json": b"{}"})
    server.fail(503, path="/api/models/lab/tiny", times=2)       # the next two requests for it

The client must be started with HF_ENDPOINT=server.endpoint and HF_HUB_DISABLE_XET=1. Standard library only, but for
the YAML of model cards.
"""

import hmac
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_routes import ROUTES
from tests.hub_store import Account, Commit, HubStore, Refusal, Repo, goes_to_lfs

CHUNK = 1 << 20


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose method and path match."""

    kind: int | str  # a status, or "hang-up", "flip", "slow"
    path: str = ""  # regular expression, searched in the raw path
    method: str = ""
    times: int = 1
    code: str = ""  # X-Error-Code
    retry_after: int | None = None  # seconds, for 429
    after: int = 0  # bytes of the body before a hang-up; position of the flipped byte
    seconds: float = 0.0  # for "slow"


class HubServer:
    """The server and what a test may do to it.

    Accounts: `token` writes for the user "tester" and the organisation "lab"; `read_token` is the same user's but may
    only read; `stranger_token` belongs to somebody else.
    """

    token, read_token, stranger_token = "hf_tester", "hf_reader", "hf_stranger"
    page_size = 100

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.secret = os.urandom(16)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self._http.daemon_threads = True
        self._http.hub = self
        self._http.server_bind()
        self.endpoint = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread: threading.Thread | None = None
        self.lock = threading.RLock()
        self.reset()

    def start(self) -> None:
        if self._thread is None:
            self._http.server_activate()
            self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
            self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._http.shutdown()
            self._thread.join()
            self._thread = None
        self._http.server_close()

    def reset(self) -> None:
        """Forget all repositories, faults and requests."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.store = HubStore(Path(tempfile.mkdtemp(dir=self.root)))
        self.store.accounts = {
            self.token: Account("tester", ("lab",)),
            self.read_token: Account("tester", ("lab",), role="read"),
            self.stranger_token: Account("stranger"),
        }
        self.faults: list[Fault] = []
        self.requests: list[dict[str, Any]] = []  # method, path (raw, with the query), status, range
        self.page_size = type(self).page_size

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """The environment of a fresh process that talks to this Hub and keeps its cache under `home`."""
        environment = {**os.environ, "HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
        environment.pop("HF_TOKEN", None)
        return environment | ({"HF_TOKEN": token} if token else {})

    def add_repo(self, repo_id: str, files: Mapping[str, bytes], *, kind: str = "models", **facts: Any) -> Commit:
        """Make a repository (facts: private, gated, downloads, likes, pipeline_tag, tags) and commit `files`."""
        with self.lock:
            repo = self.store.create(repo_id, kind, **facts)
            blobs = {
                path: self.store.keep(content, goes_to_lfs(path, len(content))) for path, content in files.items()
            }
            return self.store.add_commit(repo, "main", "add files", {**repo.branches["main"].files, **blobs})

    def add_folder(self, repo_id: str, folder: Path, **facts: Any) -> Commit:
        """Make a repository out of a saved model."""
        paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        return self.add_repo(
            repo_id, {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}, **facts
        )

    def add_alias(self, name: str, repo_id: str) -> None:
        """Serve `repo_id` under a bare name too, in place, as the Hub serves "gpt2"."""
        self.store.aliases[name] = repo_id

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """What a repository holds."""
        commit = self.store.find("models", repo_id).commit(revision)
        return {path: self.store.content(commit, path) for path in commit.files}

    def fail(self, kind: int | str, **options: Any) -> None:
        """Switch a fault on; see `Fault`."""
        with self.lock:
            self.faults.append(Fault(kind, **options))

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method in ("", method) and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None

    def sign(self, oid: str) -> str:
        return hmac.new(self.secret, oid.encode(), "sha256").hexdigest()


class Handler(BaseHTTPRequestHandler):
    """One request: find the fault and the route, then answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ThreadingHTTPServer

    def do_GET(self) -> None:
        self.hub: HubServer = self.server.hub
        self.store = self.hub.store
        address = urlsplit(self.path)
        self.query = parse_qs(address.query, keep_blank_values=True)
        self.fault = self.hub.take_fault(self.command, self.path)
        self.body = None if address.path.startswith("/lfs/") and self.command == "PUT" else b"".join(self.read_body())
        try:
            self.apply_fault()
            self.dispatch(address.path)
        except Refusal as refusal:
            if self.body is None:  # an upload that is refused still sends its body
                for _ in self.read_body():
                    pass
            self.refuse(refusal)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def apply_fault(self) -> None:
        if self.fault is None:
            return
        if self.fault.kind == "slow":
            time.sleep(self.fault.seconds)
        elif isinstance(self.fault.kind, int):
            wait = self.fault.retry_after
            headers = {} if wait is None else {"Retry-After": str(wait)}
            raise Refusal(self.fault.kind, self.fault.code, f"fault {self.fault.kind}", headers)

    def dispatch(self, path: str) -> None:
        method = "GET" if self.command == "HEAD" else self.command
        for wanted, pattern, function in ROUTES:
            # Matched raw: a slash inside a revision comes as %2F and must not look like a separator.
            if wanted == method and (match := pattern.fullmatch(path)):
                values = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
                function(self, **values)
                return
        raise Refusal(404, "NotFound", f"no route for {method} {path}")

    def read_body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left > 0 and (part := self.rfile.read(min(left, CHUNK))):
            left -= len(part)
            yield part

    def account(self, required: bool = False) -> Account | None:
        """Whose token came with the request. None without a token, unless one is required."""
        given = self.headers.get("Authorization", "")
        account = self.store.accounts.get(given.removeprefix("Bearer "))
        if account is None and (given or required):
            raise Refusal(401, "InvalidToken", "Invalid credentials in Authorization header")
        return account

    def repo(self, kind: str, repo_id: str, write: bool = False) -> Repo:
        account, repo = self.account(), self.store.find(kind, repo_id)
        owns = repo is not None and account is not None and repo.namespace in (account.name, *account.orgs)
        if repo is None or (repo.private and not owns):
            # As the Hub: whoever is not logged in is not told whether it exists.
            raise Refusal(404 if account else 401, "RepoNotFound", "Repository not found")
        if write and not (account and account.may_write(repo.namespace)):
            raise Refusal(403 if account else 401, "Forbidden", f"You have no write access to {repo.namespace}")
        return repo

    def commit(self, repo: Repo, revision: str) -> Commit:
        commit = repo.commit(revision)
        if commit is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def refuse_if_gated(self, repo: Repo) -> None:
        account = self.account()
        if repo.gated and not (account and repo.namespace in (account.name, *account.orgs)):
            raise Refusal(403 if account else 401, "GatedRepo", f"Access to model {repo.id} is restricted")

    def answer(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self.start(
            status, {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}
        )
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, refusal: Refusal) -> None:
        headers = {"X-Error-Code": refusal.code or "Error", "X-Error-Message": str(refusal), **refusal.headers}
        self.answer({"error": str(refusal), **refusal.extra}, refusal.status, headers)

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        asked = {"method": self.command, "path": self.path, "status": status, "range": self.headers.get("Range")}
        self.hub.requests.append(asked)
        self.send_response(status)
        self.send_header("X-Request-Id", f"request-{len(self.hub.requests)}")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send_file(self, path: Path, headers: Mapping[str, str]) -> None:
        """Send a file, or the asked range of it, with what the fault does to a body."""
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin, end = (int(asked[1]), min(int(asked[2] or size - 1), size - 1)) if asked else (0, size - 1)
        headers = {**headers, "Accept-Ranges": "bytes", "Content-Length": str(end - begin + 1)}
        if asked:
            headers["Content-Range"] = f"bytes {begin}-{end}/{size}"
        self.start(206 if asked else 200, headers)
        if self.command == "HEAD":
            return
        kind, after = (self.fault.kind, self.fault.after) if self.fault else (None, 0)
        left = end - begin + 1 if kind != "hang-up" else min(after, end - begin + 1)
        with path.open("rb") as file:
            file.seek(begin)
            while left > 0:
                position = file.tell()
                part = bytearray(file.read(min(left, CHUNK)))
                if kind == "flip" and position <= after < position + len(part):
                    part[after - position] ^= 1
                self.wfile.write(part)
                left -= len(part)
        self.close_connection = kind == "hang-up" or self.close_connection

    def log_message(self, *_: Any) -> None:
        """Silence: the tests read `requests`."""
