"""What the test Hub answers: one function a route, called with the request's handler and the parts of its path."""

import base64
import hashlib
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

import yaml

from tests.hub_store import Refusal, card_metadata, describe, git_sha1, goes_to_lfs

if TYPE_CHECKING:
    from tests.hub_server import Handler

# What may follow a repository's name, and so is no second half of it: /api/models/gpt2/revision/main.
SUBPATHS = "revision|tree|paths-info|refs|commits|branch|preupload|commit"
REPO = rf"/api/(?P<kind>models|datasets|spaces)/(?P<id>[^/]+(?:/(?!(?:{SUBPATHS})(?:/|$))[^/]+)?)"
WEB = r"/(?:(?P<kind>datasets|spaces)/)?(?P<id>[^/]+(?:/[^/]+)?)"
SUMMARY = (
    *("_id", "id", "modelId", "author", "createdAt", "lastModified", "private", "gated", "downloads", "likes", "tags"),
    *("pipeline_tag", "library_name"),
)

Route = Callable[..., None]
ROUTES: list[tuple[str, re.Pattern, Route]] = []


def route(method: str, pattern: str) -> Callable[[Route], Route]:
    def register(function: Route) -> Route:
        ROUTES.append((method, re.compile(pattern), function))
        return function

    return register


# Accounts and repositories


@route("GET", "/api/whoami-v2")
def whoami(handler: "Handler") -> None:
    account = handler.account(required=True)
    handler.answer(
        {
            "type": "user",
            "name": account.name,
            "fullname": account.name.title(),
            "orgs": [{"name": name} for name in account.orgs],
            "auth": {"accessToken": {"displayName": "test", "role": account.role}},
        }
    )


@route("POST", "/api/repos/create")
def create_repo(handler: "Handler") -> None:
    account, wish = handler.account(required=True), json.loads(handler.body)
    namespace, kind = wish.get("organization") or account.name, wish.get("type", "model") + "s"
    repo_id = f"{namespace}/{wish['name']}"
    if not account.may_write(namespace):
        raise Refusal(403, "Forbidden", f"You don't have the rights to create a model under the namespace {namespace}")
    url = f"{handler.hub.endpoint}/{'' if kind == 'models' else kind + '/'}{repo_id}"
    with handler.hub.lock:
        if handler.store.find(kind, repo_id):
            raise Refusal(409, "RepoExists", "You already created this model repo", url=url)
        handler.store.create(repo_id, kind, private=wish.get("visibility") == "private")
    handler.answer({"url": url, "name": repo_id})


@route("DELETE", "/api/repos/delete")
def delete_repo(handler: "Handler") -> None:
    wish = json.loads(handler.body)
    kind = wish.get("type", "model") + "s"
    namespace = wish.get("organization") or handler.account(required=True).name
    repo = handler.repo(kind, f"{namespace}/{wish['name']}", write=True)
    del handler.store.repos[kind, repo.id]
    handler.answer({})


@route("POST", "/api/validate-yaml")
def validate_yaml(handler: "Handler") -> None:
    errors = []
    try:
        metadata = card_metadata(json.loads(handler.body)["content"])
        if "license" in metadata and not isinstance(metadata["license"], str | list):
            errors.append('"license" must be a string or a list')
    except yaml.YAMLError as error:
        errors.append(f"Invalid YAML: {error}")
    found = {"errors": [{"message": message} for message in errors], "warnings": []}
    if errors:
        raise Refusal(400, "InvalidYaml", "Invalid metadata", **found)
    handler.answer(found)


# Reading


@route("GET", r"/api/(?P<kind>models|datasets|spaces)")
def list_repos(handler: "Handler", kind: str) -> None:
    ask = {name: values[0] for name, values in handler.query.items()}
    rows = [row for row in _visible(handler, kind) if _matches(row, ask, handler.query.get("filter", []))]
    if "sort" in ask:
        rows.sort(key=lambda row: row[ask["sort"]], reverse=True)
    begin = int(ask.get("cursor", 0))
    end = begin + min(int(ask.get("limit", handler.hub.page_size)), handler.hub.page_size)
    headers = {}
    if end < len(rows):
        given = [(name, value) for name, value in parse_qsl(handler.path.partition("?")[2]) if name != "cursor"]
        following = f"{handler.hub.endpoint}/api/{kind}?{urlencode([*given, ('cursor', str(end))])}"
        headers["Link"] = f'<{following}>; rel="next"'
    handler.answer([_selected(row, ask, handler.query.get("expand")) for row in rows[begin:end]], headers=headers)


def _visible(handler: "Handler", kind: str) -> list[dict[str, Any]]:
    account, store = handler.account(), handler.store
    mine = (account.name, *account.orgs) if account else ()
    repos = [repo for (of_kind, _), repo in store.repos.items() if of_kind == kind]
    return [
        describe(store, repo, repo.branches["main"]) for repo in repos if not repo.private or repo.namespace in mine
    ]


