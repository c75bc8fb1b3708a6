"""Strict readers for benchmark files: errors name file, line and field.

A benchmark that is read in part, or with a value of the wrong type, silently measures something else. These readers
repair and skip nothing.
"""

import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from synth_assets.record_files.delimited import delimited_rows
from synth_assets.record_files.records import FAULTS, MAX_RECORD_BYTES, TOO_LARGE, Record, checked
from synth_assets.record_files.streams import READ_ERRORS, Lines, open_bytes

Document = dict[str, Any]
MAX_SHOWN_CHARACTERS = 80


class Located(NamedTuple):
    """A document and its location, such as "<file>, line 3"."""

    where: str
    document: Document


@dataclass(frozen=True)
class Field:
    """A field of a document.

    Attributes:
        expected: description of its values, for error messages.
        accepts: predicate on a value.
        required: whether every document must have the field.
    """

    expected: str
    accepts: Callable[[Any], bool]
    required: bool = True

    def optional(self) -> "Field":
        """Return the same field, not required."""
        return Field(self.expected, self.accepts, required=False)


def is_text(value: object) -> bool:
    """Return whether a value is text with at least one visible character."""
    return isinstance(value, str) and bool(value.strip())


def is_whole(value: object) -> bool:
    """Return whether a value is an integer; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_list_of(accepts: Callable[[Any], bool], least: int = 1) -> Callable[[Any], bool]:
    """Return a predicate: whether a value is a list of at least `least` accepted values."""
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(accepts, value))


TEXT = Field("text", is_text)
ANY_TEXT = Field("text, which may be empty", lambda value: isinstance(value, str))
TRUE_OR_FALSE = Field("true or false", lambda value: isinstance(value, bool))
WHOLE_NUMBER = Field("a whole number", is_whole)
ANYTHING = Field("any value", lambda value: True, required=False)


def jsonl_documents(path: Path) -> list[Located]:
    """Return the JSON object of each line that is not blank.

    Raises:
        ValueError: the file cannot be read, or a line is not a JSON object; names file and line.
    """
    documents = []
    try:
        with open_bytes(path) as file:
            for line in Lines(file, MAX_RECORD_BYTES):
                where = f"{path}, line {line.number}"
                if line.too_long:
                    raise ValueError(f"{where}: {FAULTS[TOO_LARGE]}")
                if line.data.strip():
                    documents.append(Located(where, _object(where, line.data)))
    except READ_ERRORS as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return documents


def csv_documents(path: Path, names: Sequence[str] | None = None) -> list[Located]:
    """Return a document for each row of a CSV file.

    Args:
        path: the file.
        names: column names of a file without a header; None: the first row is the header.

    Raises:
        ValueError: the file cannot be read, or a row is malformed; names file and line.
    """
    try:
        return [_checked_row(path, record) for record in delimited_rows(path, names)]
    except READ_ERRORS as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def check_fields(located: Located, fields: Mapping[str, Field], *, allow_unknown: bool = False) -> None:
    """Raise ValueError if a document lacks a required field or has an unknown or invalid one.

    Args:
        located: the document and its location.
        fields: the known fields.
        allow_unknown: whether to ignore unknown fields.
    """
    where, document = located
    unknown = [] if allow_unknown else [name for name in document if name not in fields]
    if unknown:
        nearest = difflib.get_close_matches(unknown[0], fields, 1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise ValueError(f"{where}, field {unknown[0]}: unknown field; {hint}expected {', '.join(fields)}")
    for name, field in fields.items():
        if name not in document:
            if field.required:
                raise ValueError(
                    f"{where}, field {name}: expected {field.expected}, got no such field; "
                    f"the fields are {', '.join(document) or 'none'}"
                )
        elif not field.accepts(document[name]):
            raise field_error(where, name, field.expected, document[name])


def check_unique(documents: Iterable[Located], name: str) -> None:
    """Raise ValueError if two documents have the same value in a field; documents without the field are skipped."""
    first: dict[str, str] = {}
    for where, document in documents:
        if name not in document:
            continue
        value = json.dumps(document[name], ensure_ascii=False, sort_keys=True)
        if value in first:
            raise ValueError(f"{where}, field {name}: expected a unique value, got {value} as in {first[value]}")
        first[value] = where


def field_error(where: str, name: str, expected: str, value: object) -> ValueError:
    """Return a ValueError for a field: location, expected against got."""
    return ValueError(f"{where}, field {name}: expected {expected}, got {shown(value)}")


def shown(value: object) -> str:
    """Return a value and its JSON type, shortened to fit a line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[: MAX_SHOWN_CHARACTERS - 3]}..."
    kinds = {str: "text", bool: "", int: "number", float: "number", list: "list", dict: "object", type(None): ""}
    kind = kinds.get(type(value), type(value).__name__)
    return f"{text} ({kind})" if kind else text


def _checked_row(path: Path, record: Record) -> Located:
    where = f"{path}, line {record.line}"
    if record.fault:
        raise ValueError(f"{where}: {FAULTS[record.fault]}")
    _refuse_other_encodings(where, record.columns)
    return Located(where, record.columns)


def _object(where: str, data: bytes) -> Document:
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique_fields, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: the bytes are not UTF-8: save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: the record is not valid JSON ({error}): is the line complete?") from error
    except RecursionError as error:
        raise ValueError(f"{where}: the record is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected an object with named fields, got {shown(value)}")
    if fault := checked(0, value).fault:
        raise ValueError(f"{where}: {FAULTS[fault]}")
    _refuse_other_encodings(where, value)
    return value


def _unique_fields(pairs: Sequence[tuple[str, Any]]) -> Document:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field {next(n for n in names if names.count(n) > 1)}: expected once in a record, got twice")
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON: expected a number")


def _refuse_other_encodings(where: str, document: Document) -> None:
    """Raise ValueError for text with a lone surrogate: the file is not UTF-8, or an escape is incomplete."""
    for name, value in document.items():
        try:
            json.dumps(value, ensure_ascii=False, default=str).encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"{where}, field {name}: expected text in UTF-8, got bytes that are not") from error
