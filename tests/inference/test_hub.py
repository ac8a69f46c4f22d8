"""Models on the hub: uploaded to a stub of its API on a socket, loaded from the cache with the network off."""

import subprocess
import sys

import numpy as np
import pytest

import lgdea_jax
from lgdea_jax import push
from lgdea_jax.errors import UserError
from lgdea_jax.inference import model_folder
from lgdea_jax.runtime import hub
from tests.inference import hub_stub
from tests.inference.test_model_folder import PROMPTS, exported, run  # noqa: F401 (fixtures)
from tests.inference.test_predictor import IMAGES
from tests.training.runs import ROOT, environment

ATTESTED = "--attest_data_use=The ethics board of the hospital permits it."
# No process that starts with this reaches any address.
OFFLINE = """
import socket
def refuse(*args, **options):
    raise OSError(101, "Network is unreachable")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = refuse
"""
SCORE = """
import sys
import numpy as np
import lgdea_jax
images = np.load(sys.argv[2])
np.save(sys.argv[3], lgdea_jax.load(sys.argv[1]).scores(list(images), ["Nodule", "clear lungs"]))
"""


@pytest.fixture
def stub(monkeypatch, tmp_path):
    with hub_stub.in_this_process(monkeypatch, tmp_path / "cache") as (_, server):
        yield server


@pytest.mark.parametrize("address,parsed", [
    ("hf://me/model", ("me/model", "")), ("hf://me/model@v1", ("me/model", "v1")),
    ("hf://me/model@refs/pr/1", ("me/model", "refs/pr/1"))])
def test_addresses(address, parsed):
    assert hub.is_address(address) and hub.parse(address) == parsed


@pytest.mark.parametrize("address", ["hf://model", "hf://a/b/c", "hf:///b", "hf://a/b@", "hf://"])
def test_what_is_no_address_is_named(address):
    with pytest.raises(UserError, match="is no model on the hub: hf://OWNER/NAME"):
        hub.fetch(address, ("*",))


def test_paths_stay_as_they_are(tmp_path):
    assert hub.fetch(tmp_path, ("*",)) == hub.fetch_tower(tmp_path) == tmp_path
    assert hub.pinned("a/b") == "a/b" and hub.pinned("") == ""


def test_a_model_of_credentialed_data_needs_an_attestation(exported, stub, capsys):  # noqa: F811
    with pytest.raises(UserError, match=r"trained on a hospital \(credentialed\): .*--attest_data_use"):
        push.main([str(exported), "me/model"])
    with pytest.raises(UserError, match=r"at least 20 characters"):
        push.main([str(exported), "me/model", "--attest_data_use=yes"])
    assert stub.asked == [] and stub.models == {}
    assert push.main([str(exported), "me/model", ATTESTED]) == 0
    model = stub.models["me/model"]
    assert model["private"] and f"hf://me/model@{model['main']} (private)" in capsys.readouterr().out
    files = model["commits"][model["main"]]
    assert sorted(files) == sorted([*model_folder.FILES, model_folder.CARD, "README.md"])
    for name in (*model_folder.FILES, model_folder.CARD):
        assert files[name] == (exported / name).read_bytes()
    page = files["README.md"].decode()
    assert page.startswith("---\nlibrary_name: lgdea-jax\n") and "# Model card" in page
    assert "Attested by who uploaded the model: The ethics board of the hospital permits it." in page


@pytest.mark.parametrize("terms,asked", [("open", False), ("own", False), ("credentialed", True), ("unstated", True)])
def test_which_terms_ask_for_an_attestation(terms, asked):
    sources = [{"source": "x", "licence": "y", "terms": "open"}, {"source": "z", "licence": "y", "terms": terms}]
    if asked:
        with pytest.raises(UserError, match="attest_data_use"):
            push.check_terms(sources, "")
    else:
        assert push.check_terms(sources, "") == ""


