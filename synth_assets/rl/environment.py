"""A suite as a Gymnasium environment: an observation is a user turn, an action is the model's reply."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.spaces import Text

from synth_assets.evals.suite import SEALED, SPLITS, Item, joined
from synth_assets.evals.suites import find_suites
from synth_assets.rl.shaping import Shaping, check_shaping, reward_terms

MAX_CHARACTERS = 16_384  # of an action; a longer reply is not in the action space
NO_SHAPING = Shaping()


class UnicodeText(Text):
    """Texts of at most `max_length` characters, of any kind. Samples have letters and digits alone."""

    def __init__(self, max_length: int) -> None:
        """Create the space; it contains the empty text."""
        super().__init__(max_length=max_length, min_length=0)

    def contains(self, x: Any) -> bool:  # noqa: ANN401 - as in Gymnasium
        """Return whether `x` is a text of the space."""
        return isinstance(x, str) and len(x) <= self.max_length


class SuiteEnvironment(gymnasium.Env[str, str]):
    """Environment of one suite: an episode is one item, with a step for each user turn of its conversation.

    User turns are fixed: the next one does not depend on the reply. The reward is 0 before the last turn; there it is
    the suite's own score of all replies plus the declared shaping, and `info` has `scores` and `reward_terms`. `info`
    always has `item_id`, `turn` and `messages`, the conversation in the form of a chat template. The observation after
    the last turn is empty. Sealed items never appear.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 - as in Gymnasium

    def __init__(
        self,
        suite: str,
        *,
        split: str | None = None,
        items: Sequence[Item] | None = None,
        folder: Path | None = None,
        shaping: Shaping = NO_SHAPING,
        render_mode: str | None = None,
    ) -> None:
        """Create the environment of a suite.

        Args:
            suite: name of a suite in which the model generates text.
            split: "validation" or "test"; by default validation, or test if the suite has no validation items.
            items: other items of the suite, such as training items, instead of those of a split.
            folder: the benchmark folder, for suites with files.
            shaping: terms of the reward beside the suite's score.
            render_mode: "ansi" or None.

        Raises:
            ValueError: unknown suite, split or metric, a suite whose answers are not generated, or sealed items.
            FileNotFoundError: a file of the suite is missing.
        """
        (self.suite,) = find_suites([suite])
        if self.suite.kind != "generation":
            raise ValueError(f"the model generates no text in {suite} (kind {self.suite.kind}): it has no environment")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be ansi or None, got {render_mode!r}")
        check_shaping(shaping, self.suite)
        self.shaping, self.render_mode = shaping, render_mode
        self.items = {item.item_id: item for item in (items or self._items_of(split, folder))}
        if any(item.split == SEALED for item in self.items.values()):
            raise ValueError("sealed items are reserved for promotion decisions")
        self.observation_space = UnicodeText(
            max(len(turn) for item in self.items.values() for turn in self.suite.turns(item))
        )
        self.action_space = UnicodeText(MAX_CHARACTERS)
        self.item: Item | None = None
        self.turns: Sequence[str] = ()
        self.replies: list[str] = []

    def _items_of(self, split: str | None, folder: Path | None) -> list[Item]:
        if split not in (None, *SPLITS):
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        items = self.suite.items(folder)
        for name in SPLITS if split is None else (split,):
            if found := [item for item in items if item.split == name]:
                return found
        raise ValueError(f"{self.suite.name} has no items of split {split or ' or '.join(SPLITS)}")

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin an episode with a random item, or with `options["item_id"]`; return its first user turn.

        Raises:
            KeyError: there is no such item.
        """
        super().reset(seed=seed)
        names = list(self.items)
        chosen = (options or {}).get("item_id") or names[int(self.np_random.integers(len(names)))]
        self.item = self.items[chosen]
        self.turns, self.replies = list(self.suite.turns(self.item)), []
        return self.turns[0], self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take the reply to the current user turn.

        Returns:
            The next user turn, the reward, whether the conversation has ended, False, and `info`.

        Raises:
            ValueError: the reply is not in the action space.
            RuntimeError: the episode has ended, or none has begun.
        """
        if self.item is None or len(self.replies) == len(self.turns):
            raise RuntimeError("call reset() before step(): no episode is in progress")
        if not self.action_space.contains(action):
            raise ValueError(f"an action must be a text of at most {MAX_CHARACTERS:,} characters")
        self.replies.append(action)
        if len(self.replies) < len(self.turns):
            return self.turns[len(self.replies)], 0.0, False, False, self._info()
        scores = self.suite.score(self.item, joined(self.replies))
        terms = reward_terms(self.suite, self.shaping, scores, self.replies)
        return "", float(sum(terms.values())), True, False, self._info() | {"scores": scores, "reward_terms": terms}

    def render(self) -> str | None:  # pyright: ignore[reportIncompatibleMethodOverride] - one frame, no list of them
        """Return the conversation so far as text in mode "ansi"."""
        if self.render_mode != "ansi":
            return None
        return "\n".join(f"{message['role']}: {message['content']}" for message in self._messages())

    def _messages(self) -> list[dict[str, str]]:
        messages = []
        for number, turn in enumerate(self.turns[: len(self.replies) + 1]):
            messages.append({"role": "user", "content": turn})
            if number < len(self.replies):
                messages.append({"role": "assistant", "content": self.replies[number]})
        return messages

    def _info(self) -> dict[str, Any]:
        item_id = self.item.item_id if self.item else ""
        return {"item_id": item_id, "turn": len(self.replies), "messages": self._messages()}
