"""A small server that speaks the parts of the hub's HTTP API that push and pull use.

As huggingface_hub speaks it: ``/api/repos/create``, ``/api/{type}s/{id}/preupload/{rev}``, the LFS
batch API with an upload and a verification, ``/api/{type}s/{id}/commit/{rev}`` with NDJSON, the
information on a repository, and ``/{id}/resolve/{rev}/{file}``. For ``datasets`` also the list of
files: ``/api/{type}s/{id}/tree/{rev}`` and ``…/paths-info/{rev}``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

LARGE = (".parquet", ".safetensors")


class SmallHub:
    """The state of the hub: files of each repository, one commit after the other."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.commits: dict[str, str] = {}
        self.objects: dict[str, bytes] = {}
        self.private: set[str] = set()
        self.asked: list[str] = []
        self.address = ""
        self.token = "hf_" + "x" * 20

    def commit(self, name: str, files: dict[str, bytes]) -> str:
        """Add files to a repository (``models/a/b``) and return the commit."""
        self.repositories.setdefault(name, {}).update(files)
        seed = json.dumps(
            sorted((k, hashlib.sha1(v).hexdigest()) for k, v in self.repositories[name].items())
        )
        self.commits[name] = hashlib.sha1(seed.encode()).hexdigest()
        return self.commits[name]

    def listing(self, name: str) -> list[dict[str, object]]:
        """Return the files of a repository as the hub lists them."""
        return [
            {"type": "file", "path": path, "size": len(content),
             "oid": hashlib.sha1(content).hexdigest()}
            for path, content in self.repositories[name].items()
        ]  # fmt: skip


def _handler(hub: SmallHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                parts = []
                while size := int(self.rfile.readline().strip(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def say(self, value: object, status: int = 200, **headers: str) -> None:
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            kind = "application/octet-stream" if isinstance(value, bytes) else "application/json"
            for name, text in {"Content-Type": kind, **headers}.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def do_POST(self) -> None:
            path, body = self.path.partition("?")[0], self.body()
            hub.asked.append(f"POST {path}")
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                self.say({"error": "Unauthorized"}, 401)
            elif path == "/api/repos/create":
                wish = json.loads(body)
                owner = wish.get("organization") or "me"
                name = f"{wish.get('type') or 'model'}s/{owner}/{wish['name']}"
                there = name in hub.repositories
                hub.repositories.setdefault(name, {})
                hub.commits.setdefault(name, "0" * 40)
                if wish.get("private") or wish.get("visibility") == "private":
                    hub.private.add(name)
                url = f"{hub.address}/{name.removeprefix('models/')}"
                self.say({"url": url}, 409 if there else 200)
            elif found := re.fullmatch(r"/api/(\w+/[^/]+/[^/]+)/preupload/main", path):
                known = hub.repositories[found[1]]
                self.say({"files": [
                    {"path": f["path"], "shouldIgnore": False, "oid": None,
                     "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular"}
                    for f in json.loads(body)["files"]
                ], "known": len(known)})  # fmt: skip
            elif path.endswith(".git/info/lfs/objects/batch"):
                self.say({"transfer": "basic", "objects": [
                    {**entry, "actions": {
                        "upload": {"href": f"{hub.address}/lfs/{entry['oid']}"},
                        "verify": {"href": f"{hub.address}/verify"}}}
                    for entry in json.loads(body)["objects"]
                ]})  # fmt: skip
            elif found := re.fullmatch(r"/api/(\w+/[^/]+/[^/]+)/paths-info/[^/]+", path):
                wanted = parse_qs(body.decode()).get("paths", [])
                self.say([f for f in hub.listing(found[1]) if f["path"] in wanted])
            elif path == "/api/validate-yaml":  # the head of a card
                self.say({"errors": [], "warnings": []})
            elif path == "/verify":
                wish = json.loads(body)
                good = len(hub.objects.get(wish["oid"], b"")) == wish["size"]
                self.say({}, 200 if good else 422)
            elif found := re.fullmatch(r"/api/(\w+/[^/]+/[^/]+)/commit/main", path):
                files = {}
                for line in body.decode().splitlines():
                    item = json.loads(line)
                    if item["key"] == "file":
                        files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
                    elif item["key"] == "lfsFile":
                        files[item["value"]["path"]] = hub.objects[item["value"]["oid"]]
                commit = hub.commit(found[1], files)
                place = f"{hub.address}/{found[1].removeprefix('models/')}/commit/{commit}"
                self.say({"commitOid": commit, "commitUrl": place,
                          "hookOutput": "", "success": True})  # fmt: skip
            else:
                self.say({"error": f"not known: {path}"}, 404)

        def do_PUT(self) -> None:
            content = self.body()
            oid = self.path.rpartition("/")[2]
            hub.asked.append("PUT /lfs")
            good = hashlib.sha256(content).hexdigest() == oid
            if good:
                hub.objects[oid] = content
            self.say({}, 200 if good else 422)

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append(f"{self.command} {path}")
            if found := re.fullmatch(r"/api/(\w+/[^/]+/[^/]+)(?:/revision/[^/]+)?", path):
                name = found[1]
                if name not in hub.repositories:
                    self.say({"error": "Repository not found"}, 404,
                             **{"X-Error-Code": "RepoNotFound"})  # fmt: skip
                    return
                siblings = [{"rfilename": file} for file in hub.repositories[name]]
                info = {"id": name.partition("/")[2], "sha": hub.commits[name], "private": False}
                self.say({**info, "siblings": siblings})
                return
            if found := re.fullmatch(r"/api/(\w+/[^/]+/[^/]+)/tree/[^/]+", path):
                self.say(hub.listing(found[1]) if found[1] in hub.repositories else [])
                return
            found = re.fullmatch(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            name = f"{(found[1] or 'models')}/{found[2]}" if found else ""
            content = hub.repositories.get(name, {}).get(found[4]) if found else None
            if content is None:
                self.say({"error": "Entry not found"}, 404, **{"X-Error-Code": "EntryNotFound"})
                return
            self.say(content, **{"ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                                 "X-Repo-Commit": hub.commits[name]})  # fmt: skip

        do_HEAD = do_GET

    return Handler


@contextmanager
def small_hub() -> Iterator[SmallHub]:
    """Run the hub on loopback for the block."""
    hub = SmallHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
