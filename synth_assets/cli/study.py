"""`synth study`: run the variants of the LoRA efficiency study in parallel, then measure latencies and report."""

import multiprocessing
import signal
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.process import BaseProcess
from pathlib import PurePath

import dagster as dg

from resources.run_processes import PROCESS_TAG, close_dead_runs, this_process
from synth_assets.cli.execution import JobRun, execute
from synth_assets.cli.session import Session
from synth_assets.cli.terminal import RedactingConsole
from synth_assets.cli.watch import describe
from synth_assets.cli.workers import run_each
from synth_assets.orchestration.jobs import PRELOADED
from synth_assets.schemas.records import ModelRecord
from synth_assets.stages.efficiency.frontier import Frontier
from synth_assets.stages.efficiency.grid import RANKS, wanted_variants
from synth_assets.stages.efficiency.variants import Variant, study_of, study_specs
from synth_assets.storage.stored_files import read_record, read_table

TRIGGER = "synth study"
LAUNCH = "synth/launch"
VARIANT, LATENCIES, FRONTIER = "lora_variant", "variant_latencies", "efficiency_frontier"
QUIET_LOGGERS = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

Report = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """Options of the command. The fields are those of FrontierConfig."""

    full: bool
    seeds: int
    ranks: tuple[int, ...]


def request_of(full: bool, seeds: int, ranks: str) -> Request:
    """Parse the options of the command. Raises ValueError for a rank that is not a number or not in the grid."""
    names = [name.strip() for name in ranks.split(",") if name.strip()]
    if invalid := [name for name in names if not name.isdecimal()]:
        raise ValueError(f"--ranks must be numbers such as {RANKS[0]},{RANKS[-1]}, got {invalid[0]!r}")
    request = Request(full, seeds, tuple(map(int, names)))
    wanted_variants(**asdict(request))
    return request


def study_job() -> dg.JobDefinition:
    """Return the job `study` of this deployment. Step processes import this function by name."""
    from synth_assets.definitions import defs

    return defs().resolve_job_def("study")


def study_job_in_process() -> dg.JobDefinition:
    """Return the job `study` with all steps in this process."""
    from synth_assets.definitions import build_definitions, deployment_resources

    return build_definitions(deployment_resources(), dg.in_process_executor).resolve_job_def("study")


def run_study(session: Session, request: Request, console: RedactingConsole, *, time_again: bool = False) -> bool:
    """Train the missing variants, measure their latencies and compare them; return True if everything succeeded.

    Existing latencies are measured again only with `time_again`.

    Raises:
        ValueError: an input of the study was never materialised; nothing was started.
        StoppedError: Ctrl-C or SIGTERM; finished variants are kept.
    """
    names, basis = wanted_variants(**asdict(request)), current_basis(session)
    missing = [name for name in names if not is_complete(session, name, basis)]
    cached = f", {len(names) - len(missing)} of them cached" if len(missing) < len(names) else ""
    console.print(f"{len(names)} variants{cached}")
    close_dead_runs(session.instance)
    session.limit_model_steps()
    session.tracking.initialise()
    succeeded = run_variants(session, missing, lambda line: console.print(line, markup=False))
    configs: dict[str, dict[str, object]] = {FRONTIER: {**asdict(request), "ranks": list(request.ranks)}}
    if time_again:
        configs[LATENCIES] = {"again": uuid.uuid4().hex}
    config = {"ops": {asset: {"config": fields} for asset, fields in configs.items()}}
    assets = [dg.AssetKey(LATENCIES), dg.AssetKey(FRONTIER)]
    return execute(session, JobRun(study_job, config, run_tags(session.tier_name), assets), console) and succeeded


def study_text(session: Session) -> str:
    """Return the findings of the last study and the path of its report."""
    study, event = (
        session.record(FRONTIER, Frontier),
        session.instance.get_latest_materialization_event(dg.AssetKey(FRONTIER)),
    )
    if study is None or event is None or event.asset_materialization is None:
        return "no study has finished yet: synth study"
    stored = PurePath(str(event.asset_materialization.metadata["report"].value))
    report = session.home.joinpath(*stored.parts[-3:])  # earlier versions stored a path
    return "\n".join(["", *(f"- {sentence}" for sentence in study.findings), "", f"Report: {report}"])


