"""A model registry in memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from synth_assets.schemas.records import AdapterRecord, Metric


class MemoryRegistry:
    """Versions 1 to 3 and aliases, in memory."""

    def __init__(self) -> None:
        self.tags = {
            n: {
                "asset": f"adapter_{n}",
                "fingerprint": f"f{n}",
                "role": "candidate",
                "data_version": f"d{n}",
                "data_versions": "{}",
            }
            for n in "123"
        }
        self.aliases: dict[str, str] = {}
        self.log: dict[str, str] = {}

    def model_tags(self) -> dict[str, str]:
        return dict(self.log)

    def tag_model(self, name: str, value: str) -> None:
        self.log[name] = value

    def versions(self) -> dict[str, dict[str, str]]:
        return self.tags

    def delete(self, version: str) -> None:
        """As MLflow does it: the aliases of the version go with it."""
        del self.tags[version]
        self.aliases = {name: at for name, at in self.aliases.items() if at != version}

    def alias(self, name: str) -> str | None:
        return self.aliases.get(name)

    def set_alias(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        self.tag_version(version, tags)
        self.aliases[name] = version

    def remove_alias(self, name: str) -> None:
        del self.aliases[name]

    def version_tags(self, version: str) -> dict[str, str]:
        return self.tags[version]

    def tag_version(self, version: str, tags: Mapping[str, str]) -> None:
        self.tags[version].update(tags)

    def remove_tag(self, version: str, name: str) -> None:
        self.tags[version].pop(name, None)

    def scored_items(self, run_id: str) -> pl.DataFrame:
        raise KeyError(run_id)

    def log_training(
        self, record: AdapterRecord, folder: Path, curve: Sequence[Mapping[str, float]], tags: Mapping[str, str]
    ) -> tuple[str, str]:
        raise NotImplementedError

    def log_scores(self, metrics: Sequence[Metric], items: pl.DataFrame, versions: Mapping[str, str]) -> str:
        raise NotImplementedError
