"""Draw docs/images/architecture.svg from the layers in .importlinter: `python docs/draw_architecture.py`."""

from configparser import ConfigParser
from pathlib import Path
from xml.sax.saxutils import escape

PROJECT = Path(__file__).parents[1]
PICTURE = Path(__file__).with_name("images") / "architecture.svg"
WIDTH, LEFT, ROW, BOX, GAP = 980, 190, 58, 34, 10  # pixels
STYLE = 'font-family="sans-serif" font-size="13"'
BANDS = {
    "synth_assets.cli": "commands",
    "synth_assets.definitions": "composition root",
    "synth_assets.orchestration": "jobs, sensors, checks",
    "synth_assets.stages": "assets of each stage",
    "resources": "Dagster resources",
    "synth_assets.rl": "environments, no Dagster",
    "synth_assets.evals": "engines, no Dagster",
    "synth_assets.llm": "models, no Dagster",
    "synth_assets.embedded": "foundations",
    "synth_assets.schemas": "schemas, import nothing",
}
"""First package of a layer to what the layer holds."""


def layers() -> list[list[str]]:
    """Return the packages of each layer, the highest first, as import-linter enforces them."""
    contracts = ConfigParser()
    contracts.read(PROJECT / ".importlinter", "utf-8")
    lines = contracts["importlinter:contract:layers"]["layers"].split("\n")
    return [[name.strip() for name in line.replace("|", ":").split(":")] for line in lines if line.strip()]


def picture() -> str:
    """Return the picture: one row for each layer, one box for each package; a layer imports from those below it."""
    rows = layers()
    height = ROW * len(rows) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>Layers of synth-assets: each imports from the layers below it only</title>",
        '<defs><marker id="head" markerWidth="8" markerHeight="8" refX="4" refY="4" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#5c6370"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for place, packages in enumerate(rows):
        top = GAP + place * ROW
        parts.append(
            f'<text x="{LEFT - 14}" y="{top + 22}" text-anchor="end" fill="#5c6370" {STYLE}>'
            f"{escape(BANDS[packages[0]])}</text>"
        )
        width = (WIDTH - LEFT - GAP * len(packages)) / len(packages)
        for column, package in enumerate(packages):
            left = LEFT + column * (width + GAP)
            parts.append(
                f'<rect x="{left:g}" y="{top}" width="{width:g}" height="{BOX}" rx="5" fill="#e8eaf6" '
                f'stroke="#3f51b5"/><text x="{left + width / 2:g}" y="{top + 22}" text-anchor="middle" '
                f'fill="#1a237e" {STYLE}>{escape(package.removeprefix("synth_assets."))}</text>'
            )
        if place + 1 < len(rows):
            middle, bottom = LEFT + (WIDTH - LEFT - GAP) / 2, top + BOX
            parts.append(
                f'<line x1="{middle:g}" y1="{bottom + 3}" x2="{middle:g}" y2="{top + ROW - 5}" '
                'stroke="#5c6370" stroke-width="1.5" marker-end="url(#head)"/>'
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(), "utf-8")
