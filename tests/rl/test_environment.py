import json
from collections.abc import Sequence

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import synth_assets.rl
from resources.hardware import TIERS
from synth_assets.embedded import model_path
from synth_assets.evals.suite import SEALED, Item
from synth_assets.evals.suites import SUITES, agent_scenarios, instruction_following
from synth_assets.llm.loading import load_causal_model, load_tokenizer, prepare_libraries
from synth_assets.llm.protocols import Sampling
from synth_assets.llm.transformers_generator import TransformersGenerator
from synth_assets.rl.environment import MAX_CHARACTERS, SuiteEnvironment
from synth_assets.rl.registration import environment_id, environment_suites
from synth_assets.rl.rollout import run_episodes
from synth_assets.rl.shaping import Shaping

MEMORY = "agent_scenarios/memory/0"
SUITES_WITH_ITEMS = ("world_instructions", "instruction_following", "refusal_balance", "agent_scenarios")
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=24)


def play(environment: SuiteEnvironment, item_id: str, replies: Sequence[str]) -> tuple[list[float], dict]:
    """Return the rewards of an episode with fixed replies, and its last info."""
    environment.reset(options={"item_id": item_id})
    results = [environment.step(reply) for reply in replies]
    assert [result[2] for result in results] == [False] * (len(replies) - 1) + [True]
    return [result[1] for result in results], results[-1][4]


def test_the_suites_with_generated_text_are_registered() -> None:
    assert synth_assets.rl.__doc__
    assert set(SUITES_WITH_ITEMS) < set(environment_suites())
    assert not {"world_choice", "mmlu", "gsm8k"} & set(environment_suites())
    assert {environment_id(name) for name in environment_suites()} == {
        name for name in gymnasium.registry if name.startswith("synth/")
    }


@pytest.mark.parametrize("suite", SUITES_WITH_ITEMS)
def test_gymnasium_finds_no_fault(suite: str) -> None:
    check_env(gymnasium.make(environment_id(suite), render_mode="ansi").unwrapped)


def test_an_episode_is_a_conversation_with_its_reward_at_the_end() -> None:
    environment = SuiteEnvironment("agent_scenarios", render_mode="ansi")
    turns = agent_scenarios.turns(environment.items[MEMORY])
    first, info = environment.reset(options={"item_id": MEMORY})
    assert (first, info["turn"], info["messages"]) == (turns[0], 0, [{"role": "user", "content": turns[0]}])
    rewards, info = play(environment, MEMORY, ["Noted. 🙂", "Red, gold, brown.", "Walnuts."])
    assert rewards == [0.0, 0.0, 1.0]
    assert info["scores"]["solved"] == info["scores"]["memory"] == 1.0
    assert info["scores"]["plan"] is None
    assert info["reward_terms"] == {"program": 1.0}
    assert environment.render() == "\n".join(
        f"user: {turn}\nassistant: {reply}"
        for turn, reply in zip(turns, ["Noted. 🙂", "Red, gold, brown.", "Walnuts."], strict=True)
    )
    assert play(environment, MEMORY, ["Noted.", "Red.", "Hazelnuts."])[0] == [0.0, 0.0, 0.0]


def test_steps_outside_of_an_episode_and_actions_outside_of_the_space_are_refused() -> None:
    environment = SuiteEnvironment("agent_scenarios")
    with pytest.raises(RuntimeError, match=r"call reset\(\) before step"):
        environment.step("Hello.")
    play(environment, MEMORY, ["a", "b", "c"])
    with pytest.raises(RuntimeError, match=r"call reset\(\) before step"):
        environment.step("d")
    environment.reset()
    with pytest.raises(ValueError, match="at most 16,384 characters"):
        environment.step("x" * (MAX_CHARACTERS + 1))
    assert environment.render() is None


