"""Message trees (OpenAssistant): one message a record, with the message that it answers; flattened to conversations."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from synth_assets.record_files.records import Record, RecordFileError

TREE_COLUMNS = ("message_id", "parent_id", "text", "role")
TREE_OPTIONS = ("rank", "deleted")
MESSAGE_COLUMNS = ("message_id", "text", "role")
NO_PARENT, DELETED = (None, ""), (True, "True", "true")
MAX_TREE_CHARACTERS = 256_000_000  # in memory at once; OASST1 has 30 million
UNRANKED = 1_000_000  # after every reply that people ranked


def conversations(records: Iterable[Record]) -> Iterator[Record]:
    """One conversation for each tree, in the order of its first message: from there always the best reply.

    The best is the lowest `rank` that people gave among the replies to a message (0 is the best; Köpf et al. 2023,
    arXiv 2304.07327), the first in the file among equals. Deleted messages and what hangs on them are left out. Records
    that could not be read stay faults. All messages are held in memory: OASST1 has 88,838.

    Raises:
        RecordFileError: the messages hold more than MAX_TREE_CHARACTERS.
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
                f"its messages hold more than {MAX_TREE_CHARACTERS:,} characters, which are held in memory: divide the "
                "file so that each tree stays whole"
            )
        message = record._replace(columns={name: record.columns.get(name) for name in (*TREE_COLUMNS, "rank")})
        parent = message.columns["parent_id"]
        (roots if parent in NO_PARENT else replies[str(parent)]).append(message)
    for root in roots:
        yield Record(root.line, {"messages": _best_path(root, replies)})


def _best_path(root: Record, replies: Mapping[str, list[Record]]) -> list[dict[str, Any]]:
    """The turns from a root to where nobody answered, without a last turn of the user's that has no answer."""
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
