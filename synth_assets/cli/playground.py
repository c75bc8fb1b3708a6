"""Ask up to three models side by side and vote: the base, versions of the registered model, and the champion."""

import datetime as dt
import gc
import logging
import sys
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resources.gpu_slots import command_gpu_slot
from resources.inference import Inference
from synth_assets.cli.ask import base_in_use, restored_adapter
from synth_assets.cli.playground_votes import Vote, add_votes
from synth_assets.cli.ranges import MAX_TEMPERATURE
from synth_assets.cli.recall import version_taint
from synth_assets.cli.session import Session
from synth_assets.llm.protocols import Completion, Sampling, TextGenerator
from synth_assets.registry.model_versions import model_versions
from synth_assets.schemas.records import BASE, AdapterRecord, ModelRecord
from synth_assets.stages.promotion.candidates import CHAMPION
from synth_assets.stages.promotion.service_history import serving_version
from synth_assets.storage.lineage import LineageError

MAX_MODELS = 3  # that stay loaded
MAX_ANSWERS = 1_000  # that may be voted on
MAX_TURNS, MAX_CHARACTERS, MAX_NEW_TOKENS = 40, 100_000, 2_048
IDLE_S = 900.0  # then the models are unloaded, so that runs have the memory of the GPU
ROLES = ("system", "user", "assistant")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AskedTurns:
    """A conversation that ends with a user turn, and how to answer it.

    Raises:
        ValueError: a turn, the temperature, the number of tokens or the seed is not valid.
    """

    turns: tuple[dict[str, str], ...]
    temperature: float
    max_new_tokens: int
    seed: int

    def __post_init__(self) -> None:
        """Check turns and settings."""
        if not 1 <= len(self.turns) <= MAX_TURNS or self.turns[-1].get("role") != "user":
            raise ValueError(f"a conversation must have 1 to {MAX_TURNS} turns and end with one of the user")
        for turn in self.turns:
            if set(turn) != {"role", "content"} or turn["role"] not in ROLES or not turn["content"].strip():
                raise ValueError(f"each turn needs a role ({', '.join(ROLES)}) and a text that is not empty")
        if sum(len(turn["content"]) for turn in self.turns) > MAX_CHARACTERS:
            raise ValueError(f"a conversation must have at most {MAX_CHARACTERS:,} characters")
        if not 0 <= self.temperature <= MAX_TEMPERATURE:
            raise ValueError(f"temperature must be in [0, {MAX_TEMPERATURE:g}], got {self.temperature:g}")
        if not 1 <= self.max_new_tokens <= MAX_NEW_TOKENS:
            raise ValueError(f"max_new_tokens must be in [1, {MAX_NEW_TOKENS:,}], got {self.max_new_tokens}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be in [0, 2^31), got {self.seed}")


@dataclass(frozen=True)
class Choice:
    """A model that can be chosen: its key ("base", "champion" or the number of a version) and its title.

    `number` is the version to load; empty for the base model.
    """

    key: str
    title: str
    number: str = ""


@dataclass(frozen=True)
class Answer:
    """An answer with the model that wrote it; `id` names it in a vote."""

    id: str
    asked: AskedTurns
    title: str
    revision: str
    completion: Completion
    seconds: float


def model_choices(session: Session) -> list[Choice]:
    """Return the models that can be asked: base, champion, and every registered version, newest first."""
    tracker = session.tracker
    serving = serving_version(tracker) if tracker else ""
    versions = {version.version: version for version in model_versions(tracker)} if tracker else {}
    choices = [Choice(BASE, "base model")]
    champion = f"version {serving}" if serving else "base model"
    choices.append(Choice(CHAMPION, f"champion: {champion}", serving))
    for number, version in reversed(versions.items()):
        tainted = ", tainted" if version_taint(session, tracker, number) else ""  # pyright: ignore[reportArgumentType]
        choices.append(Choice(number, f"{version.asset} version {number}{tainted}", number))
    return choices


