"""Resource that resolves, loads and runs language models."""

import functools
import json
import logging
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from resources.hardware import Hardware, Role
from synth_assets.evals.program_rewards import program_reward
from synth_assets.llm import loading, model_files
from synth_assets.llm.architecture import context_tokens
from synth_assets.llm.chat_encoding import template_refusal
from synth_assets.llm.chat_templates import chat_template
from synth_assets.llm.errors import read_json
from synth_assets.llm.folder_checks import check_architecture
from synth_assets.llm.loading import load_adapter
from synth_assets.llm.prompt_formats import family_of
from synth_assets.llm.protocols import Completion, Message, Refusal, Sampling, TextGenerator
from synth_assets.llm.roofline import Roofline, roofline
from synth_assets.llm.sources.home_folders import portable_location
from synth_assets.llm.sources.packages import PACKAGE
from synth_assets.llm.transformers_generator import TransformersGenerator
from synth_assets.llm.vllm_generator import VllmGenerator
from synth_assets.schemas.records import ModelRecord
from synth_assets.schemas.tier import Tier
from synth_assets.storage.blocks import BLOCK_ROWS
from synth_assets.text.token_limits import TokenLimits

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROGRAM_CONTEXT = 2**31 - 1  # a program reads texts of any length
COUNT_BLOCK = 1_000  # texts per tokenizer call


class Inference(dg.ConfigurableResource):
    """Language models of this deployment's tier."""

    hardware: Hardware

    def resolve(self, role: Role) -> ModelRecord:
        """Return the pinned model of a role; download its description, not its weights.

        Raises:
            ModelFilesError: the model is unavailable or rejected; names the remedy.
            ValueError: the tier does not fit this machine, or no prompt format fits the teacher.
        """
        self.hardware.limits()
        location = self.hardware.location(role)
        if location.startswith(model_files.PROGRAM):
            return _program(role, location)
        revision, folder = model_files.resolve(location)
        config = read_json(folder / model_files.CONFIG, location)
        shipped = location.startswith(model_files.EMBEDDED)
        if not shipped:
            check_architecture(folder, location)
        packaged = location.startswith(PACKAGE)
        is_local = not (shipped or packaged) and model_files.local_folder(location) is not None
        return ModelRecord(
            role=role,
            location=portable_location(folder) if is_local else location.partition("@")[0],
            revision=revision,
            family=_family(role, location, folder, config),
            context_tokens=context_tokens(folder, location),
        )

    def quantised(self, quantisation: str) -> "Inference":
        """Return the same models with another quantisation ("none", "int8", "nf4") than the tier's."""
        hardware = self.hardware.model_copy(update={"quantisation": quantisation})
        return self.model_copy(update={"hardware": hardware})

    def folder(self, model: ModelRecord) -> Path:
        """Return the folder of the model's weights, downloading them from the hub if needed."""
        return model_files.weights_folder(model.location, model.revision)

    def engine(self, adapter: Path | None = None) -> str:
        """Return the text generator with version and precision, such as "vllm 0.11.0 bfloat16 nf4".

        vLLM if the tier uses it, it is installed and it supports the adapter; else Transformers.
        """
        tier = self.hardware.limits()
        name = "vllm" if tier.engine == "vllm" and _vllm_supports(adapter) else "transformers"
        quantised = "" if tier.quantisation == "none" else f" {tier.quantisation}"
        return f"{name} {version(name)} {tier.dtype}{quantised}"

    def generator(self, model: ModelRecord, adapter: Path | None = None) -> "LazyGenerator":
        """Return a lazily loaded text generator for a model, optionally with the adapter in a folder."""
        return LazyGenerator(
            lambda: self.load_generator(model, adapter),
            model=_full_name(model, adapter),
            revision=model.revision,
            engine=self.engine(adapter),
        )

    def load_generator(self, model: ModelRecord, adapter: Path | None = None) -> TextGenerator:
        """Return the generator of `generator` with its weights loaded."""
        tier, name = self.hardware.limits(), _full_name(model, adapter)
        if self.engine(adapter).startswith("vllm"):
            return VllmGenerator(self.folder(model), tier, model=name, revision=model.revision, adapter=adapter)
        network, tokenizer = self.load_base(model)
        virtual_tokens = None
        if adapter is not None:
            network, virtual_tokens = loading.apply_adapter(network, adapter)
        return TransformersGenerator(
            network, tokenizer, model=name, revision=model.revision, virtual_tokens=virtual_tokens
        )

    def roofline(self, model: ModelRecord) -> Roofline:
        """Return the memory-bound limit of tokens per second for a block of rows; the weights must be downloaded."""
        folder = model_files.local_folder(model.location) or self.folder(model)
        return roofline(folder, self.hardware.limits(), BLOCK_ROWS)

    def load_base(self, model: ModelRecord) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        """Load the model in the tier's precision, and its tokenizer, for training and lm-eval."""
        tier = self._prepared()
        folder = self.folder(model)
        return loading.load_causal_model(folder, tier), loading.load_tokenizer(folder)

    def load_adapted(
        self, model: ModelRecord, adapter: Path
    ) -> "tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]":
        """Load the model with an adapter; LoRA is merged unless the weights are quantised."""
        network, tokenizer = self.load_base(model)
        attached = load_adapter(network, adapter)
        if attached.active_peft_config.peft_type != "LORA" or getattr(network, "is_quantized", False):
            return attached, tokenizer
        return attached.merge_and_unload(), tokenizer  # pyright: ignore[reportCallIssue]

    def tokenizer(self, model: ModelRecord) -> "PreTrainedTokenizerBase":
        """Load a model's tokenizer without downloading its weights."""
        self._prepared()
        return loading.load_tokenizer(self._description(model))

    def template_source(self, model: ModelRecord) -> str:
        """Return where a model's chat template comes from: its own files, or this project's default for base models."""
        folder = self._description(model)
        if chat_template(folder, model.location):
            return "the model's own"
        return "the default for the control tokens of its vocabulary (llm/chat_encoding.py)"

    def count_tokens(self, model: ModelRecord) -> Callable[[Sequence[str]], list[int]]:
        """Return a function that counts the tokens of plain texts; control tokens in them count as subwords."""
        tokenizer = self.tokenizer(model)

        def count(texts: Sequence[str]) -> list[int]:
            counts: list[int] = []
            for start in range(0, len(texts), COUNT_BLOCK):
                block = list(texts[start : start + COUNT_BLOCK])
                ids = tokenizer(block, add_special_tokens=False, split_special_tokens=True)["input_ids"]
                counts += [len(row) for row in ids]  # pyright: ignore[reportArgumentType]
            return counts

        return count

    def template_refusal(self, model: ModelRecord) -> Refusal:
        """Return a function that gives the reason why a model's chat template refuses turns, or an empty string."""
        return functools.partial(template_refusal, self.tokenizer(model))

    def token_limits(self, model: ModelRecord) -> TokenLimits:
        """Return the limits that a model to be trained sets to the texts of a row."""
        return TokenLimits(self.count_tokens(model), model.context_tokens, self.template_refusal(model))

    def _description(self, model: ModelRecord) -> Path:
        """Return the folder of a model's description, downloading it from the hub if needed."""
        folder = model_files.local_folder(model.location)
        if folder is None:
            folder = model_files.fetch(model.location, model.revision, model_files.DESCRIPTION_FILES)
        return folder

    def _prepared(self) -> Tier:
        tier = self.hardware.limits()
        loading.prepare_libraries(tier)
        return tier