def _matches(row: dict[str, Any], ask: dict[str, str], tags: list[str]) -> bool:
    if "num_parameters" in ask:
        bounds = dict(part.split(":") for part in ask["num_parameters"].split(","))
        total = (row["safetensors"] or {}).get("total")
        if total is None or not _count(bounds.get("min", "0")) <= total <= _count(bounds.get("max", "999B")):
            return False
    return (
        set(tags) <= {*row["tags"], row["pipeline_tag"], row["library_name"]}
        and ask.get("author", row["author"]) == row["author"]
        and ask.get("search", "").lower() in row["id"].lower()
        and ask.get("pipeline_tag", row["pipeline_tag"]) == row["pipeline_tag"]
    )


def _count(text: str) -> float:
    """3M -> 3e6"""
    scale = {"K": 1e3, "M": 1e6, "B": 1e9}.get(text[-1])
    return float(text[:-1]) * scale if scale else float(text)


def _selected(row: dict[str, Any], ask: dict[str, str], expand: list[str] | None) -> dict[str, Any]:
    if expand:
        names = {"_id", "id", *expand}
    else:
        names = {*SUMMARY, *(("sha", "cardData", "siblings") if "full" in ask else ())}
        names |= {name for name in ("config", "cardData") if name in ask}
    return {name: value for name, value in row.items() if name in names}


@route("GET", REPO)
@route("GET", REPO + "/revision/(?P<revision>[^/]+)")
def repo_info(handler: "Handler", kind: str, id: str, revision: str = "main") -> None:
    repo = handler.repo(kind, id)
    commit = handler.commit(repo, revision)
    row = describe(handler.store, repo, commit)
    if expand := handler.query.get("expand"):
        row = _selected(row, {}, expand)
    elif "blobs" not in handler.query:
        row["siblings"] = [{"rfilename": path} for path in commit.files]
    handler.answer(row)


@route("GET", REPO + "/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?")
def tree(handler: "Handler", kind: str, id: str, revision: str, folder: str = "") -> None:
    commit = handler.commit(handler.repo(kind, id), revision)
    prefix = f"{folder}/" if folder else ""
    inside = {path: blob for path, blob in commit.files.items() if path.startswith(prefix)}
    if folder and not inside:
        raise Refusal(404, "EntryNotFound", f"{folder} does not exist", {"X-Repo-Commit": commit.sha})
    parts = {path: path.removeprefix(prefix).split("/") for path in inside}
    deep = handler.query.get("recursive", ["false"])[0].lower() in ("true", "1")
    folders = {prefix + "/".join(names[:n]) for names in parts.values() for n in range(1, len(names) if deep else 2)}
    folders -= inside.keys()
    rows = [{"type": "directory", "path": path, "oid": git_sha1(path.encode())} for path in sorted(folders)]
    rows += [_tree_row(path, blob) for path, blob in inside.items() if deep or len(parts[path]) == 1]
    handler.answer(rows)


def _tree_row(path: str, blob: Any) -> dict[str, Any]:
    row = {"type": "file", "path": path, "size": blob.size, "oid": blob.git_sha1}
    if blob.is_lfs:
        row["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": blob.pointer_size}
    return row


@route("POST", REPO + "/paths-info/(?P<revision>[^/]+)")
def paths_info(handler: "Handler", kind: str, id: str, revision: str) -> None:
    commit = handler.commit(handler.repo(kind, id), revision)
    asked = [value for name, value in parse_qsl(handler.body.decode()) if name == "paths"]
    handler.answer([_tree_row(path, commit.files[path]) for path in asked if path in commit.files])


@route("GET", REPO + "/refs")
def refs(handler: "Handler", kind: str, id: str) -> None:
    branches = handler.repo(kind, id).branches
    rows = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": commit.sha} for n, commit in branches.items()]
    handler.answer({"branches": rows, "converts": [], "tags": [], "pullRequests": []})


@route("GET", REPO + "/commits/(?P<revision>[^/]+)")
def commits(handler: "Handler", kind: str, id: str, revision: str) -> None:
    commit, rows = handler.commit(handler.repo(kind, id), revision), []
    while commit is not None:
        rows.append({"id": commit.sha, "title": commit.title, "message": "", "date": commit.date, "authors": []})
        commit = commit.parent
    handler.answer(rows)


