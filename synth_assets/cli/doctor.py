"""`synth doctor`: what would fail, found before a run fails on it."""

import os
import platform
import shutil
from collections.abc import Callable

import psutil
from rich.console import Console

from resources.deployment import home_folder
from resources.hardware import Hardware, Role, deployed
from resources.inference import Inference
from resources.storage import SynthHome
from resources.tracking import MlflowTracking
from resources.webhook import VARIABLE, Webhook
from synth_assets.cli.models import chosen_text
from synth_assets.llm.prompt_formats import check_template, family
from synth_assets.storage.read_only import check_databases, unwritable
from synth_assets.text.redaction import redact, server_of

WANTED_FREE_GB = 5.0
GIB = 2**30


def run_diagnostics(tier: str | None, console: Console) -> bool:
    """Print a line per examination; returns whether all passed."""
    if tier is not None:
        os.environ["SYNTH_TIER"] = tier
    hardware = deployed(os.environ.get("SYNTH_TIER", "auto"))
    examinations: list[tuple[str, Callable[[], str]]] = [
        ("machine", _machine),
        ("tier", lambda: _tier(hardware)),
        ("models", lambda: "; ".join(_model(hardware, role) for role in ("teacher", "base", "reward"))),
        ("known models", lambda: chosen_text(hardware)),
        ("pre-query", lambda: _pre_query(hardware)),
        ("hub token", _token),
        ("tracking", _tracking),
        ("webhook", _webhook),
        ("state", _state),
        ("disk", _disk),
    ]
    passed = True
    for name, look in examinations:
        try:
            found, sign = look(), "ok  "
        except (ValueError, OSError, RuntimeError) as error:
            found, sign, passed = " ".join(str(error).split()), "FAIL", False
        console.print(f"{sign} {name:14} {found}", markup=False)
    return passed


def _machine() -> str:
    memory = psutil.virtual_memory().total / GIB
    python = f"Python {platform.python_version()}"
    return f"{platform.system()} {platform.machine()}, {python}, {os.cpu_count()} cores, {memory:.0f} GB"


def _tier(hardware: Hardware) -> str:
    return f"{hardware.name()}: {hardware.limits().tested or 'nobody has run this tier yet'}"


def _model(hardware: Hardware, role: Role) -> str:
    record = Inference(hardware=hardware).resolve(role)
    return f"{role} {record.location} at {record.revision}, size {hardware.size(role).text()}"


def _pre_query(hardware: Hardware) -> str:
    """The teacher's row of FAMILIES beside its own tokenizer."""
    inference = Inference(hardware=hardware)
    record = inference.resolve("teacher")
    found = check_template(record.family, inference.tokenizer(record))
    if not found.fits:
        missing = f"; it has no {', '.join(found.missing_stops)}" if found.missing_stops else ""
        raise ValueError(
            f"the row {record.family} opens a user's turn with {family(record.family).pre_query!r}, the tokenizer with "
            f"{found.derived!r}{missing}: correct the row in synth_assets/llm/prompt_formats.py"
        )
    before = family(record.family).compared_with or "no real tokenizer before this one"
    return f"{record.family}: as the tokenizer's own chat template; the row was compared with {before}"


def _token() -> str:
    if os.environ.get("HF_TOKEN"):
        return "HF_TOKEN is set"
    return "none; Llama models need HF_TOKEN and their licence accepted on the hub, SYNTH_PRESET=qwen needs neither"


def _tracking() -> str:
    home = SynthHome(folder=str(home_folder()))
    return redact(MlflowTracking(home=home, tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", "")).uri())


def _webhook() -> str:
    """The server alone: the path of a webhook's address is a secret too."""
    url = os.environ.get(VARIABLE, "")
    if not url:
        return f"none; {VARIABLE} names one for notices of failures and decisions"
    Webhook(url=url).check()
    return server_of(url)


def _state() -> str:
    """The home, writable, with databases that are whole."""
    home = home_folder()
    if home.is_dir() and (path := unwritable(home)) not in (None, home):
        raise OSError(f"{path} cannot be written: make it writable, or set SYNTH_HOME to a folder that is")
    root = SynthHome(folder=str(home)).root()
    check_databases(root)
    return str(root)


def _disk() -> str:
    home = home_folder()
    free = shutil.disk_usage(home if home.exists() else home.parent).free / GIB
    if free < WANTED_FREE_GB:
        raise OSError(
            f"{free:.1f} GB free at {home}, {WANTED_FREE_GB:.0f} wanted: free some, or set SYNTH_HOME elsewhere"
        )
    return f"{free:.0f} GB free"
