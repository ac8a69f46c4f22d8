"""Models on the Hugging Face Hub: `hf://OWNER/NAME` or `hf://OWNER/NAME@REVISION` to a local folder, and back.

`huggingface_hub` downloads into its cache (HF_HOME), and reads from there where the hub cannot be reached or
HF_HUB_OFFLINE is 1. A revision is a branch, a tag or a commit; only a commit always means the same files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lgdea_jax.errors import UserError

SCHEME = "hf://"
# Of published towers: what describes them and their tokeniser; the weights in the formats that are read, best first.
DESCRIPTIONS = ("*.json", "*.txt", "*.model")
LIBRARIES = ("httpx", "httpx2", "httpcore", "httpcore2", "requests")  # Whose errors a lost connection may raise.
WEIGHTS = (("*.safetensors",), ("*.bin", "*.pt", "*.pth"))


def is_address(path: str | Path) -> bool:
    """Whether a path is an address on the hub."""
    return str(path).startswith(SCHEME)


def parse(address: str) -> tuple[str, str]:
    """("OWNER/NAME", revision) of an address; "" without a revision.

    Raises:
      UserError: it is none.
    """
    repo, at, revision = address.removeprefix(SCHEME).partition("@")
    if repo.count("/") != 1 or not all(repo.split("/")) or (at and not revision):
        raise UserError(f"{address} is no model on the hub: {SCHEME}OWNER/NAME or {SCHEME}OWNER/NAME@REVISION")
    return repo, revision


def fetch(path: str | Path, patterns: Sequence[str]) -> Path:
    """The local folder of an address, downloaded if need be; any other path as it is.

    Args:
      path: an address or a path; patterns: of the files that are needed, such as "*.json".

    Raises:
      UserError: no such model or revision, no permission, or neither the hub nor the cache has it.
    """
    if not is_address(path):
        return Path(path)
    from huggingface_hub import snapshot_download

    repo, revision = parse(str(path))
    with one_line(str(path)):
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=list(patterns)))


def fetch_tower(path: str | Path) -> Path:
    """As `fetch`, of a published tower: its description and its weights in one format, safetensors where there are."""
    folder = fetch(path, DESCRIPTIONS)
    if not is_address(path):
        return folder
    commit = f"{SCHEME}{parse(str(path))[0]}@{folder.name}"
    for patterns in WEIGHTS:
        fetch(commit, patterns)
        if any(found for pattern in patterns for found in folder.glob(pattern)):
            break
    return folder


def pinned(path: str | Path) -> str:
    """An address with the commit that its revision means now; any other path as it is. Errors as of `fetch`."""
    if not is_address(path):
        return str(path)
    return f"{SCHEME}{parse(str(path))[0]}@{fetch(path, ('config.json',)).name}"


def upload(repo: str, files: Mapping[str, Path | bytes], *, private: bool, message: str) -> str:
    """Uploads files as one commit to a model on the hub, which is made if there is none.

    Args:
      repo: "OWNER/NAME"; files: {name there: file here, or its content}.
      private: whether only its owner may see it; message: of the commit.

    Returns:
      The address with the commit.

    Raises:
      UserError: no permission, no connection, or a public model where a private one is wanted.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    parse(SCHEME + repo)
    with one_line(SCHEME + repo):
        api = HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise UserError(f"{SCHEME}{repo} is public: --public states that this is meant")
        commit = api.create_commit(repo, [CommitOperationAdd(name, str(file) if isinstance(file, Path) else file)
                                          for name, file in files.items()], commit_message=message)
    return f"{SCHEME}{repo}@{commit.oid}"


@contextmanager
def one_line(address: str) -> Iterator[None]:
    """Turns the errors of `huggingface_hub` into a line with the remedy."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise UserError(f"{address} asks for terms to be accepted: accept them on its page, and log in with "
                        "`hf auth login` or HF_TOKEN") from None
    except errors.RepositoryNotFoundError:
        raise UserError(f"{address}: no such model, or a private one: log in with `hf auth login` or HF_TOKEN"
                        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{address}: the model has no such revision") from None
    except errors.LocalEntryNotFoundError:
        raise UserError(f"{address} is not in the cache of the hub (HF_HOME), and the hub cannot be reached: fetch it "
                        "once where it can be") from None
    except errors.HFValidationError as error:
        raise UserError(f"{address}: {_first(error)}") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        remedy = ": log in with `hf auth login` or HF_TOKEN as somebody who may" if status in (401, 403) else ""
        raise UserError(f"{address}: the hub refuses ({status or _first(error)}){remedy}") from None
    except Exception as error:
        if isinstance(error, ConnectionError) or type(error).__module__.split(".")[0] in LIBRARIES:
            raise UserError(f"{address}: the hub cannot be reached ({type(error).__name__})") from None
        raise


def _first(error: Any) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
