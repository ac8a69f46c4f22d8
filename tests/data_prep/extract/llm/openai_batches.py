"""The files and batches of the OpenAI API, as the local server answers them."""

import json

PATH = ("/v1/files", "/v1/batches")


def chat(text, prompt, report):
    used = (len(prompt + report) // 4, len(text) // 4)
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": used[0], "completion_tokens": used[1], "total_tokens": sum(used)}}


def line(number, status, body, error=None):
    response = {"status_code": status, "request_id": "r", "body": body} if status else None
    return json.dumps({"id": f"b{number}", "custom_id": number, "response": response, "error": error}) + "\n"


class OpenAiBatches:
    """Of a `server.Server`, whose `fault`, `refuse`, `batch_fault` and `looks` hold here too.

    A batch of the fault EXPIRED has answered the first half of its requests in time.
    """

    def __init__(self, server):
        self.server, self.files, self.batches, self.names, self.deleted = server, {}, {}, [], []

    def handle(self, method, path, body):
        """(status, value): a dictionary, bytes of a file, or None to close the connection."""
        parts = path.split("?")[0].strip("/").split("/")[1:]
        if parts[0] == "files":
            return self._file(method, parts[1:], body)
        if method == "POST":
            return self._create(json.loads(body))
        if len(parts) == 1:
            return 200, {"object": "list", "data": list(map(self._status, self.batches)), "has_more": False}
        if parts[1] not in self.batches:
            return 404, {"error": {"message": "no such batch"}}
        self.batches[parts[1]]["looks"] += 1
        return 200, self._status(parts[1])

    def _file(self, method, parts, body):
        if method == "POST":
            head, content = body.split(b'name="file"', 1)[1].split(b"\r\n\r\n", 1)
            name = f"file-{len(self.names)}"
            self.names.append(head.split(b'filename="')[1].split(b'"')[0].decode())
            self.files[name] = content.split(b"\r\n--")[0]
            return 200, {"id": name, "object": "file", "bytes": 1, "created_at": 0, "filename": "f",
                         "purpose": "batch", "status": "processed"}
        if method == "DELETE":
            self.deleted.append(parts[0])
            return 200, {"id": parts[0], "object": "file", "deleted": self.files.pop(parts[0], None) is not None}
        return 200, self.files[parts[0]]

    def _create(self, asked):
        self.server.submissions += 1
        fault = str(self.server.batch_fault(self.server.submissions) or "")
        if fault.isdigit():
            return int(fault), {"error": {"message": "no"}}
        good, bad = [], []
        lines = self.files[asked["input_file_id"]].decode().splitlines()
        for position, text in enumerate(lines):
            item = json.loads(text)
            assert (item["method"], item["url"]) == ("POST", "/v1/chat/completions")
            if fault == "EXPIRED" and 2 * position >= len(lines):
                bad.append(line(item["custom_id"], 0, None, {"code": "batch_expired", "message": "late"}))
            elif fault != "FAILED":
                (good if (made := self._answer(item))[0] == 200 else bad).append(line(item["custom_id"], *made))
        name = f"batch-{self.server.submissions}"
        state = {"": "completed", "lost": "completed"}.get(fault, fault.lower())
        output = error = None
        if good:
            output = f"out-{name}"
            self.files[output] = "".join(reversed(good)).encode()  # The order is not that of the requests.
        if bad:
            error = f"err-{name}"
            self.files[error] = "".join(bad).encode()
        self.batches[name] = {"asked": asked, "looks": 0, "state": state, "files": (output, error),
                              "total": len(lines) if fault != "FAILED" else 0}
        return 200, self._status(name) if fault != "lost" else None

    def _answer(self, item):
        prompt, report = (message["content"] for message in item["body"]["messages"])
        report = report.split("\n\nYour previous reply")[0]
        self.server.calls[report] += 1
        if len(self.server.bodies) < 3:
            self.server.bodies.append(item["body"])
        if refused := self.server.refuse(item["body"]):
            return refused
        fault = self.server.fault(report, self.server.calls[report])
        if fault and fault[:3].isdigit():
            return int(fault[:3]), {"error": {"message": f"no: {report}"}}
        return 200, chat(self.server.text(prompt, report, fault), prompt, report)

    def _status(self, name):
        batch = self.batches[name]
        over = batch["looks"] >= self.server.looks
        output, error = batch["files"] if over else (None, None)
        return {"id": name, "object": "batch", "endpoint": "/v1/chat/completions", "completion_window": "24h",
                "created_at": 0, "input_file_id": batch["asked"]["input_file_id"],
                "status": batch["state"] if over else "in_progress", "metadata": batch["asked"]["metadata"],
                "output_file_id": output, "error_file_id": error,
                "request_counts": {"total": batch["total"], "completed": 0, "failed": 0}}
