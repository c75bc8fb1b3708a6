"""The documents of published benchmarks: from files that a deployment keeps, or from the hub."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth_assets.benchmarks.suite import Item
from synth_assets.redaction import redact, without_secrets

Document = dict[str, Any]


def read_jsonl(path: Path) -> list[Document]:
    """One JSON object in each line that is not blank; ValueError names the line that holds something else."""
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if not isinstance(document, dict):
            raise ValueError(f"{path}, line {number}: wanted an object, found {type(document).__name__}")
        found.append(document)
    return found


def read_csv(path: Path) -> list[list[str]]:
    """The cells of each row, the header among them."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@dataclass(frozen=True)
class Source:
    """Where a benchmark's documents are.

    Attributes:
        files: pattern of their names below the deployment's folder of benchmarks.
        repository: data set on the hub.
        configuration: of it; empty: it has one only.
        split: of it that models are measured on.
        fields: that every document has.
        read: documents of one file, with the fields that the hub's have.
    """

    files: str
    repository: str
    configuration: str
    split: str
    fields: tuple[str, ...]
    read: Callable[[Path], list[Document]] = read_jsonl

    def documents(self, folder: Path | None) -> list[Document]:
        """From the files below `folder` if there are any, in the order of their names; else from the hub.

        Raises:
            FileNotFoundError: neither gives them; says what to put where.
            ValueError: a file holds none.
        """
        files = sorted(folder.glob(self.files)) if folder else []
        if not files:
            return self._from_hub(folder)
        found = [document for file in files for document in self.read(file)]
        if not found:
            raise ValueError(f"{self.files} in {folder} holds no documents")
        self._check(found)
        return found

    def items(
        self,
        suite: str,
        folder: Path | None,
        *,
        prompt: Callable[[Document], str],
        choices: Callable[[Document], Sequence[str]] = lambda document: (),
        cluster: Callable[[Document], str] = lambda document: "",
    ) -> list[Item]:
        """Items of kind "harness" in the test split, one for each document, which is the item's answer.

        Args:
            suite: its name.
            folder: as in `documents`, whose errors are raised.
            prompt: what is particular to a document: without a template that all share.
            choices: the texts that the model rates.
            cluster: what documents with a common origin share; empty: each stands alone.
        """
        found = []
        for number, document in enumerate(self.documents(folder)):
            item_id = f"{suite}/{number:05}"
            found.append(
                Item(
                    item_id=item_id,
                    suite=suite,
                    split="test",
                    kind="harness",
                    prompt=prompt(document),
                    answer=json.dumps(document, ensure_ascii=False),
                    cluster=cluster(document) or item_id,
                    choices=tuple(choices(document)),
                )
            )
        return found

    def _check(self, documents: Sequence[Document]) -> None:
        for number, document in enumerate(documents, 1):
            if missing := [name for name in self.fields if name not in document]:
                raise ValueError(
                    f"document {number} of {self.files} has no field {', '.join(missing)}; "
                    f"it has {', '.join(sorted(document))}"
                )

    def _from_hub(self, folder: Path | None) -> list[Document]:
        from datasets import load_dataset

        try:
            table = load_dataset(self.repository, self.configuration or None, split=self.split)
        except (OSError, ValueError) as error:
            cause = " ".join(redact(str(error)).split())
            looked = (
                f"no file {self.files} in {folder}" if folder else f"no folder of benchmarks to find {self.files} in"
            )
            raise FileNotFoundError(
                f"{looked}, and the hub did not give {self.repository} ({cause}): put the file "
                "there (SYNTH_BENCHMARKS names the folder), let this machine reach the hub, or leave the suite out "
                "(config `suites` of benchmark_items)"
            ) from without_secrets(error)
        found = [dict(row) for row in table]
        self._check(found)
        return found
