"""`synth chat`: turns are kept, early turns make room, commands, and the choice of the model."""

from collections.abc import Sequence

import pytest

from synth_assets.cli import chat as module
from synth_assets.cli.ask import AskedModel
from synth_assets.cli.chat import Conversation, chat, model_to_chat_with
from synth_assets.cli.session import Session, open_session
from synth_assets.llm.protocols import Completion, Message, Sampling
from synth_assets.schemas.records import ModelRecord
from tests.support.fakes import Echo, silent

BASE = ModelRecord("base", "owner/base", "r", "embedded", 512)


class TurnCounter(Echo):
    """A generator that answers with the number of turns that it saw; every word is one token."""

    context_tokens = 6

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        self.messages = list(messages)
        return [len(message["content"].split()) for message in messages for _ in message["content"].split()]

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        self.seed = seeds[0]
        return [Completion(str(len(self.messages)), "stop", len(prompts[0]), 1)]


def conversation() -> Conversation:
    return Conversation(TurnCounter(), Sampling(0.7, 1.0, max_tokens=2), seed=7)


def test_the_model_sees_the_turns_before_until_the_context_is_full() -> None:
    talk = conversation()
    assert talk.answer("one") == ("1", 0)
    assert talk.answer("two") == ("3", 0)
    # five turns are five words; four fit beside an answer of two tokens, so the first two are left out
    assert talk.answer("three") == ("3", 2)
    assert [turn["role"] for turn in talk.turns] == ["user", "assistant"] * 3
    assert isinstance(talk.generator, TurnCounter)
    assert talk.generator.seed == 9


def test_a_message_that_cannot_fit_is_refused_and_forgotten() -> None:
    talk = conversation()
    with pytest.raises(ValueError, match="5 tokens; the model takes 4 beside an answer"):
        talk.answer("far too many words here")
    assert talk.turns == []


def test_commands_reset_and_end_the_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter(["hello", "", "/reset", "/help me", "far too many words here", "hello", "/quit", "never read"])
    said: list[str] = []
    chat(open_session("cpu"), conversation(), lambda: next(lines), said.append)
    assert said[0] == "1"
    assert said[1] == "The turns are forgotten."
    assert said[2].startswith("There is no command /help.")
    assert said[3].startswith("Not answered: the message has 5 tokens")
    assert said[4:] == ["1"]
    assert next(lines) == "never read"


def test_the_end_of_the_input_ends_the_conversation() -> None:
    def read() -> str:
        raise EOFError

    chat(open_session("cpu"), conversation(), read, silent)


def test_a_model_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    base, broken = AskedModel("base", None), AskedModel("x (champion)", None, "cannot be asked: lost", serves=True)
    monkeypatch.setattr(module, "models_to_ask", lambda *_: [base, broken])
    session = Session(open_session("cpu").home, "cpu")
    assert model_to_chat_with(session, "base", BASE) is base
    with pytest.raises(ValueError, match=r"x \(champion\) cannot be asked: lost"):
        model_to_chat_with(session, "champion", BASE)
    with pytest.raises(ValueError, match="no model 'lora'; there are champion, base"):
        model_to_chat_with(session, "lora", BASE)
