"""`synth doctor`: check the machine, the models and the set-up before a run."""

import os
import platform
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
from synth_assets.storage.disk import free_bytes
from synth_assets.storage.read_only import check_databases, unwritable
from synth_assets.text.redaction import redact, server_of

MIN_FREE_GB = 5.0
GIB = 2**30


def run_diagnostics(tier: str | None, console: Console) -> bool:
    """Print a line per check; return True if all passed."""
    if tier is not None:
        os.environ["SYNTH_TIER"] = tier
    hardware = deployed(os.environ.get("SYNTH_TIER", "auto"))
    diagnostics: list[tuple[str, Callable[[], str]]] = [
        ("machine", _machine),
        ("tier", lambda: _tier(hardware)),
        ("models", lambda: "; ".join(_model(hardware, role) for role in ("teacher", "base", "reward"))),
        ("catalog", lambda: chosen_text(hardware)),
        ("pre-query", lambda: _pre_query(hardware)),
        ("hub token", _token),
        ("tracking", _tracking),
        ("webhook", _webhook),
        ("state", _state),
        ("disk", _disk),
    ]
    passed = True
    for name, check in diagnostics:
        try:
            text, status = check(), "ok  "
        except (ValueError, OSError, RuntimeError) as error:
            text, status, passed = " ".join(str(error).split()), "FAIL", False
        console.print(f"{status} {name:14} {text}", markup=False)
    return passed


def _machine() -> str:
    memory = psutil.virtual_memory().total / GIB
    python = f"Python {platform.python_version()}"
    return f"{platform.system()} {platform.machine()}, {python}, {os.cpu_count()} cores, {memory:.0f} GB"


def _tier(hardware: Hardware) -> str:
    return f"{hardware.name()}: {hardware.limits().tested or 'untested'}"


def _model(hardware: Hardware, role: Role) -> str:
    record = Inference(hardware=hardware).resolve(role)
    return f"{role} {record.location} at {record.revision}, size {hardware.size(role).text()}"


def _pre_query(hardware: Hardware) -> str:
    """Compare the chat format in the table FAMILIES with the chat template of the teacher's tokenizer."""
    inference = Inference(hardware=hardware)
    record = inference.resolve("teacher")
    template = check_template(record.family, inference.tokenizer(record))
    if not template.fits:
        missing = f"; its vocabulary lacks {', '.join(template.missing_stops)}" if template.missing_stops else ""
        raise ValueError(
            f"the pre-query text of {record.family} must be that of the chat template, {template.derived!r}, got "
            f"{family(record.family).pre_query!r}{missing}. Correct the row in synth_assets/llm/prompt_formats.py"
        )
    verified = family(record.family).compared_with or "no published tokenizer"
    return f"{record.family}: matches the chat template of the tokenizer; verified before with {verified}"


def _token() -> str:
    if os.environ.get("HF_TOKEN"):
        return "HF_TOKEN is set"
    return "not set; Llama models need HF_TOKEN and an accepted licence, SYNTH_PRESET=qwen needs neither"


def _tracking() -> str:
    home = SynthHome(folder=str(home_folder()))
    return redact(MlflowTracking(home=home, tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", "")).uri())


def _webhook() -> str:
    """Return the server of the webhook; its path may be a secret."""
    url = os.environ.get(VARIABLE, "")
    if not url:
        return f"not set; set {VARIABLE} to receive notices of failures and decisions"
    Webhook(url=url).check()
    return server_of(url)


def _state() -> str:
    """Check that SYNTH_HOME is writable and its databases are intact."""
    home = home_folder()
    if home.is_dir() and (path := unwritable(home)) not in (None, home):
        raise OSError(f"{path} is not writable; change its permissions or set SYNTH_HOME to a writable folder")
    root = SynthHome(folder=str(home)).root()
    check_databases(root)
    return str(root)


def _disk() -> str:
    home = home_folder()
    free = free_bytes(home) / GIB
    if free < MIN_FREE_GB:
        raise OSError(
            f"at least {MIN_FREE_GB:.0f} GB must be free at {home}, got {free:.1f}; free some space or move SYNTH_HOME"
        )
    return f"{free:.0f} GB free"
