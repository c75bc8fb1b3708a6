"""`synth study`: variants of the LoRA efficiency study, each a run of its own; then latencies alone, and the report."""

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
from rich.console import Console

from resources.run_processes import PROCESS_TAG, close_dead_runs, this_process
from synth_assets.cli.run import execute
from synth_assets.cli.session import Session
from synth_assets.cli.watch import describe
from synth_assets.cli.workers import run_each
from synth_assets.orchestration.jobs import PRELOADED
from synth_assets.schemas.records import ModelRecord
from synth_assets.stages.efficiency.frontier import Frontier
from synth_assets.stages.efficiency.grid import RANKS, wanted_variants
from synth_assets.stages.efficiency.variants import StudySpec, Variant, study_of
from synth_assets.storage.stored_files import read_record, read_table
from synth_assets.training.specs import LoraSpec

TRIGGER = "synth study"
LAUNCH = "synth/launch"
VARIANT, LATENCIES, FRONTIER = "lora_variant", "variant_latencies", "efficiency_frontier"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What a person asked for; the fields are those of FrontierConfig."""

    full: bool
    seeds: int
    ranks: tuple[int, ...]


def request_of(full: bool, seeds: int, ranks: str) -> Request:
    """The request of the command's options; ValueError where a rank is no number, or the grid lacks it."""
    names = [name.strip() for name in ranks.split(",") if name.strip()]
    if wrong := [name for name in names if not name.isdecimal()]:
        raise ValueError(f"--ranks wants numbers such as {RANKS[0]},{RANKS[-1]}, not {wrong[0]!r}")
    request = Request(full, seeds, tuple(map(int, names)))
    wanted_variants(**asdict(request))
    return request


def study_job() -> dg.JobDefinition:
    """The job `study` of this deployment; a module-level function, so that step processes can find it."""
    from synth_assets.definitions import defs

    return defs().resolve_job_def("study")


def study_job_in_process() -> dg.JobDefinition:
    """The same job, all steps in this process."""
    from synth_assets.definitions import build_definitions, deployment_resources

    return build_definitions(deployment_resources(), dg.in_process_executor).resolve_job_def("study")


def run_study(session: Session, request: Request, console: Console, *, time_again: bool = False) -> bool:
    """Make the variants that are missing, time them, compare them; returns whether all of it worked.

    What was timed before is timed once more only with `time_again`.

    Raises:
        ValueError: what the study reads was never made; nothing was started.
        StoppedError: Ctrl-C or SIGTERM; what was made is kept.
    """
    wanted, basis = wanted_variants(**asdict(request)), basis_here(session)
    todo = [name for name in wanted if not is_made(session, name, basis)]
    known = f", {len(wanted) - len(todo)} of them made before" if len(todo) < len(wanted) else ""
    console.print(f"{len(wanted)} variants{known}")
    close_dead_runs(session.instance)
    session.limit_model_steps()
    session.tracking.initialise()
    worked = make_variants(session, todo, lambda line: console.print(line, markup=False))
    configs: dict[str, dict[str, object]] = {FRONTIER: {**asdict(request), "ranks": list(request.ranks)}}
    if time_again:
        configs[LATENCIES] = {"again": uuid.uuid4().hex}
    config = {"ops": {asset: {"config": fields} for asset, fields in configs.items()}}
    last = [dg.AssetKey(LATENCIES), dg.AssetKey(FRONTIER)]
    return execute(session, study_job, config, run_tags(session.tier_name), console, last) and worked


def study_text(session: Session) -> str:
    """The findings of the last study, and where its report is."""
    study, made = (
        session.record(FRONTIER, Frontier),
        session.instance.get_latest_materialization_event(dg.AssetKey(FRONTIER)),
    )
    if study is None or made is None or made.asset_materialization is None:
        return "no study was finished here: synth study"
    written = PurePath(str(made.asset_materialization.metadata["report"].value))
    report = session.home.joinpath(*written.parts[-3:])  # earlier versions stored the absolute path
    return "\n".join(["", *(f"- {sentence}" for sentence in study.findings), "", f"Report: {report}"])


