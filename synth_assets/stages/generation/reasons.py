"""Why an imported record is rejected or changed, in words, and what to do about it."""

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
    "tool_turn": "it calls a tool or holds a tool's result, which no trainer here takes: write the call as text of "
    "the assistant and the result as a turn of the user",
    "unknown_role": "a turn has a role other than system, developer, user, human, assistant, gpt",
    "missing_content": "a turn has no text",
    "part_not_text": "a turn has a part that is no text, such as an image",
    "not_a_conversation": "the cell does not hold a list of turns with role and content, or from and value",
    "cell_not_json": "the cell should hold turns and is not valid JSON: write lists with json.dumps",
    "history_not_turns": "the history is neither pairs of question and answer nor turns",
    "two_system_prompts": "the system column and the conversation have different system prompts; to ignore the "
    "column, pass --column system=",
    "prompts_differ": "chosen, rejected and prompt do not have the same turns before the answer",
    "no_answer": "the conversation does not end with a turn of the assistant",
    "no_instruction": "no turn of the user comes before the answer",
    "empty_instruction": "the instruction is empty",
    "empty_response": "the answer is empty",
    "chosen_equals_rejected": "both answers are the same",
    "not_text": f"a text is expected and something else was found: {TEXT}",
    "nul_character": "a text holds a NUL character",
    "invalid_unicode": "a text holds bytes or escapes that are no Unicode: save the file as UTF-8",
    "not_a_message": "the record is not a message with message_id, parent_id, text and role",
}
"""Reason -> what it means and what to do; `missing_column_<name>` explains itself."""

REPAIRS = {
    "byte_order_mark": "byte order marks inside texts removed",
    "line_ends": "line ends changed to line feeds",
    "placeholder_input": "an input that only says that there is none left out",
    "human_assistant_markers": "texts with Human: and Assistant: split into turns",
    "developer_role": "turns of a developer read as system turns",
}


def explained(reason: str) -> str:
    """Return what a reason means, with the remedy; an empty text for one that explains itself."""
    return REASONS.get(reason, "")
