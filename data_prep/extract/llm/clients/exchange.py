"""Questions and answers as files in a folder, for a model that is run over files: vLLM's `run-batch`, offline.

    vllm run-batch -i FOLDER/NAME.input.jsonl -o FOLDER/NAME.output.jsonl --model MODEL

A build writes the questions and ends; started again, it reads the answers. The files quote reports: the folder is made
for its user's eyes only, and they are removed once the answers are in the reply cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_prep.extract.llm.clients import client
from data_prep.extract.llm.clients.client import Ended, Endpoint, Request
from data_prep.extract.llm.clients.openai import first_form
from data_prep.extract.llm.clients.openai_lines import in_order, question_lines, read_lines
from lgdea_jax.errors import UserError
from lgdea_jax.runtime.files import write_text_atomically


class Exchange:
    """See `client.Batches`; a batch is a file, and its name there is its label."""

    waits = False

    def __init__(self, endpoint: Endpoint, folder: str) -> None:
        self._endpoint, self._folder = endpoint, Path(folder)
        self._form = first_form(endpoint)

    def _file(self, name: str, kind: str) -> Path:
        return self._folder / f"{name}.{kind}.jsonl"

    async def create(self, label: str, requests: Sequence[Request]) -> str:
        """Writes the questions."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_text_atomically(self._file(label, "input"),
                                  "".join(question_lines(requests, self._endpoint, self._form)), mode=0o600)
        except OSError as error:
            raise UserError(f"cannot write to llm.exchange={self._folder}: {error.strerror}") from None
        return label

    async def find(self, label: str) -> str | None:
        """See `client.Batches`."""
        return label if self._file(label, "input").is_file() else None

    async def look(self, name: str) -> Ended | None:
        """What became of the questions; None as long as the answers are not all there."""
        questions, answers = self._file(name, "input"), self._file(name, "output")
        if not answers.is_file():
            return None if questions.is_file() else Ended("lost its files", ())
        with open(questions, "rb") as file:
            total = sum(1 for _ in file)
        found = read_lines(answers.read_text(encoding="utf-8", errors="replace"), "", set())
        return Ended("ended", in_order(found, total, client.SERVER)) if len(found) >= total else None

    def instruction(self, names: Sequence[str]) -> str:
        """What the user has to do with the files."""
        first, more = names[0], f", and the {len(names) - 1} others like it" if len(names) > 1 else ""
        return (f"the questions are in {self._folder}; have vLLM answer them (vllm run-batch "
                f"-i {self._file(first, 'input')} -o {self._file(first, 'output')} --model {self._endpoint.model}{more}"
                "), then run the same command again")

    async def forget(self, name: str) -> None:
        """Removes the files."""
        for kind in ("input", "output"):
            self._file(name, kind).unlink(missing_ok=True)

    async def close(self) -> None:
        """Nothing is kept open."""


def open_exchange(endpoint: Endpoint, folder: str) -> Exchange:
    """Files in a folder."""
    return Exchange(endpoint, folder)
