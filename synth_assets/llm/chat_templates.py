"""The chat templates in a model's folder, and a bounded trial of each before the model is used."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from synth_assets.llm.errors import ModelFilesError, read_json

FILE = "chat_template.jinja"
MORE = "additional_chat_templates"
PROBE = Path(__file__).with_name("chat_template_probe.py")
CPU_S = 5  # a template of a published model takes milliseconds
WALL_S = 60.0
MEMORY_BYTES = 2**28  # a rendered chat takes less than a thousandth of it
BOUNDED = """
import contextlib, resource, runpy, sys
resource.setrlimit(resource.RLIMIT_CPU, ({cpu}, {cpu}))
with contextlib.suppress(ValueError, OSError):  # macOS has no limit of this kind
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
runpy.run_path({program!r}, run_name="__main__")
"""


def chat_template(folder: Path, location: str) -> str:
    """Return the template that chats are written with; empty where the folder has none."""
    templates = _templates(folder, location)
    return next((text for name, text in templates.items() if name != MORE), "")


def check_chat_templates(folder: Path, location: str) -> None:
    """Refuse a template that does not end within CPU_S seconds, takes MEMORY_BYTES, or is no template.

    Raises:
        ModelFilesError: names the file and what happened.
    """
    tokens = _tokens(folder, location)
    for file, template in _templates(folder, location).items():
        if reason := _trial(template, tokens):
            raise ModelFilesError(
                f"{location}: the chat template in {file} cannot be used: {reason}. Correct the file, or choose "
                "another model"
            )


def _templates(folder: Path, location: str) -> dict[str, str]:
    """File (and name in it) -> template, the default one first."""
    found: dict[str, str] = {}
    if (folder / FILE).is_file():
        found[FILE] = _text(folder / FILE, location)
    settings = folder / "tokenizer_config.json"
    own = read_json(settings, location).get("chat_template") if settings.is_file() else None
    if isinstance(own, str):
        found[settings.name] = own
    elif isinstance(own, list):  # [{"name": "default", "template": ...}, ...]
        named = {str(e.get("name")): e["template"] for e in own if isinstance(e, dict) and "template" in e}
        ordered = sorted(named, key=lambda name: name != "default")
        found |= {f"{settings.name} ({name})": str(named[name]) for name in ordered}
    elif own is not None:
        raise ModelFilesError(f"{location}: {settings.name}: chat_template must be a text, got {type(own).__name__}")
    for path in sorted((folder / MORE).glob("*.jinja")):
        found[f"{MORE}/{path.name}"] = _text(path, location)
    return found


def _text(path: Path, location: str) -> str:
    try:
        return path.read_text("utf-8")
    except ValueError as error:
        raise ModelFilesError(f"{location}: {path.name} is not UTF-8 text ({error})") from error


def _tokens(folder: Path, location: str) -> dict[str, Any]:
    """The texts that templates take from the tokenizer: `bos_token` and the like."""
    settings = folder / "tokenizer_config.json"
    if not settings.is_file():
        return {}
    named = read_json(settings, location).items()
    contents = {k: v.get("content") if isinstance(v, dict) else v for k, v in named if k.endswith("_token")}
    return {name: text for name, text in contents.items() if isinstance(text, str)}


def _trial(template: str, tokens: dict[str, Any]) -> str:
    """What is wrong with a template when a process with limits renders it; empty where nothing is."""
    program = BOUNDED.format(cpu=CPU_S, program=str(PROBE))
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", program, str(MEMORY_BYTES)],
            input=json.dumps({"template": template, "tokens": tokens}),
            capture_output=True,
            text=True,
            timeout=WALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {WALL_S:.0f} s"
    if done.returncode < 0:
        return f"it did not end within {CPU_S} s of a processor's time"
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        return f"its trial failed ({last[0]})"
    return done.stdout