def test_the_reward_is_the_program_score_plus_the_declared_terms() -> None:
    item = Item(
        item_id="own/0",
        suite="instruction_following",
        split="train",
        kind="generation",
        prompt="Why do cats purr? Write exactly two sentences. Use no commas.",
        answer=json.dumps({"about": ["cat", "cats"], "constraints": [("sentences", 2), ("no_commas", None)]}),
        cluster="own/0",
    )
    shaping = Shaping(partial={"constraints": 0.2}, free_characters=20, length_penalty=0.5)
    environment = SuiteEnvironment("instruction_following", items=[item], shaping=shaping)
    reply = "Cats purr. They like it."  # 24 characters: 4 beyond the free ones
    rewards, info = play(environment, "own/0", [reply])
    assert info["reward_terms"] == pytest.approx({"program": 1.0, "partial:constraints": 0.2, "length": -0.02})
    assert rewards == pytest.approx([1.18])
    half = play(environment, "own/0", ["Cats purr here."])[1]["reward_terms"]
    assert half == pytest.approx({"program": 0.0, "partial:constraints": 0.1, "length": 0.0})


def test_seeds_select_items_and_splits_never_contain_sealed_ones() -> None:
    environment = SuiteEnvironment("instruction_following")
    assert {item.split for item in environment.items.values()} == {"validation"}
    drawn = [[environment.reset(seed=seed)[1]["item_id"]] for seed in (1, 2, 1)]
    following = [ids + [environment.reset()[1]["item_id"] for _ in range(5)] for ids in drawn[-1:]]
    environment.reset(seed=1)
    assert drawn[0] == drawn[2]
    assert following[0][1:] == [environment.reset()[1]["item_id"] for _ in range(5)]
    assert {item.split for item in SuiteEnvironment("agent_scenarios").items.values()} == {"test"}
    sealed = [item for item in instruction_following.items() if item.split == SEALED]
    assert sealed
    for suite in SUITES_WITH_ITEMS:
        for split in ("test", None):
            assert not any(item.split == SEALED for item in SuiteEnvironment(suite, split=split).items.values())
    with pytest.raises(ValueError, match="split must be one of validation, test, got 'sealed'"):
        SuiteEnvironment("instruction_following", split="sealed")
    with pytest.raises(ValueError, match="reserved for promotion"):
        SuiteEnvironment("instruction_following", items=sealed)


def test_suites_splits_metrics_and_modes_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown suite 'nothing'"):
        SuiteEnvironment("nothing")
    with pytest.raises(ValueError, match=r"generates no text in world_choice \(kind choice\)"):
        SuiteEnvironment("world_choice")
    with pytest.raises(ValueError, match="agent_scenarios has no items of split validation"):
        SuiteEnvironment("agent_scenarios", split="validation")
    with pytest.raises(ValueError, match="has no metric 'grace'; it has solved, plan"):
        SuiteEnvironment("agent_scenarios", shaping=Shaping(partial={"grace": 1.0}))
    with pytest.raises(ValueError, match="free_characters and length_penalty must be at least 0, got 0 and -1"):
        Shaping(length_penalty=-1.0)
    with pytest.raises(ValueError, match="render_mode must be ansi or None, got 'human'"):
        SuiteEnvironment("agent_scenarios", render_mode="human")


@pytest.mark.parametrize("suite", ["world_instructions", "agent_scenarios"])
def test_a_model_runs_in_it_and_gets_the_suites_own_scores(suite: str) -> None:
    folder = model_path("teacher")
    prepare_libraries(TIERS["cpu"])
    generator = TransformersGenerator(
        load_causal_model(folder, TIERS["cpu"]), load_tokenizer(folder), model="teacher", revision="r"
    )
    environment = SuiteEnvironment(suite)
    if suite == "agent_scenarios":
        environment.items = {name: item for name, item in environment.items.items() if "/correction/" in name}
    episodes = run_episodes(environment, generator, GREEDY, count=3, seed=7)
    assert [e.item_id for e in episodes] == [
        e.item_id for e in run_episodes(environment, generator, GREEDY, count=3, seed=7)
    ]
    for episode in episodes:
        replies = [message["content"] for message in episode.messages if message["role"] == "assistant"]
        item = environment.items[episode.item_id]
        assert len(replies) == len(SUITES[suite].turns(item))
        response = replies[0] if len(replies) == 1 else json.dumps(replies, ensure_ascii=False)
        assert episode.scores == SUITES[suite].score(item, response)
        assert episode.reward == episode.scores[SUITES[suite].metrics[0]]
    if suite == "world_instructions":
        assert any(episode.reward for episode in episodes)