@dataclass
class Playground:
    """The loaded models and the answers that may be voted on. One model loads or writes at a time.

    Attributes:
        session: the deployment.
        make_generator: returns a lazily loaded generator of the base model, with the adapter in a folder if there is
            one; by default that of the deployment.
        lock: held while a model loads or writes.
    """

    session: Session
    make_generator: Callable[[ModelRecord, Path | None], TextGenerator] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    _models: OrderedDict[str, TextGenerator] = field(default_factory=OrderedDict)
    _answers: OrderedDict[str, Answer] = field(default_factory=OrderedDict)
    _idle: threading.Timer | None = None

    def ask(self, key: str, asked: AskedTurns) -> Answer:
        """Return the answer of a model; load it first if it is not loaded.

        Raises:
            ValueError: there is no such model, its files are lost, or it cannot take the conversation.
        """
        if self.session.copied_databases is not None:
            raise ValueError("SYNTH_HOME is read-only: the playground needs a writable one")
        choice = next((each for each in model_choices(self.session) if each.key == key), None)
        if choice is None:
            raise ValueError(f"there is no model {key!r}; reload the page")
        with self.lock:
            started = time.monotonic()
            revision, generator = self._generator(choice)
            sampling = Sampling(temperature=asked.temperature, top_p=1.0, max_tokens=asked.max_new_tokens)
            with command_gpu_slot(self.session.instance, "synth ui: playground", log.warning):
                prompt = generator.encode_chat(asked.turns)
                completion = generator.generate([prompt], [asked.seed], sampling)[0]
            self._restart_timer()
            answer = Answer(uuid.uuid4().hex, asked, choice.title, revision, completion, time.monotonic() - started)
            self._answers[answer.id] = answer
            while len(self._answers) > MAX_ANSWERS:
                self._answers.popitem(last=False)
        return answer

    def vote(self, chosen: str, others: Sequence[str], by: str) -> list[str]:
        """Store a pair of the chosen answer and each other one; return the row ids of the pairs.

        Raises:
            ValueError: an answer is unknown, empty, or equal to the chosen one, or answers another conversation.
        """
        best, rejected = self._answer(chosen), [self._answer(each) for each in others]
        at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        votes = [_vote(best, each, by, at) for each in rejected if _text(each) != _text(best)]
        if not votes:
            raise ValueError("a vote needs another answer with a different text")
        return add_votes(self.session.home, votes)

    def unload(self) -> None:
        """Free the memory of all models."""
        with self.lock:
            self._models.clear()
            gc.collect()
            torch: Any = sys.modules.get("torch")
            if torch is not None and torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _answer(self, answer_id: str) -> Answer:
        if answer_id not in self._answers:
            raise ValueError("this answer is not known any more: ask again, then vote")
        return self._answers[answer_id]

    def _generator(self, choice: Choice) -> tuple[str, TextGenerator]:
        """Return revision and generator of a model; the least recently used one beyond MAX_MODELS is dropped."""
        base = base_in_use(self.session)
        adapter = _adapter(self.session, base, choice.number) if choice.number else None
        revision = adapter.fingerprint if adapter else base.revision
        if revision not in self._models:
            self.session.limit_model_steps()
            while len(self._models) >= MAX_MODELS:
                self._models.popitem(last=False)
            folder = self.session.home / adapter.path if adapter else None
            make = self.make_generator or Inference(hardware=self.session.hardware).generator
            self._models[revision] = make(base, folder)
        self._models.move_to_end(revision)
        return revision, self._models[revision]

    def _restart_timer(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = threading.Timer(IDLE_S, self.unload)
        self._idle.daemon = True
        self._idle.start()


def _adapter(session: Session, base: ModelRecord, number: str) -> AdapterRecord:
    """Return the record of a version; download its files if they are missing here."""
    if session.tracker is None:
        raise ValueError("nothing was registered yet; run `synth run` first")
    try:
        return restored_adapter(session, session.tracker, base, number)
    except LineageError as error:
        raise ValueError(f"version {number} cannot be asked: {error}") from error


def _text(answer: Answer) -> str:
    return answer.completion.text.strip()


def _vote(best: Answer, other: Answer, by: str, at: str) -> Vote:
    if best.asked != other.asked:
        raise ValueError("both answers must answer the same conversation with the same settings")
    if not _text(best) or not _text(other):
        raise ValueError("an empty answer cannot be part of a preference pair")
    asked = best.asked
    return Vote(
        history=asked.turns[:-1],
        prompt=asked.turns[-1]["content"],
        chosen=_text(best),
        rejected=_text(other),
        chosen_model=best.title,
        rejected_model=other.title,
        chosen_revision=best.revision,
        rejected_revision=other.revision,
        temperature=asked.temperature,
        max_new_tokens=asked.max_new_tokens,
        seed=asked.seed,
        by=by,
        at=at,
    )
