"""Digest of Python code that ignores docstrings, comments, annotations, imports and module names."""

import ast
import hashlib
import json
from typing import Any

IGNORED = frozenset({"annotation", "returns", "type_comment", "type_params", "ctx", "kind"})


def code_digest(*sources: str) -> str:
    """Return the SHA-256 of the definitions in some modules.

    Moving a definition between the modules or reordering definitions does not change the digest. Changing a name, a
    constant or a message does.

    Args:
        sources: source text of each module.
    """
    dumps = [json.dumps(_plain(node)) for source in sources for node in ast.parse(source).body if not _is_ignored(node)]
    return hashlib.sha256("\n".join(sorted(dumps)).encode("utf-8", "surrogatepass")).hexdigest()


def _is_ignored(node: ast.AST) -> bool:
    """Return whether a statement is an import, a bare string, or an `if TYPE_CHECKING` block."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    string = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return string or isinstance(node, ast.Import | ast.ImportFrom)


def _plain(value: object) -> Any:  # noqa: ANN401
    """Return a syntax tree as JSON values that are the same in every Python version."""
    if isinstance(value, ast.AST):
        fields = {name: child for name, child in ast.iter_fields(value) if name not in IGNORED and child is not None}
        return [type(value).__name__, {name: _plain(child) for name, child in fields.items() if child != []}]
    if isinstance(value, list):
        return [_plain(child) for child in value if not (isinstance(child, ast.AST) and _is_ignored(child))]
    return repr(value)