def test_a_private_model_does_not_land_in_a_public_one(exported, stub):  # noqa: F811
    assert push.main([str(exported), "me/open", ATTESTED, "--public"]) == 0
    assert not stub.models["me/open"]["private"]
    with pytest.raises(UserError, match=r"hf://me/open is public: --public states that this is meant"):
        push.main([str(exported), "me/open", ATTESTED])
    assert len(stub.models["me/open"]["commits"]) == 2  # The empty one that it began with, and one upload.


def test_what_cannot_be_had_is_a_line(exported, stub, tmp_path, monkeypatch):  # noqa: F811
    with pytest.raises(UserError, match=r"is no exported model: python -m lgdea_jax.export"):
        push.main([str(tmp_path), "me/model"])
    push.main([str(exported), "me/model", ATTESTED])
    stub.models["me/tower"] = {"private": False, "main": "1" * 40,
                               "commits": {"1" * 40: {"config.json": b"{}", "model.safetensors": b""}}}
    for address, message in (("hf://me/other", "no such model, or a private one: log in"),
                             ("hf://me/model@v9", "the model has no such revision"),
                             ("hf://me/tower", "is no model of the format lgdea 1")):
        with pytest.raises(UserError, match=message):
            lgdea_jax.load(address)
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    for call in (lambda: lgdea_jax.load("hf://me/model"), lambda: push.main([str(exported), "me/model", ATTESTED])):
        with pytest.raises(UserError, match="log in with `hf auth login` or HF_TOKEN"):
            call()


def test_a_name_always_means_the_last_commit_and_a_commit_itself(exported, stub):  # noqa: F811
    push.main([str(exported), "me/model", ATTESTED])
    first = hub.pinned("hf://me/model")
    assert first == f"hf://me/model@{stub.models['me/model']['main']}"
    push.main([str(exported), "me/model", f"{ATTESTED} Again."])
    assert hub.pinned("hf://me/model") != first and hub.pinned(first) == first
    assert hub.fetch(first, ("config.json",)).name == first.split("@")[1]


@pytest.mark.slow
def test_scores_are_equal_from_the_cache_with_the_network_off(run, exported, tmp_path):  # noqa: F811
    np.save(tmp_path / "images.npy", IMAGES)
    expected = lgdea_jax.load(run).scores(list(IMAGES), PROMPTS)
    home = {**environment(), "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": hub_stub.TOKEN}
    home.pop("HF_HUB_OFFLINE", None)

    def python(*words, **more):
        return subprocess.run([sys.executable, *words], cwd=ROOT, env={**home, **more}, capture_output=True, text=True,
                              timeout=300)

    def scores(code, address, name, **more):
        done = python("-c", code + SCORE, address, str(tmp_path / "images.npy"), str(tmp_path / name), **more)
        assert done.returncode == 0, done.stderr
        return np.load(tmp_path / name)

    with hub_stub.serve() as (url, server):
        done = python("-m", "lgdea_jax.push", str(exported), "me/model", ATTESTED, HF_ENDPOINT=url)
        assert done.returncode == 0, done.stderr
        address = done.stdout.split("the page: ")[1].split()[0]
        online = scores("", "hf://me/model", "online.npy", HF_ENDPOINT=url)
        assert ("GET", f"/me/model/resolve/{address.split('@')[1]}/model.safetensors") in server.asked
    np.testing.assert_allclose(online, expected, rtol=0, atol=1e-6)
    for number, name in enumerate(("hf://me/model", address)):
        offline = scores(OFFLINE, name, f"offline{number}.npy", HF_ENDPOINT=url)
        np.testing.assert_allclose(offline, expected, rtol=0, atol=1e-6)
    told = scores("", "hf://me/model", "told.npy", HF_ENDPOINT=url, HF_HUB_OFFLINE="1")
    np.testing.assert_allclose(told, expected, rtol=0, atol=1e-6)
    missing = python("-c", f"{OFFLINE}\nimport lgdea_jax\nlgdea_jax.load('hf://me/other')", HF_ENDPOINT=url)
    assert "hf://me/other is not in the cache of the hub (HF_HOME), and the hub cannot be reached" in missing.stderr
