"""Documents of published benchmarks, from local files or the Hugging Face Hub."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from synth_assets.evals.documents import Document, Field, Located, check_fields, check_unique, jsonl_documents
from synth_assets.evals.suite import Item
from synth_assets.text.redaction import redact, without_secrets


@dataclass(frozen=True)
class Source:
    """The source of a benchmark's documents.

    Attributes:
        files: file name pattern in the benchmark folder.
        repository: dataset on the hub.
        configuration: configuration of the dataset; empty: the only one.
        split: split of the dataset to evaluate on.
        fields: fields of a document; a file with other fields is an error.
        read: reads a file into documents with the fields of the hub's.
        check: raises ValueError for a document whose fields are inconsistent.
        unique: field whose values must be unique within a file; empty: none.
    """

    files: str
    repository: str
    configuration: str
    split: str
    fields: Mapping[str, Field]
    read: Callable[[Path], list[Located]] = jsonl_documents
    check: Callable[[Located], None] = lambda located: None
    unique: str = ""

    def documents(self, folder: Path | None) -> list[Document]:
        """Return the documents of the files in `folder`, sorted by name, or of the hub if there are none.

        Raises:
            FileNotFoundError: neither source has them; names the file to provide.
            ValueError: a file is empty or has an invalid document; names file, line and field.
        """
        files = sorted(folder.glob(self.files)) if folder else []
        if not files:
            return self._from_hub(folder)
        located: list[Located] = []
        for file in files:
            file_documents = self.read(file)
            if not file_documents:
                raise ValueError(f"{file} has no documents: replace it by the benchmark's file, or remove it")
            self._check(file_documents)
            located += file_documents
        return [document for _, document in located]

    def items(
        self,
        suite: str,
        folder: Path | None,
        *,
        prompt: Callable[[Document], str],
        choices: Callable[[Document], Sequence[str]] = lambda document: (),
        cluster: Callable[[Document], str] = lambda document: "",
    ) -> list[Item]:
        """Return an item of kind "harness" in the test split for each document; its answer is the document as JSON.

        Args:
            suite: name of the suite.
            folder: as in `documents`, whose errors are raised.
            prompt: the text specific to a document, without the template shared by all.
            choices: the texts that the model rates.
            cluster: the common origin of documents; empty: the document is its own cluster.
        """
        rows = []
        for number, document in enumerate(self.documents(folder)):
            item_id = f"{suite}/{number:05}"
            rows.append(
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
        return rows

    def _check(self, documents: Sequence[Located], *, allow_unknown: bool = False) -> None:
        for located in documents:
            check_fields(located, self.fields, allow_unknown=allow_unknown)
            self.check(located)
        if self.unique:
            check_unique(documents, self.unique)

    def _from_hub(self, folder: Path | None) -> list[Document]:
        from datasets import load_dataset

        try:
            table = load_dataset(self.repository, self.configuration or None, split=self.split)
        except (OSError, ValueError) as error:
            cause = " ".join(redact(str(error)).split())
            missing = f"no file {self.files} in {folder}" if folder else f"no benchmark folder to find {self.files} in"
            raise FileNotFoundError(
                f"{missing}, and {self.repository} could not be loaded from the hub ({cause}): put the file "
                "there (SYNTH_BENCHMARKS names the folder), give this machine access to the hub, or remove the suite "
                "(config `suites` of benchmark_items)"
            ) from without_secrets(error)
        rows = [Located(f"{self.repository}, document {number}", dict(row)) for number, row in enumerate(table, 1)]
        self._check(rows, allow_unknown=True)
        return [document for _, document in rows]
