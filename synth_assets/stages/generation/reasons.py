"""Explanations and remedies for the reasons of rejected and repaired records."""

from synth_assets.record_files.records import FAULTS

TEXT = "write it as a text"
REASONS = {
    **FAULTS,
    "labelled_bad": "its label says that the answer is bad; the row stays in the stored copy of the file. "
    "To import such rows, pass --column label=",
    "label_not_boolean": "its label is neither true nor false; to ignore labels, pass --column label=",
    "weight_zero": "its weight is 0, which excludes it from training; to ignore weights, leave --column weight out",
    "weight_not_a_number": "its weight is not a number",
    "answer_weight_zero": "its last answer has weight 0 or loss false, which excludes it from training",
    "tool_turn": "it has a tool call or a tool result, which the trainers do not support: write the call as text of "
    "the assistant and the result as a user turn",
    "unknown_role": "a turn has a role other than system, developer, user, human, assistant, gpt",
    "missing_content": "a turn has no text",
    "part_not_text": "a turn has a part that is not text, such as an image",
    "not_a_conversation": "the cell is not a list of turns with role and content, or from and value",
    "cell_not_json": "the cell must have turns as valid JSON: write lists with json.dumps",
    "history_not_turns": "the history must be turns, or pairs of question and answer",
    "two_system_prompts": "the system column and the conversation have different system prompts; to ignore the "
    "column, pass --column system=",
    "prompts_differ": "chosen, rejected and prompt do not have the same turns before the answer",
    "no_answer": "the conversation does not end with an assistant turn",
    "no_instruction": "there is no user turn before the answer",
    "empty_instruction": "the instruction is empty",
    "empty_response": "the answer is empty",
    "chosen_equals_rejected": "both answers are the same",
    "not_text": f"a value is not text: {TEXT}",
    "nul_character": "a text has a NUL character",
    "invalid_unicode": "a text has bytes or escapes that are not valid Unicode: save the file as UTF-8",
    "not_a_message": "the record is not a message with message_id, parent_id, text and role",
}
"""Explanation and remedy by reason; `missing_column_<name>` needs none."""

REPAIRS = {
    "byte_order_mark": "byte order marks inside texts removed",
    "line_ends": "line ends changed to line feeds",
    "placeholder_input": "placeholders for an empty input removed",
    "human_assistant_markers": "texts with Human: and Assistant: split into turns",
    "developer_role": "developer turns read as system turns",
}


def explained(reason: str) -> str:
    """Return the explanation of a reason, with its remedy; empty if it needs none."""
    return REASONS.get(reason, "")
