"""A local server that speaks the Gemini REST and the OpenAI chat protocols, and misbehaves as it is told.

It answers with the evidence that a tiny reader of its own finds in the generated reports, and records every call.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
from collections import Counter

from tests.data_prep.extract.llm.openai_batches import PATH, OpenAiBatches, chat

KEY = "sk-SECRET-KEY-0123456789"

# --- Reports that the server understands ------------------------------------------------------------------------------

FINDINGS = ("Pneumothorax", "Pleural Effusion", "Edema", "Cardiomegaly", "Atelectasis", "Nodule")


def make_report(i):
    """A distinct report; the server's reader knows these sentences."""
    words = [f"{name.lower()} is {'present' if (i >> k) % 2 else 'not seen'}." for k, name in enumerate(FINDINGS)]
    return f"FINDINGS: Examination number {i}. " + " ".join(word[0].upper() + word[1:] for word in words)


# Findings and impression of the 2,337 Open-I reports that have some: a lognormal number of words (median 34, 5% below
# 15 and 5% above 77), between 3 and 153.
WORDS_LOG_MEAN, WORDS_LOG_SD, FEWEST, MOST = 3.5136, 0.5154, 3, 153
FILLERS = ("The bony thorax is grossly intact.", "Degenerative changes of the spine are noted.", "Heart size normal.",
           "The mediastinal contours are stable compared with XXXX.", "No free air below the diaphragm.",
           "Lung volumes are low.", "Surgical clips project over the left upper abdomen.", "The trachea is midline.")


def number_of_words(i):
    """Of the i-th report as long as those of Open-I."""
    drawn = random.Random(i).lognormvariate(WORDS_LOG_MEAN, WORDS_LOG_SD)
    return min(max(round(drawn), FEWEST), MOST)


def report_of_real_length(i):
    """A distinct report as long as those of Open-I; the shorter ones state fewer of FINDINGS."""
    rng, words = random.Random(i), number_of_words(i)
    said = make_report(i).split(". ", 1)[1].split(". ")
    rng.shuffle(said)
    text = f"Examination number {i}.".split()
    for sentence in said:
        if len(text) + len(sentence.split()) <= words:
            text += f"{sentence.rstrip('.')}.".split()
    while len(text) < words:
        text += rng.choice(FILLERS).split()[:words - len(text)]
    return " ".join(text[:max(words, 3)])


def truth(report):
    """(finding, certainty, quote) of each statement."""
    return [(name, "present" if match[1] == "present" else "absent", match[0])
            for name in FINDINGS for match in [re.search(rf"{name} is (present|not seen)", report, re.IGNORECASE)]
            if match]


def evidence_reply(report):
    items = [{"quote": quote, "finding": name, "certainty": certainty, "laterality": "", "severity": "",
              "temporality": "", "anatomy": ""} for name, certainty, quote in truth(report)]
    return {"normal": False, "evidence": items}


def labels_reply(report, prompt):
    """Percentages or words for whatever names the prompt lists: by position in its last example's keys."""
    from data_prep.extract.llm.labels import keys
    from lgdea_jax.findings.label_sets import LABEL_SETS

    kind = "ct_rate18" if '"MM"' in prompt else "chexpert14"
    said = {name: certainty for name, certainty, _ in truth(report)}
    percent = "percent" in prompt
    values = {"present": 95 if percent else "present", "absent": 5 if percent else "absent",
              None: None if percent else "unmentioned"}
    return {key: values[said.get(name)] for key, name in zip(keys(kind), LABEL_SETS[kind])}


# --- Misbehaviour -----------------------------------------------------------------------------------------------------

