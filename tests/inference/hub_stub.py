"""A stand-in for the API of the Hugging Face Hub on a socket of this machine: models, commits, files, private ones.

It knows the requests that `huggingface_hub` makes to upload a folder and to download a snapshot, and nothing else.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_of_the_stub"


class Handler(BaseHTTPRequestHandler):
    """`server.models`: {id: {"private", "commits": {sha: {path: bytes}}, "main": sha}}; `server.asked`: requests."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, content, status=200, headers=None):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def model(self, name):
        """The model, or None after the answer for one that is not there (or not to be seen)."""
        found = self.server.models.get(name)
        hidden = found and found["private"] and self.headers.get("Authorization") != f"Bearer {TOKEN}"
        if found and not hidden:
            return found
        self.answer({"error": "Repository not found"}, 401 if hidden else 404, {"X-Error-Code": "RepoNotFound"})
        return None

    def files(self, model, revision):
        sha = model["main"] if revision in ("main", "") else revision
        if sha in model["commits"]:
            return sha, model["commits"][sha]
        self.answer({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        return None

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        self.server.asked.append((self.command, path))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+).*)?", path):
            model = self.model(found[1])
            listed = self.files(model, found[3] or "main") if model else None
            if not listed:
                return
            sha, files = listed
            if found[2] == "tree":
                self.answer([{"type": "file", "path": name, "size": len(data),
                              "oid": hashlib.sha1(data).hexdigest()} for name, data in files.items()])
            else:
                self.answer({"id": found[1], "modelId": found[1], "sha": sha, "private": model["private"], "tags": [],
                             "downloads": 0, "siblings": [{"rfilename": name} for name in files]})
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            model = self.model(found[1])
            listed = self.files(model, found[2]) if model else None
            if not listed:
                return
            sha, files = listed
            if found[3] not in files:
                self.answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
                return
            data = files[found[3]]
            self.answer(data, headers={"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": sha})
        else:
            self.answer({"error": f"the stub does not know {self.command} {path}"}, 404)

    def do_POST(self):
        path = self.path.partition("?")[0]
        self.server.asked.append((self.command, path))
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else self.chunks()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer({"error": "Invalid credentials"}, 401)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            known = name in self.server.models
            if not known:
                private = asked.get("visibility") == "private" or bool(asked.get("private"))
                self.server.models[name] = {"private": private,
                                            "commits": {"0" * 40: {}}, "main": "0" * 40}
            self.answer({"url": f"http://{self.headers['Host']}/{name}", "name": name}, 409 if known else 200)
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            self.answer({"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                                   for file in json.loads(body)["files"]]})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            model = self.server.models[found[1]]
            files = dict(model["commits"][model["main"]])
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    assert line["value"]["encoding"] == "base64"
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            sha = hashlib.sha1(body).hexdigest()
            model["commits"][sha], model["main"] = files, sha
            self.answer({"success": True, "commitOid": sha,
                         "commitUrl": f"http://{self.headers['Host']}/{found[1]}/commit/{sha}"})
        else:
            self.answer({"error": f"the stub does not know POST {path}"}, 404)

    def chunks(self):
        """A body that is sent in chunks."""
        parts = []
        while size := int(self.rfile.readline().strip() or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)


@contextmanager
def serve():
    """(address, server) of a hub without models."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.models, server.asked = {}, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def in_this_process(monkeypatch, cache):
    """The same, with `huggingface_hub` of this process pointed at it and at the folder `cache`."""
    from huggingface_hub import constants

    with serve() as (address, server):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE",
                            address + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield address, server
