"""`synth why`: explain what happened to one row."""

from synth_assets.cli.rows import entry, pair_lines, present_pairs, row_story, trained_versions
from synth_assets.cli.session import Session
from synth_assets.registry.model_versions import model_versions
from synth_assets.storage.lineage import one_row


def why_text(session: Session, prefix: str, *, with_reviews: bool = True) -> str:
    """Describe a row: filter decision, reviews, origin, texts, datasets, pairs and model versions.

    Raises:
        LineageError: no row id begins with `prefix`, or several do.
    """
    manifests = session.storage.manifests()
    row_id = one_row(manifests, prefix)
    lines = row_story(session.home, row_id, with_reviews=with_reviews)
    for pair in present_pairs(session.home, row_id):
        lines += pair_lines(pair)
    versions = model_versions(session.tracker) if session.tracker else []
    trained = trained_versions(manifests, [row_id], versions)
    lines.append(entry("models", ", ".join(version.title for version in trained) or "no model was trained on it"))
    if trained:
        lines.append(
            entry("next", f"synth trace {trained[-1].version} --row {row_id} | synth recall {row_id} --reason TEXT")
        )
    return "\n".join(lines)
