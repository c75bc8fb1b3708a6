"""Hash of what code does: without docstrings, comments, annotations and imports, whatever its modules are called."""

import ast
import hashlib
import json
from typing import Any

IGNORED = frozenset({"annotation", "returns", "type_comment", "type_params", "ctx", "kind"})


def code_digest(*sources: str) -> str:
    """Return the SHA-256 of the definitions in some modules.

    A definition that moves from one of the modules to another, or comes in another order, changes nothing. A changed
    name, constant or message does.

    Args:
        sources: the text of each module.
    """
    dumps = [
        json.dumps(_plain(node)) for source in sources for node in ast.parse(source).body if not _says_nothing(node)
    ]
    return hashlib.sha256("\n".join(sorted(dumps)).encode("utf-8", "surrogatepass")).hexdigest()


def _says_nothing(node: ast.AST) -> bool:
    """Whether a statement is an import or a string of its own, or a block of imports for the type checker."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    string = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return string or isinstance(node, ast.Import | ast.ImportFrom)


def _plain(value: object) -> Any:  # noqa: ANN401
    """Return a syntax tree as JSON values that are the same in every version of Python."""
    if isinstance(value, ast.AST):
        fields = {name: child for name, child in ast.iter_fields(value) if name not in IGNORED and child is not None}
        return [type(value).__name__, {name: _plain(child) for name, child in fields.items() if child != []}]
    if isinstance(value, list):
        return [_plain(child) for child in value if not (isinstance(child, ast.AST) and _says_nothing(child))]
    return repr(value)
