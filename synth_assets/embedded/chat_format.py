"""Chat format of the embedded models: Llama 3 header tokens (llama.com/docs/model-cards-and-prompt-formats)."""

from collections.abc import Iterable

BEGIN_OF_TEXT = "<|begin_of_text|>"
END_OF_TEXT = "<|end_of_text|>"
START_HEADER = "<|start_header_id|>"
END_HEADER = "<|end_header_id|>"
END_OF_TURN = "<|eot_id|>"
PAD = "<|finetune_right_pad_id|>"
SPECIAL_TOKENS = (BEGIN_OF_TEXT, END_OF_TEXT, START_HEADER, END_HEADER, END_OF_TURN, PAD)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|eot_id|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|eot_id|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

Turn = tuple[str, str]


def header(role: str) -> str:
    """Return the header of a turn with this role."""
    return f"{START_HEADER}{role}{END_HEADER}\n\n"


PRE_QUERY = BEGIN_OF_TEXT + header("user")
"""Text before a user message; a chat model that continues it generates an instruction (Magpie, arXiv 2406.08464)."""


def render(turns: Iterable[Turn], *, add_generation_prompt: bool = False) -> str:
    """Render (role, content) turns like the chat template."""
    text = BEGIN_OF_TEXT + "".join(f"{header(role)}{content}{END_OF_TURN}" for role, content in turns)
    return text + header("assistant") if add_generation_prompt else text
