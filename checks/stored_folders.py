"""Compare a stored folder with its manifest, and the manifest with its record."""

from pathlib import Path

from synth_assets.storage.manifests import MANIFEST, ManifestError, file_sha256, read_manifest


def folder_problems(folder: Path, manifest_sha256: str) -> list[str]:
    """Return what is wrong with a folder: its files differ from its manifest, or the manifest from its record."""
    try:
        read_manifest(folder)
    except ManifestError as error:
        return [str(error)]
    if file_sha256(folder / MANIFEST) != manifest_sha256:
        return [f"{folder.name}/{MANIFEST} is not the one of the record"]
    return []
