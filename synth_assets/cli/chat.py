"""`synth chat`: a conversation with one model, which sees the turns before."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from resources.gpu_slots import command_gpu_slot
from resources.inference import Inference
from synth_assets.cli.ask import AskedModel, base_in_use, models_to_ask
from synth_assets.cli.session import Session
from synth_assets.llm.protocols import Message, Sampling, TextGenerator
from synth_assets.schemas.records import ModelRecord
from synth_assets.stages.promotion.candidates import CHAMPION

QUIT, RESET = ("/quit", "/exit", "/q"), "/reset"
COMMANDS = f"{RESET} forgets the turns, {QUIT[0]} ends the conversation."
TURNS_PER_ANSWER = 2

Read = Callable[[], str]
Say = Callable[[str], None]


@dataclass
class Conversation:
    """A conversation with a generator.

    Attributes:
        generator: the model.
        sampling: its sampling parameters.
        seed: seed of the first answer; each later answer takes the next one.
        turns: the turns so far.
    """

    generator: TextGenerator
    sampling: Sampling
    seed: int
    turns: list[Message] = field(default_factory=list)

    def answer(self, message: str) -> tuple[str, int]:
        """Return the answer to a message, and how many early turns were left out because the context is full.

        Raises:
            ValueError: the message alone does not fit into the context.
        """
        turns = [*self.turns, {"role": "user", "content": message}]
        prompt, left_out = self._encoded(turns)
        seed = self.seed + len(self.turns) // TURNS_PER_ANSWER
        text = self.generator.generate([prompt], [seed], self.sampling)[0].text
        self.turns = [*turns, {"role": "assistant", "content": text}]
        return text, left_out

    def _encoded(self, turns: Sequence[Message]) -> tuple[list[int], int]:
        """Encode the latest turns that fit into the context beside the answer."""
        room = self.generator.context_tokens - self.sampling.max_tokens
        for left_out in range(0, len(turns), TURNS_PER_ANSWER):
            prompt = self.generator.encode_chat(turns[left_out:])
            if len(prompt) <= room:
                return prompt, left_out
        raise ValueError(f"the message has {len(prompt)} tokens; the model takes {room} beside an answer. Shorten it")


def model_to_chat_with(session: Session, name: str, base: ModelRecord) -> AskedModel:
    """Return the model with a name: champion, base, or an adapter.

    Raises:
        ValueError: there is no such model, or it cannot be asked.
    """
    models = models_to_ask(session, base)
    selected = [model for model in models if (model.serves if name == CHAMPION else model.name == name)]
    if not selected:
        names = ", ".join(dict.fromkeys([CHAMPION, *(model.name for model in models)]))
        raise ValueError(f"no model {name!r}; there are {names}")
    if selected[0].problem:
        raise ValueError(f"{selected[0].title} {selected[0].problem}")
    return selected[0]


def open_conversation(session: Session, name: str, seed: int, sampling: Sampling) -> tuple[str, Conversation]:
    """Load a model; return its title and a conversation with it.

    Raises:
        ValueError: no model has been materialised, or there is no model with this name.
    """
    base = base_in_use(session)
    model = model_to_chat_with(session, name, base)
    session.limit_model_steps()
    path: Path | None = session.home / model.adapter.path if model.adapter else None
    generator = Inference(hardware=session.hardware).generator(base, path)
    room = max(generator.context_tokens // 2, 1)  # half of a short context stays free for the turns
    limited = Sampling(sampling.temperature, sampling.top_p, min(sampling.max_tokens, room))
    return model.title, Conversation(generator, limited, seed)


def chat(session: Session, conversation: Conversation, read: Read, say: Say) -> None:
    """Answer each line that `read` returns until it is a command to quit, or the input ends.

    Args:
        session: the deployment, whose GPU slot each answer takes.
        conversation: the conversation.
        read: returns the next line; raises EOFError at the end of the input.
        say: prints a text.
    """
    while True:
        try:
            message = read().strip()
        except (EOFError, KeyboardInterrupt):
            return
        if message in QUIT:
            return
        if message == RESET:
            conversation.turns = []
            say("The turns are forgotten.")
        elif message.startswith("/"):
            say(f"There is no command {message.split()[0]}. {COMMANDS}")
        elif message:
            say(_answered(session, conversation, message, say))


def _answered(session: Session, conversation: Conversation, message: str, say: Say) -> str:
    try:
        with command_gpu_slot(session.instance, "synth chat", say):
            text, left_out = conversation.answer(message)
    except ValueError as error:
        return f"Not answered: {error}"
    note = f"\n(The context is full: the first {left_out} turns were left out.)" if left_out else ""
    return f"{text}{note}"
