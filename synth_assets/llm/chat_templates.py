"""Read the chat templates in a model folder, and test each under time and memory limits before the model is used."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from synth_assets.llm.errors import ModelFilesError, read_json

TEMPLATE_FILE = "chat_template.jinja"
EXTRA_TEMPLATES = "additional_chat_templates"
PROBE = Path(__file__).with_name("chat_template_probe.py")
CPU_S = 5  # templates of published models take milliseconds
WALL_S = 60.0
MEMORY_BYTES = 2**28  # a rendered chat needs less than a thousandth of it
LIMITED_PROGRAM = """
import contextlib, resource, runpy, sys
resource.setrlimit(resource.RLIMIT_CPU, ({cpu}, {cpu}))
with contextlib.suppress(ValueError, OSError):  # not supported on macOS
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
runpy.run_path({program!r}, run_name="__main__")
"""


def chat_template(folder: Path, location: str) -> str:
    """Return the chat template of a model folder, or "" if it has none."""
    templates = _templates(folder, location)
    return next((text for name, text in templates.items() if name != EXTRA_TEMPLATES), "")


def check_chat_templates(folder: Path, location: str) -> None:
    """Check that each chat template is valid and renders within CPU_S seconds and MEMORY_BYTES.

    Raises:
        ModelFilesError: a template failed; names the file and the reason.
    """
    tokens = _tokens(folder, location)
    for file, template in _templates(folder, location).items():
        if reason := _probe(template, tokens):
            raise ModelFilesError(
                f"{location}: the chat template in {file} cannot be used: {reason}. Fix the file or choose another "
                "model"
            )


def _templates(folder: Path, location: str) -> dict[str, str]:
    """Return file (and name inside it) -> template, the default template first."""
    templates: dict[str, str] = {}
    if (folder / TEMPLATE_FILE).is_file():
        templates[TEMPLATE_FILE] = _text(folder / TEMPLATE_FILE, location)
    settings = folder / "tokenizer_config.json"
    configured = read_json(settings, location).get("chat_template") if settings.is_file() else None
    if isinstance(configured, str):
        templates[settings.name] = configured
    elif isinstance(configured, list):  # [{"name": "default", "template": ...}, ...]
        named = {str(e.get("name")): e["template"] for e in configured if isinstance(e, dict) and "template" in e}
        ordered = sorted(named, key=lambda name: name != "default")
        templates |= {f"{settings.name} ({name})": str(named[name]) for name in ordered}
    elif configured is not None:
        kind = type(configured).__name__
        raise ModelFilesError(f"{location}: {settings.name}: chat_template must be a string or a list, got {kind}")
    for path in sorted((folder / EXTRA_TEMPLATES).glob("*.jinja")):
        templates[f"{EXTRA_TEMPLATES}/{path.name}"] = _text(path, location)
    return templates


def _text(path: Path, location: str) -> str:
    try:
        return path.read_text("utf-8")
    except ValueError as error:
        raise ModelFilesError(f"{location}: {path.name} is not UTF-8 text ({error})") from error


def _tokens(folder: Path, location: str) -> dict[str, Any]:
    """Return the special tokens that templates can use, such as `bos_token`."""
    settings = folder / "tokenizer_config.json"
    if not settings.is_file():
        return {}
    named = read_json(settings, location).items()
    contents = {k: v.get("content") if isinstance(v, dict) else v for k, v in named if k.endswith("_token")}
    return {name: text for name, text in contents.items() if isinstance(text, str)}


def _probe(template: str, tokens: dict[str, Any]) -> str:
    """Render a template in a process with limits; return why it failed, or ""."""
    program = LIMITED_PROGRAM.format(cpu=CPU_S, program=str(PROBE))
    try:
        process = subprocess.run(
            [sys.executable, "-I", "-c", program, str(MEMORY_BYTES)],
            input=json.dumps({"template": template, "tokens": tokens}),
            capture_output=True,
            text=True,
            timeout=WALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"rendering exceeded {WALL_S:.0f} s"
    if process.returncode < 0:
        return f"rendering exceeded {CPU_S} s of CPU time"
    if process.returncode:
        last_line = process.stderr.strip().splitlines()[-1:] or ["no message"]
        return f"rendering failed ({last_line[0]})"
    return process.stdout