class LazyGenerator:
    """A text generator that loads its weights on first use; name, revision and engine are known before.

    `writing_s` is the time spent in `generate`, without loading.
    """

    def __init__(self, load: Callable[[], TextGenerator], *, model: str, revision: str, engine: str) -> None:
        """Call `load` once, on first use."""
        self.model, self.revision, self.engine = model, revision, engine
        self.writing_s = 0.0
        self._loaded = functools.cache(load)

    @property
    def context_tokens(self) -> int:
        """Return the maximum number of tokens of a prompt and its completion."""
        return self._loaded().context_tokens

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Return token ids up to the assistant's turn."""
        return self._loaded().encode_chat(messages)

    def encode_user_turn(self, messages: Sequence[Message]) -> list[int]:
        """Return token ids up to the next user turn."""
        return self._loaded().encode_user_turn(messages)

    def encode_template(self, template: str) -> list[int]:
        """Return token ids of trusted text that may contain control tokens."""
        return self._loaded().encode_template(template)

    def generate(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        """Return one completion per prompt, in order."""
        generator = self._loaded()
        started = time.monotonic()
        completions = generator.generate(prompts, seeds, sampling)
        self.writing_s += time.monotonic() - started
        return completions


def _program(role: Role, location: str) -> ModelRecord:
    """Return the record of a reward that a program computes."""
    if role != "reward":
        raise model_files.ModelFilesError(f"{location} is a reward and cannot be the {role} model: name a model")
    reward = program_reward(location)
    return ModelRecord(role, location, reward.revision, family="program", context_tokens=PROGRAM_CONTEXT)


def _full_name(model: ModelRecord, adapter: Path | None) -> str:
    return model.name + (f"+{adapter.name}" if adapter else "")


def _vllm_supports(adapter: Path | None) -> bool:
    """Return whether vLLM is installed and supports the adapter; log a warning otherwise. It has no prompt tuning."""
    log = logging.getLogger(__name__)
    if find_spec("vllm") is None:
        log.warning("vLLM is not installed (pip install 'synth-assets[vllm]'); using Transformers, which is slower")
        return False
    if adapter is None:
        return True
    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    if config["peft_type"] != "LORA":
        log.warning("vLLM does not support %s adapters; using Transformers, which is slower", config["peft_type"])
        return False
    return True


def _family(role: Role, location: str, folder: Path, config: dict[str, Any]) -> str:
    """Return the teacher's prompt format; for other roles the architecture's name."""
    if role != "teacher":
        return str(config.get("model_type", ""))
    template = chat_template(folder, location)
    if not template:
        raise model_files.ModelFilesError(
            f"the teacher must have a chat template, {location} has none: choose an instruct "
            "model, or add its template as chat_template.jinja"
        )
    return family_of(location, template)
