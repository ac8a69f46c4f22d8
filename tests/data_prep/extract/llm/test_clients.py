"""The three clients through their real packages, against a local server that speaks their protocols."""

import asyncio
import logging

import pytest

from data_prep.extract.llm.clients import client as clients
from data_prep.extract.llm.clients.client import ClientError, Endpoint, Request, open_client
from data_prep.extract.llm.clients.gemini_schema import gemini_schema, retry_delay
from data_prep.extract.llm.data_use import Route
from data_prep.extract.llm.replies import evidence_reply, json_schema
from data_prep.extract.llm.tasks import load_task
from lgdea_jax.errors import UserError
from tests.data_prep.extract.llm.server import KEY, Server, make_report

BACKENDS = ("openai", "genai", "gemini")


def ask(backend, server, report=None, task=None, **options):
    """One question; returns the reply."""
    task = task or load_task("evidence")
    endpoint = Endpoint(backend, "some-model", server.base_url(backend), **{"timeout": 60.0, **options})

    async def run():
        client = open_client(endpoint)
        try:
            return await client.ask(Request(task.prompt, report or make_report(0), task.schema, task.name,
                                            task.max_tokens))
        finally:
            await client.close()

    return asyncio.run(run())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind, probability", [("evidence", False), ("chexpert14", True), ("ct_rate18", False)])
def test_a_reply(backend, kind, probability):
    task = load_task(kind, probability)
    with Server() as server:
        reply = ask(backend, server, task=task)
        assert sum(server.calls.values()) == 1
        body = server.bodies[0]
    task.read(reply.text, make_report(0))
    assert reply.tokens_in > 100 and reply.tokens_out > 20
    if backend == "openai":
        assert body["model"] == "some-model" and body["temperature"] == 0 and body["max_tokens"] == task.max_tokens
        assert body["response_format"]["json_schema"]["schema"] == task.schema
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
    else:
        config = body["generationConfig"]
        assert config["temperature"] == 0 and config["maxOutputTokens"] == task.max_tokens
        assert config["responseMimeType"] == "application/json"
        sent = config["responseSchema"]
        assert set(sent["properties"]) == set(task.schema["properties"])
        assert sent.get("propertyOrdering", sent.get("property_ordering")) == (
            list(task.schema["properties"]) if backend == "genai" else None)
        if kind == "chexpert14":
            number = "INTEGER" if backend == "genai" else 3  # google-generativeai writes enums as numbers.
            assert sent["properties"]["Edema"] == {"type": number, "nullable": True}
        if kind == "ct_rate18":
            assert sent["properties"]["MM"]["enum"] == ["present", "absent", "uncertain", "unmentioned"]


FAULTS = {"429 with": (clients.RATE, 429), "429 without": (clients.RATE, 429), "500": (clients.SERVER, 500),
          "503": (clients.SERVER, 503), "hang": (clients.TIMEOUT, 0), "close": (clients.CONNECTION, 0)}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_come_once_as_what_they_are(backend, fault):
    with Server(lambda report, nth: fault, hang=1.5) as server:
        with pytest.raises(ClientError) as error:
            ask(backend, server, timeout=0.6)
        assert sum(server.calls.values()) == 1  # No hidden tries by the package.
    assert (error.value.kind, error.value.status) == FAULTS[fault]
    assert error.value.retry_after == (0.0 if fault == "429 with" else None)
    assert "examination" not in str(error.value).lower() and KEY not in str(error.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_keys_redirects_and_dead_servers(backend, monkeypatch):
    with Server(key="another") as server, pytest.raises(ClientError) as error:
        ask(backend, server)
    assert error.value.kind == clients.AUTH and KEY not in str(error.value)
    with Server() as target, Server() as server:
        server.redirect = target.base_url(backend)
        with pytest.raises(ClientError) as error:
            ask(backend, server)
        assert error.value.kind == clients.NOT_SERVED
        assert not target.headers  # The report did not follow.
    with pytest.raises(ClientError) as error:  # That server is gone.
        ask(backend, server)
    assert error.value.kind == clients.UNREACHABLE


@pytest.mark.parametrize("backend", BACKENDS)
def test_remote_endpoints_do_use_the_proxy(backend):
    # The other tests show that local ones do not: the proxy of the environment leads nowhere.
    with Server() as server, pytest.raises(ClientError) as error:
        ask(backend, server, route=Route(this_host=True))
    assert error.value.kind in (clients.UNREACHABLE, clients.CONNECTION) and not server.calls


@pytest.mark.parametrize("backend", BACKENDS)
def test_keys_come_from_the_environment(backend, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("GEMINI_API_KEY")
    with Server(key="none") as server:
        assert ask(backend, server).text  # Local servers often want none.
        with pytest.raises(UserError, match=r"OPENAI_API_KEY|GEMINI_API_KEY or GOOGLE_API_KEY"):
            ask(backend, server, route=Route(this_host=True))


@pytest.mark.parametrize("structured", ["json_schema", "json_object", "none"])
def test_steps_down_where_the_server_knows_no_schemas(structured):
    with Server(refuse_schema=True) as server:
        assert ask("openai", server, structured=structured).text
        sent = server.bodies[-1].get("response_format", {}).get("type")
    assert sent == {"json_schema": "json_object", "json_object": "json_object", "none": None}[structured]


@pytest.mark.parametrize("backend", BACKENDS)
def test_logs_hold_neither_key_nor_report(backend, caplog):
    caplog.set_level(logging.INFO)
    with Server(lambda report, nth: "500") as server, pytest.raises(ClientError):
        ask(backend, server)
    assert KEY not in caplog.text and "xamination" not in caplog.text


def test_the_gemini_dialect_of_schemas():
    found = gemini_schema(json_schema(evidence_reply()), ordered=False)
    item = found["properties"]["evidence"]["items"]
    assert found["type"] == "OBJECT" and found["required"] == ["normal", "evidence"]
    assert item["properties"]["laterality"]["enum"] == ["none", "left", "right", "bilateral", "midline"]
    assert "additionalProperties" not in str(found) and "$ref" not in str(found)


@pytest.mark.parametrize("header, body, seconds", [
    ("7", None, 7.0), (None, {"error": {"details": [{"retryDelay": "13.5s"}]}}, 13.5), (None, {"error": {}}, None),
    ("soon", '{"retryDelay": "2s"}', 2.0), ("Thu, 01 Jan 1970 00:00:00 GMT", None, 0.0)])
def test_what_servers_ask_to_wait(header, body, seconds):
    assert retry_delay(header, body) == seconds


def test_missing_packages_are_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[openai\]"'):
        open_client(Endpoint("openai", "m", "http://localhost:1"))
