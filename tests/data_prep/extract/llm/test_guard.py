"""Reports and keys go where they may, and nowhere else: forms of URLs, proxies, names that change their address."""

import csv
import logging
import socket

import pytest

from data_prep import build, score
from data_prep.extract.llm.clients import client as clients
from data_prep.extract.llm.clients.client import NO_KEY, ClientError, Endpoint, key_refused, read_key
from data_prep.extract.llm.data_use import Route, find_route
from data_prep.extract.llm.runners.online import extract
from lgdea_jax.errors import UserError
from tests.data_prep.extract.llm.server import KEY, Server, make_report
from tests.data_prep.extract.llm.test_clients import BACKENDS, ask
from tests.data_prep.extract.llm.test_runner import make_job

NAME, SENTENCE = "Wilhelmina Zzyzx", "Pneumothorax is"


def table(folder, n=3, terms="credentialed"):
    folder.mkdir()
    with open(folder / "studies.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("study_id", "subject_id", "split", "report", "terms", "label:Edema"))
        rows.writerows((f"s{i}", f"p{i}", "train", f"{make_report(i)} Read by {NAME}.", terms, i % 2) for i in range(n))
    return folder


@pytest.fixture
def proxy(monkeypatch):
    """A stand-in for the proxy of the environment, for all protocols."""
    with Server(key=NO_KEY) as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, server.url)
            monkeypatch.setenv(name.lower(), server.url)
        yield server


NAMES = {"mine.example": ["127.0.0.1"], "both.example": ["127.0.0.1", "192.0.2.1"], "theirs.example": ["192.0.2.1"]}


