import os

import pytest

from tests.data_prep.extract.llm.server import KEY


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """No keys and no proxies of whoever runs the tests; a proxy that leads nowhere, which local endpoints ignore."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
