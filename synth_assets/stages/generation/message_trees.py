"""Flatten message trees (OpenAssistant), with one message and its parent per record, to conversations."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from synth_assets.record_files.records import Record, RecordFileError

TREE_COLUMNS = ("message_id", "parent_id", "text", "role")
TREE_OPTIONS = ("rank", "deleted")
MESSAGE_COLUMNS = ("message_id", "text", "role")
NO_PARENT, DELETED = (None, ""), (True, "True", "true")
MAX_TREE_CHARACTERS = 256_000_000  # held in memory; OASST1 has 30 million
UNRANKED = 1_000_000  # sorts after every ranked reply


def conversations(records: Iterable[Record]) -> Iterator[Record]:
    """Yield one conversation for each tree, in the order of the root messages, following the best reply.

    The best reply to a message has the lowest human `rank` (0 is the best; Köpf et al. 2023, arXiv 2304.07327); ties
    are broken by the order in the file. Deleted messages and their replies are left out. Records that could not be read
    stay faults. All messages are held in memory: OASST1 has 88,838.

    Raises:
        RecordFileError: the messages have more than MAX_TREE_CHARACTERS characters.
    """
    size = 0
    roots: list[Record] = []
    replies: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.fault or any(record.columns.get(name) is None for name in MESSAGE_COLUMNS):
            yield record if record.fault else Record(record.line, {}, "not_a_message")
            continue
        if record.columns.get("deleted") in DELETED:
            continue
        size += len(str(record.columns["text"]))
        if size > MAX_TREE_CHARACTERS:
            raise RecordFileError(
                f"the messages must fit into memory: at most {MAX_TREE_CHARACTERS:,} characters. Split the file so "
                "that each tree stays in one part"
            )
        message = record._replace(columns={name: record.columns.get(name) for name in (*TREE_COLUMNS, "rank")})
        parent = message.columns["parent_id"]
        (roots if parent in NO_PARENT else replies[str(parent)]).append(message)
    for root in roots:
        yield Record(root.line, {"messages": _best_path(root, replies)})


def _best_path(root: Record, replies: Mapping[str, list[Record]]) -> list[dict[str, Any]]:
    """Return the turns from a root to a leaf, without a last user turn that has no response."""
    path, seen = [root], {root.columns["message_id"]}
    while answers := [r for r in replies.get(str(path[-1].columns["message_id"]), []) if _key(r) not in seen]:
        path.append(min(answers, key=_rank))
        seen.add(_key(path[-1]))
    turns = [{"role": record.columns["role"], "content": record.columns["text"]} for record in path]
    return turns[:-1] if len(turns) > 1 and len(turns) % 2 else turns


def _key(record: Record) -> object:
    return record.columns["message_id"]


def _rank(record: Record) -> int:
    rank = record.columns.get("rank")
    return rank if isinstance(rank, int) else UNRANKED