@pytest.fixture
def names(monkeypatch):
    """Names of NAMES, beside those of the machine."""
    real = socket.getaddrinfo

    def resolve(host, port, *more, **options):
        if host in NAMES:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0)) for address in NAMES[host]]
        return real(host, port, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


LOCAL = ("http://127.0.0.1:{port}/v1", "http://localhost:{port}/v1", "HTTP://LOCALHOST:{port}/v1",
         "http://127.1:{port}/v1", "http://2130706433:{port}/v1", "http://0x7f000001:{port}/v1",
         "http://127.0.0.1:{port}/v1/", "http://mine.example:{port}/v1")
REMOTE = ("", "http://192.0.2.1/v1", "https://192.0.2.1/v1", "http://169.254.169.254/v1", "http://100.64.0.1/v1",
          "http://0.0.0.0:{port}/v1", "http://[::]:{port}/v1", "http://172.32.0.9/v1", "http://[::ffff:8.8.8.8]/v1",
          "http://[64:ff9b::7f00:1]/v1", "http://[2002:7f00:1::]/v1", "http://[fe80::1]/v1",
          "http://127.0.0.1.example.invalid/v1", "http://localhost.example.invalid/v1", "https://nowhere.invalid/v1",
          "http://both.example:{port}/v1", "http://theirs.example/v1", "http://192.168.0.1.example.invalid/v1")
REFUSED = ("http://127.0.0.1@192.0.2.1/v1", "http://me:word@127.0.0.1/v1", "http://192.0.2.1\\@127.0.0.1/v1",
           "http://192.0.2.1#@127.0.0.1/v1", "http://127.0.0.1?@192.0.2.1/v1", "http://127.0.0.1%2f@192.0.2.1/v1",
           "http://127.0.0.1%00.example.invalid/v1", "http://127.0.0.1 .example.invalid/v1", " http://127.0.0.1/v1",
           "http://127.0.0.1\t.example.invalid/v1", "http://127.0.0.1/\r\nHost: 192.0.2.1", "http://\u24dbocalhost/v1",
           "http://\uff11\uff12\uff17.0.0.1/v1", "http://127\u30020\u30020\u30021/v1", "http:///v1",
           "http:127.0.0.1/v1", "http:/127.0.0.1/v1", "//127.0.0.1/v1", "127.0.0.1:8000", "ftp://127.0.0.1/v1", "file:///v1",
           "http://[::1/v1", "http://[fe80::1%25eth0]/v1", "http://127.0.0.1:port/v1", "http://127.0.0.1:99999/v1",
           "http://127.0.0.1:80:80/v1", "http://-127.0.0.1/v1", "socks5://127.0.0.1/v1")


@pytest.mark.parametrize("command", ["build", "score"])
@pytest.mark.parametrize("url", [*LOCAL, *REMOTE, *REFUSED])
def test_credentialed_reports_reach_local_endpoints_only(tmp_path, proxy, names, capsys, caplog, command, url):
    caplog.set_level(logging.INFO)
    with Server() as server:
        given = url.format(port=server.port) if "{port}" in url else url
        source = ["--config=configs/data/table.py", f"--config.table.path={table(tmp_path / 't')}"]
        if command == "build":
            run, flags = build.main, ["--config.extractor=openai", "--config.llm.model=m", f"--out={tmp_path / 'out'}",
                                      f"--config.llm.base_url={given}", "--config.workers=1"]
        else:
            # The user's word for it counts for nothing.
            run, flags = score.main, ["--extractor=openai", "--llm.model=m", f"--llm.base_url={given}", "--terms=open",
                                      f"--out={tmp_path / 'score.json'}", "--resamples=2"]
        shown = ""
        if url in LOCAL:
            assert run([*source, *flags]) == 0 and len(server.calls) == 3
        else:
            with pytest.raises(UserError, match="credentialed terms" if url in REMOTE else "llm.base_url") as error:
                run([*source, *flags])
            shown = str(error.value)
            assert not server.connections and "\n" not in shown
        assert not proxy.connections
    texts = [shown, *capsys.readouterr(), caplog.text]
    texts += [path.read_text() for name in ("score.json", "out/dataset.json", "out/rejected.csv")
              if (path := tmp_path / name).exists()]
    for secret in (NAME, SENTENCE, KEY):
        assert not [text for text in texts if secret in text]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_address_that_was_checked_is_connected_to(backend, tmp_path, proxy, monkeypatch):
    """A name that is local when it is checked, and another machine's from then on (127.0.0.2 stands for it)."""
    asked, real = [], socket.getaddrinfo

    def resolve(host, port, *more, **options):
        if host != "mine.example":
            return real(host, port, *more, **options)
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1" if len(asked) == 1 else "127.0.0.2",
                                                             port or 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with Server() as server, Server(host="127.0.0.2", port=server.port) as other:
        url = f"http://mine.example:{server.port}{'/v1' if backend == 'openai' else ''}"
        job = make_job(backend, server, tmp_path, base_url=url)
        assert extract(lambda: [make_report(i) for i in range(20)], job).valid == 20
        assert not other.connections and not proxy.connections and len(server.calls) == 20
        assert server.headers["host"] == f"mine.example:{server.port}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_next_address_is_tried_where_nobody_listens(backend):
    with Server(host="127.0.0.2") as server:
        route = Route(("127.0.0.1", "127.0.0.2"), True, True)
        assert ask(backend, server, route=route).text


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_environment_does_not_name_endpoints(backend, proxy, monkeypatch):
    with Server() as other:
        for name in ("OPENAI_BASE_URL", "GOOGLE_GEMINI_BASE_URL", "GOOGLE_VERTEX_BASE_URL"):
            monkeypatch.setenv(name, other.url)
        monkeypatch.setenv("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "example.invalid")
        proxy.base_url = lambda backend: ""
        with pytest.raises(ClientError):
            ask(backend, proxy)
        assert not other.connections
    vendor = "api.openai.com" if backend == "openai" else "generativelanguage.googleapis.com"
    assert proxy.headers[":path"] == f"{vendor}:443"  # Of a tunnel: the key is inside it.


@pytest.mark.parametrize("url, route, sent", [
    ("http://127.0.0.1:8000/v1", Route(("127.0.0.1",), True, True), True),
    ("http://10.0.0.5:8000/v1", Route(("10.0.0.5",), True), False),
    ("https://10.0.0.5:8000/v1", Route(("10.0.0.5",), True), True),
    ("http://llm.example/v1", Route(("192.0.2.1",)), False), ("https://llm.example/v1", Route(("192.0.2.1",)), True),
    ("", Route(), True)])
def test_keys_stay_off_plain_http_to_other_machines(url, route, sent):
    endpoint = Endpoint("openai", "m", url, route=route)
    assert read_key(endpoint) == (KEY if sent else NO_KEY)
    assert ("use https" in str(key_refused(endpoint, 401))) == (not sent) and KEY not in str(key_refused(endpoint, 401))


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_key_goes_through_a_plain_proxy(backend, proxy):
    proxy.base_url = lambda backend: "http://192.0.2.1" + ("/v1" if backend == "openai" else "")
    ask(backend, proxy)
    assert proxy.calls and KEY not in str(proxy.headers)


@pytest.mark.parametrize("backend", BACKENDS)
def test_redirects_take_neither_key_nor_report_along(backend):
    with Server() as target, Server() as server:
        server.redirect = target.base_url(backend)
        with pytest.raises(ClientError) as error:
            ask(backend, server)
        assert error.value.kind == clients.NOT_SERVED and not target.connections


@pytest.mark.parametrize("host, address", [
    ("0177.0.0.1", "127.0.0.1"), ("0300.0250.0.1", "192.168.0.1"), ("0x7f.1", "127.0.0.1"),
    ("3232235521", "192.168.0.1"),
    ("[::ffff:7f00:1]", "::ffff:7f00:1"), ("010.0.0.1", ""), ("[::127.0.0.1]", ""), ("[ff02::1]", ""), ("256.1", "")])
def test_octal_hexadecimal_and_short_addresses_are_what_the_system_connects_to(host, address):
    route = find_route(f"http://{host}/v1")
    assert route.addresses == (address,) if address else not route.local
    assert route.local == bool(address)