def current_basis(session: Session) -> str:
    """Return the basis of a study of the stored inputs. Raises ValueError if one was never materialised."""
    tables = {name: session.home / "tables" / f"{name}.parquet" for name in ("sft_dataset", "benchmark_items")}
    base = session.record("base_model", ModelRecord)
    missing = [*(name for name, path in tables.items() if not path.is_file()), *([] if base else ["base_model"])]
    if missing or base is None:
        raise ValueError(f"the study needs {', '.join(missing)}, which were never materialised; run `synth run` first")
    hardware = session.hardware
    inputs = read_table(tables["sft_dataset"]), read_table(tables["benchmark_items"])
    return study_of(base, inputs, study_specs(hardware.spec), hardware.limits()).basis


def stored_variant(session: Session, name: str) -> Variant | None:
    """Return the stored record of a variant, None if there is none."""
    path = session.home / "tables" / VARIANT / f"{name}.json"
    return read_record(Variant, path) if path.is_file() else None


def is_complete(session: Session, name: str, basis: str) -> bool:
    """Return True if a variant has measurements for this basis and its adapter exists."""
    variant = stored_variant(session, name)
    if variant is None or not variant.measured or variant.basis != basis:
        return False
    return (session.home / variant.path).is_dir()


def run_tags(tier: str) -> dict[str, str]:
    """Return the tags of a run: tier, trigger and process."""
    return {"tier": tier, "trigger": TRIGGER, PROCESS_TAG: this_process()}


def run_variants(session: Session, names: Sequence[str], report: Report) -> bool:
    """Run each variant in its own process, as many at once as the tier allows; return True if all succeeded.

    Raises:
        StoppedError: Ctrl-C or SIGTERM; the processes were interrupted and have exited.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED if session.tier.device == "cpu" else PRELOADED[:1])
    token, started = uuid.uuid4().hex, time.monotonic()
    codes: list[int] = []

    def start(name: str) -> BaseProcess:
        process = context.Process(target=run_variant, args=(name, session.tier_name, token))
        process.start()
        return process

    def finish(name: str, code: int) -> None:
        codes.append(code)
        elapsed = time.monotonic() - started
        minutes = elapsed / len(codes) * (len(names) - len(codes)) / 60
        outcome = outcome_of(session, name) if code == 0 else f"FAILED {failure_reason(session, name, token, code)}"
        report(f"{elapsed:5.0f} s  {name:22} {outcome}; {len(codes)} of {len(names)}, about {minutes:.0f} min left")

    run_each(names, start, session.tier.model_steps, finish, lambda: close_dead_runs(session.instance))
    return not any(codes)


def run_variant(name: str, tier: str, token: str) -> None:
    """Run one variant of the job `study` in this process, and exit with 1 if the run fails."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    tags = {"dagster/partition": name, LAUNCH: token, **run_tags(tier)}
    with dg.DagsterInstance.get() as instance:
        result = dg.execute_job(
            dg.reconstructable(study_job_in_process),
            instance=instance,
            run_config=QUIET_LOGGERS,
            tags=tags,
            asset_selection=[dg.AssetKey(VARIANT)],
        )
    sys.exit(0 if result.success else 1)


def outcome_of(session: Session, name: str) -> str:
    """Summarise the result of a variant."""
    variant = stored_variant(session, name)
    if variant is None:
        return "failed: not stored"
    if not variant.measured:
        return f"not run: {variant.not_run}" if variant.not_run else f"failed: {variant.failure}"
    numbers = variant.numbers
    return f"test loss {numbers['test_loss']:.3f}, score {numbers['score']:.3f}, trained in {numbers['seconds']:.0f} s"


def failure_reason(session: Session, name: str, token: str, code: int) -> str:
    """Return the reason why the run of a variant failed, from its event log."""
    if code < 0:
        return f"the process was killed by signal {-code}"
    runs = session.instance.get_runs(dg.RunsFilter(tags={LAUNCH: token, "dagster/partition": name}), limit=1)
    events = session.instance.all_logs(runs[0].run_id, of_type=dg.DagsterEventType.STEP_FAILURE) if runs else []
    return "; ".join(filter(None, map(describe, events))) or f"the process exited with code {code}"
