"""The documents of published benchmarks: from files that a deployment keeps, or from the hub."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from synth_assets.evals.documents import Document, Field, Located, check_fields, check_unique, jsonl_documents
from synth_assets.evals.suite import Item
from synth_assets.text.redaction import redact, without_secrets


@dataclass(frozen=True)
class Source:
    """Where a benchmark's documents are.

    Attributes:
        files: pattern of their names below the deployment's folder of benchmarks.
        repository: data set on the hub.
        configuration: of it; empty: it has one only.
        split: of it that models are measured on.
        fields: that documents have; a file that holds others is refused.
        read: documents of one file, with the fields that the hub's have.
        check: raises ValueError where the fields of a document do not fit each other.
        unique: a field whose value no two documents of a file share; empty: there is none.
    """

    files: str
    repository: str
    configuration: str
    split: str
    fields: Mapping[str, Field]
    read: Callable[[Path], list[Located]] = jsonl_documents
    check: Callable[[Located], None] = lambda found: None
    unique: str = ""

    def documents(self, folder: Path | None) -> list[Document]:
        """From the files below `folder` if there are any, in the order of their names; else from the hub.

        Raises:
            FileNotFoundError: neither gives them; says what to put where.
            ValueError: a file holds none, or one that is not as it should be; names file, line and field.
        """
        files = sorted(folder.glob(self.files)) if folder else []
        if not files:
            return self._from_hub(folder)
        found: list[Located] = []
        for file in files:
            read = self.read(file)
            if not read:
                raise ValueError(f"{file} holds no documents: put the benchmark's file there, or remove it")
            self._check(read)
            found += read
        return [document for _, document in found]

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

    def _check(self, found: Sequence[Located], *, strangers: bool = False) -> None:
        for located in found:
            check_fields(located, self.fields, strangers=strangers)
            self.check(located)
        if self.unique:
            check_unique(found, self.unique)

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
        rows = [Located(f"{self.repository}, document {number}", dict(row)) for number, row in enumerate(table, 1)]
        self._check(rows, strangers=True)
        return [document for _, document in rows]