@route("GET", WEB + "/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def resolve(handler: "Handler", id: str, revision: str, path: str, kind: str = "models") -> None:
    repo = handler.repo(kind, id)
    handler.refuse_if_gated(repo)
    commit = handler.commit(repo, revision)
    headers = {"X-Repo-Commit": commit.sha}
    if path not in commit.files:
        raise Refusal(404, "EntryNotFound", "Entry not found", headers)
    blob = commit.files[path]
    headers |= {"ETag": f'"{blob.etag}"', "Content-Type": "application/octet-stream"}
    if blob.is_lfs:
        headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
    handler.send_file(handler.store.path(blob), headers)


# Uploading


@route("POST", REPO + "/branch/(?P<branch>[^/]+)")
def create_branch(handler: "Handler", kind: str, id: str, branch: str) -> None:
    repo = handler.repo(kind, id, write=True)
    if branch in repo.branches:
        raise Refusal(409, "BranchExists", "Reference already exists")
    start = json.loads(handler.body or b"{}").get("startingPoint", "main")
    repo.branches[branch] = handler.commit(repo, start)
    handler.answer({})


@route("POST", REPO + "/preupload/(?P<revision>[^/]+)")
def preupload(handler: "Handler", kind: str, id: str, revision: str) -> None:
    present = handler.commit(handler.repo(kind, id, write=True), revision).files
    rows = []
    for file in json.loads(handler.body)["files"]:
        mode = "lfs" if goes_to_lfs(file["path"], file["size"]) else "regular"
        row = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
        if file["path"] in present:
            row["oid"] = present[file["path"]].etag
        rows.append(row)
    handler.answer({"files": rows})


@route("POST", WEB + r"\.git/info/lfs/objects/batch")
def lfs_batch(handler: "Handler", id: str, kind: str = "models") -> None:
    handler.repo(kind, id, write=True)
    hub, rows = handler.hub, []
    for wish in json.loads(handler.body)["objects"]:
        row = {"oid": wish["oid"], "size": wish["size"]}
        if handler.store.lfs_blob(wish["oid"]) is None:
            signed = f"{hub.endpoint}/lfs/{wish['oid']}?size={wish['size']}&signature={hub.sign(wish['oid'])}"
            verify = {"href": f"{hub.endpoint}/lfs/{wish['oid']}/verify"}
            row["actions"] = {"upload": {"href": signed, "header": {}}, "verify": verify}
        rows.append(row)
    handler.answer({"transfer": "basic", "objects": rows})


@route("PUT", "/lfs/(?P<oid>[0-9a-f]{64})")
def lfs_upload(handler: "Handler", oid: str) -> None:
    if handler.query.get("signature") != [handler.hub.sign(oid)]:
        raise Refusal(403, "BadSignature", "The signature of the address is wrong")
    sha256, size = hashlib.sha256(), 0
    with tempfile.NamedTemporaryFile(dir=handler.store.blobs, delete=False) as file:
        for part in handler.read_body():
            sha256.update(part)
            size += len(part)
            file.write(part)
    handler.body = b""  # read
    if sha256.hexdigest() != oid or [str(size)] != handler.query.get("size"):
        Path(file.name).unlink()
        raise Refusal(400, "BadUpload", f"{size} bytes came with another checksum than {oid}")
    Path(file.name).rename(handler.store.blobs / oid)
    handler.answer({})


@route("POST", "/lfs/(?P<oid>[0-9a-f]{64})/verify")
def lfs_verify(handler: "Handler", oid: str) -> None:
    blob = handler.store.lfs_blob(oid)
    if blob is None or blob.size != json.loads(handler.body)["size"]:
        raise Refusal(404, "NotUploaded", f"{oid} was not uploaded")
    handler.answer({})


@route("POST", REPO + "/commit/(?P<revision>[^/]+)")
def make_commit(handler: "Handler", kind: str, id: str, revision: str) -> None:
    repo, store = handler.repo(kind, id, write=True), handler.store
    lines = [json.loads(line) for line in handler.body.splitlines() if line]
    header = next(line["value"] for line in lines if line["key"] == "header")
    with handler.hub.lock:
        parent = handler.commit(repo, revision)
        if header.get("parentCommit") not in (None, parent.sha):
            raise Refusal(412, "StaleParent", "A commit has happened since. Please refresh and try again.")
        files = dict(parent.files)
        for line in lines:
            _change(store, files, line["key"], line["value"])
        commit = store.add_commit(repo, revision, header["summary"], files)
    url = f"{handler.hub.endpoint}/{repo.id}/commit/{commit.sha}"
    handler.answer({"success": True, "commitUrl": url, "commitOid": commit.sha, "hookOutput": ""})


def _change(store: Any, files: dict[str, Any], key: str, value: dict[str, Any]) -> None:
    if key == "file":
        files[value["path"]] = store.keep(base64.b64decode(value["content"]))
    elif key == "lfsFile":
        files[value["path"]] = store.lfs_blob(value["oid"])
        if files[value["path"]] is None:
            raise Refusal(400, "NotUploaded", f"The LFS object of {value['path']} was not uploaded")
    elif key == "deletedFile":
        files.pop(value["path"], None)
    elif key == "deletedFolder":
        for path in [path for path in files if path.startswith(value["path"].rstrip("/") + "/")]:
            del files[path]
    elif key != "header":
        raise Refusal(400, "UnknownOperation", f"unknown operation {key}")