# What a reply's text becomes; the others are faults of the protocol.
TEXT_FAULTS = {
    "fences": lambda text: f"```json\n{text}\n```",
    "prose": lambda text: f"Sure, here is the JSON you asked for:\n{text}\nLet me know if you need more.",
    "truncated": lambda text: text[:max(30, len(text) * 2 // 3)],
    "enums": lambda text: text.replace('"present"', '"Positive"').replace('"laterality": ""', '"laterality": "N/A"'),
    "hallucinated": lambda text: text.replace('"evidence": [', '"evidence": [{"quote": "a large cavity in the left '
                                              'apex", "finding": "Cavitation", "certainty": "present", "laterality": '
                                              '"left", "severity": "", "temporality": "", "anatomy": "apex"}, '),
    "duplicates": lambda text: json.dumps({**json.loads(text), "evidence": json.loads(text)["evidence"] * 2}),
    "garbage": lambda text: "I am sorry, I cannot do that.",
    "megabyte": lambda text: '{"normal": false, "evidence": [' + '"x", ' * 200_000,
}
FAULTS = ("429 with", "429 without", "500", "503", "hang", "close", *TEXT_FAULTS)


class Server:
    """Runs in a thread of its own. `fault(report, nth)` names what goes wrong with a report's nth call, or None.

    `raw(report, text)` gives what is sent in place of an answer, None for the answer: bytes, and numbers of seconds to
    wait; the connection is closed after them. `refuse(asked)` gives (status, body) for a request that is refused.

    `calls` counts calls per report, `answered` those that got a whole answer; `headers` are of the last call.
    Batches are done after `looks` looks at them; `batch_fault(nth)` names what goes wrong when the nth is submitted:
    an HTTP status, "lost" (made, but the connection is closed before the answer), or a state that it ends in.
    """

    def __init__(self, fault=None, key=KEY, delay=0.0, hang=30.0, refuse_schema=False, raw=None,
                 refuse=None, host="127.0.0.1", port=0):
        self.fault = fault or (lambda report, nth: None)
        self.key, self.delay, self.hang, self.refuse_schema = key, delay, hang, refuse_schema
        self.calls, self.answered, self.bodies = Counter(), Counter(), []
        self.headers, self.open, self.most_open = {}, 0, 0
        self.redirect = None
        self.raw, self.refuse = raw or (lambda report, text: None), refuse or (lambda asked: None)
        self.host, self.port, self.connections = host, port, 0
        self.looks, self.batch_fault, self.batches, self.submissions, self.deleted = 2, lambda nth: None, {}, 0, []
        self.files = OpenAiBatches(self)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *exception):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def url(self):
        return f"http://{self.host}:{self.port}"

    def base_url(self, backend):
        return f"{self.url}/v1" if backend == "openai" else self.url

    def _run(self):
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, self.host, self.port))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode("latin-1").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in
                           (line.partition(":") for line in lines[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if not await self._handle(*lines[0].split()[:2], headers, body, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _handle(self, method, path, headers, body, writer):
        self.headers = {**headers, ":path": path}
        files = path.startswith(PATH) and "x-goog-api-key" not in headers
        gemini = "enerateContent" in path or ("/batches" in path and not files)
        given = headers.get("x-goog-api-key") if gemini else headers.get("authorization", "").removeprefix("Bearer ")
        if self.redirect:
            return self._send(writer, 307, {}, {"location": self.redirect})
        if given != self.key:
            return self._send(writer, 400 if gemini else 401, {"error": {
                "code": 400, "status": "INVALID_ARGUMENT", "message": f"API key not valid: {given}",
                "details": [{"reason": "API_KEY_INVALID"}]}})
        if files:
            status, value = self.files.handle(method, path, body)
            return self._send(writer, status, value) if value is not None else False
        if "/batches" in path:
            return self._batch(method, path, writer)
        asked = json.loads(body)
        if ":batchGenerateContent" in path:
            return self._submit(asked["batch"], writer)
        if gemini:
            report = asked["contents"][-1]["parts"][0]["text"]
            system = asked.get("systemInstruction", asked.get("system_instruction"))
            prompt = system["parts"][0]["text"]
        else:
            prompt, report = (message["content"] for message in asked["messages"])
            if self.refuse_schema and asked.get("response_format", {}).get("type") == "json_schema":
                return self._send(writer, 400, {"error": {"message": "unknown response_format"}})
            if refused := self.refuse(asked):
                return self._send(writer, *refused)
        report = report.split("\n\nYour previous reply")[0]
        self.calls[report] += 1
        if len(self.bodies) < 3:
            self.bodies.append(asked)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            return await self._answer(gemini, prompt, report, writer)
        finally:
            self.open -= 1

    async def _answer(self, gemini, prompt, report, writer):
        fault = self.fault(report, self.calls[report])
        if self.delay:
            await asyncio.sleep(self.delay)
        if fault == "hang":
            await asyncio.sleep(self.hang)
            return False
        if fault == "close":
            return False
        if fault and fault[:3].isdigit():
            extra = {"retry-after": "0"} if fault == "429 with" else {}
            return self._send(writer, int(fault[:3]), {"error": {"code": int(fault[:3]), "message": f"no: {report}"}},
                              extra)
        text = self.text(prompt, report, fault)
        raw = self.raw(report, text)
        for part in raw or ():
            if isinstance(part, bytes):
                writer.write(part)
                await writer.drain()
            else:
                await asyncio.sleep(part)
        if raw is not None:
            return False
        used = {"prompt": len(prompt + report) // 4, "reply": len(text) // 4}
        if gemini:
            answer = self._gemini(text, used)
        else:
            answer = chat(text, prompt, report)
        self.answered[report] += 1
        return self._send(writer, 200, answer)

    @staticmethod
    def text(prompt, report, fault):
        value = evidence_reply(report) if "diagnostic evidence" in prompt else labels_reply(report, prompt)
        text = json.dumps(value)
        return TEXT_FAULTS[fault](text) if fault else text

    @staticmethod
    def _gemini(text, used):
        return {"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, "finishReason": "STOP",
                                "index": 0}],
                "usageMetadata": {"promptTokenCount": used["prompt"], "candidatesTokenCount": used["reply"],
                                  "totalTokenCount": sum(used.values())}}

    def _submit(self, batch, writer):
        self.submissions += 1
        fault = str(self.batch_fault(self.submissions) or "")
        if fault.isdigit():
            return self._send(writer, int(fault), {"error": {"code": int(fault), "message": "no", "details": [
                {"reason": "API_KEY_INVALID"}] if fault == "400" else []}})
        answers = []
        for item in batch["inputConfig"]["requests"]["requests"]:
            request = item["request"]
            report = request["contents"][-1]["parts"][0]["text"].split("\n\nYour previous reply")[0]
            prompt = request["systemInstruction"]["parts"][0]["text"]
            self.calls[report] += 1
            wrong = self.fault(report, self.calls[report])
            if len(self.bodies) < 3:
                self.bodies.append(request)
            if wrong and wrong[:3].isdigit():
                answers.append({"error": {"code": int(wrong[:3]), "message": f"no: {report}"}})
                continue
            text = self.text(prompt, report, wrong)
            answers.append({"response": self._gemini(text, {"prompt": len(prompt + report) // 4,
                                                            "reply": len(text) // 4})})
        name = f"batches/b{self.submissions}"
        self.batches[name] = {"label": batch["displayName"], "answers": answers, "looks": 0,
                              "state": fault if fault.isupper() else "SUCCEEDED"}
        return self._send(writer, 200, self._status(name)) if fault != "lost" else False

    def _status(self, name):
        batch = self.batches[name]
        over = batch["looks"] >= self.looks
        metadata = {"displayName": batch["label"], "name": name,
                    "state": f"BATCH_STATE_{batch['state'] if over else 'RUNNING'}"}
        if over and batch["state"] == "SUCCEEDED":
            metadata["output"] = {"inlinedResponses": {"inlinedResponses": batch["answers"]}}
        return {"name": name, "metadata": metadata, "done": over}

    def _batch(self, method, path, writer):
        name = path.split("?")[0].split("/", 2)[2]  # Below the version of the API.
        if name == "batches":
            return self._send(writer, 200, {"operations": [self._status(each) for each in self.batches]})
        if name not in self.batches:
            return self._send(writer, 404, {"error": {"code": 404, "message": "no such batch"}})
        if method == "DELETE":
            self.deleted.append(name)
            return self._send(writer, 200, {})
        self.batches[name]["looks"] += 1
        return self._send(writer, 200, self._status(name))

    def _send(self, writer, status, value, extra=None):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(body)}",
                 *(f"{name}: {value}" for name, value in (extra or {}).items())]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        return True


if __name__ == "__main__":  # A process of its own, for measurements: prints its port, runs until its input ends.
    import sys

    with Server() as running:
        print(running.port, flush=True)
        sys.stdin.read()