def basis_here(session: Session) -> str:
    """The basis of a study of what is stored now; ValueError where that was never made."""
    tables = {name: session.home / "tables" / f"{name}.parquet" for name in ("sft_dataset", "benchmark_items")}
    base = session.record("base_model", ModelRecord)
    missing = [*(name for name, path in tables.items() if not path.is_file()), *([] if base else ["base_model"])]
    if missing or base is None:
        raise ValueError(f"the study reads {', '.join(missing)}, which was never made here: run `synth run` first")
    hardware = session.hardware
    specs = hardware.spec(StudySpec()), hardware.spec(LoraSpec())
    read = read_table(tables["sft_dataset"]), read_table(tables["benchmark_items"])
    return study_of(base, read, specs, hardware.limits()).basis


def stored_variant(session: Session, name: str) -> Variant | None:
    """A variant as it was made last."""
    path = session.home / "tables" / VARIANT / f"{name}.json"
    return read_record(Variant, path) if path.is_file() else None


def is_made(session: Session, name: str, basis: str) -> bool:
    """Whether a variant has numbers of this basis and its adapter is there."""
    one = stored_variant(session, name)
    return one is not None and one.measured and one.basis == basis and (session.home / one.path).is_dir()


def run_tags(tier: str) -> dict[str, str]:
    """What a run of this command is known by, the process that runs it included."""
    return {"tier": tier, "trigger": TRIGGER, PROCESS_TAG: this_process()}


def make_variants(session: Session, names: Sequence[str], tell: Tell) -> bool:
    """Run each variant in a process of its own, as many at once as the tier allows; returns whether all worked.

    Raises:
        StoppedError: Ctrl-C or SIGTERM; the processes were told, and have ended.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED if session.tier.device == "cpu" else PRELOADED[:1])
    token, started = uuid.uuid4().hex, time.monotonic()
    codes: list[int] = []

    def start(name: str) -> BaseProcess:
        process = context.Process(target=make_variant, args=(name, session.tier_name, token))
        process.start()
        return process

    def ended(name: str, code: int) -> None:
        codes.append(code)
        spent = time.monotonic() - started
        left = spent / len(codes) * (len(names) - len(codes)) / 60
        told = outcome_of(session, name) if code == 0 else f"FAILED {why_failed(session, name, token, code)}"
        tell(f"{spent:5.0f} s  {name:22} {told}; {len(codes)} of {len(names)}, about {left:.0f} min left")

    run_each(names, start, session.tier.model_steps, ended, lambda: close_dead_runs(session.instance))
    return not any(codes)


def make_variant(name: str, tier: str, token: str) -> None:
    """One variant as a run of the job `study`, in this process, which ends with 1 where the run failed."""
    for asked_to_end in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked_to_end, signal.default_int_handler)
    tags = {"dagster/partition": name, LAUNCH: token, **run_tags(tier)}
    with dg.DagsterInstance.get() as instance:
        result = dg.execute_job(
            dg.reconstructable(study_job_in_process),
            instance=instance,
            run_config=QUIET,
            tags=tags,
            asset_selection=[dg.AssetKey(VARIANT)],
        )
    sys.exit(0 if result.success else 1)


def outcome_of(session: Session, name: str) -> str:
    """What a variant gave, in a few words."""
    one = stored_variant(session, name)
    if one is None or not one.measured:
        return f"not run: {one.not_run}" if one and one.not_run else f"failed: {one.failure if one else 'not stored'}"
    numbers = one.numbers
    return f"test loss {numbers['test_loss']:.3f}, score {numbers['score']:.3f}, trained in {numbers['seconds']:.0f} s"


def why_failed(session: Session, name: str, token: str, code: int) -> str:
    """Why the run of a variant failed, as the run says it."""
    if code < 0:
        return f"its process was killed by signal {-code}"
    runs = session.instance.get_runs(dg.RunsFilter(tags={LAUNCH: token, "dagster/partition": name}), limit=1)
    events = session.instance.all_logs(runs[0].run_id, of_type=dg.DagsterEventType.STEP_FAILURE) if runs else []
    return "; ".join(filter(None, map(describe, events))) or f"its process ended with {code}"
