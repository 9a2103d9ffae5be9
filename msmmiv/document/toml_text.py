"""Writing TOML: values and tables as text that reads back as what it was."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from msmmiv.document.problems import StudyFileError

__all__ = ["toml_key", "toml_text", "toml_value"]

#: Invisible letters that words need; other invisible ones are spelt out.
_JOINERS = "\u200c\u200d"
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def toml_value(value: Any, *, lines: bool = False) -> str:
    r"""One value; with ``lines`` a text of several lines stays on several lines.

    Raises
    ------
    StudyFileError
        What TOML has no form for: a lone half of a character, a number that is none, another type.

    Examples
    --------
    >>> print(toml_value(["a \"b\"", 1, True, 0.5]))
    ["a \"b\"", 1, true, 0.5]
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value, lines=lines)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    if isinstance(value, Sequence):
        return f"[{', '.join(toml_value(v) for v in value)}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{toml_key(k)} = {toml_value(v)}' for k, v in value.items())} }}"
    raise StudyFileError(f"{value!r} has no place in a study file.")


def toml_key(name: str) -> str:
    """A key, in quotes where it needs them.

    >>> toml_key("file"), toml_key("vii.a")
    ('file', '"vii.a"')
    """
    return name if _BARE.fullmatch(name) else _text(name, lines=False)


def toml_text(tables: Mapping[str, Any]) -> str:
    """A document of tables, and of lists of tables, in their order.

    Examples
    --------
    >>> print(toml_text({"study": {"format": 1}, "compare": [{"estimator": "ols"}]}), end="")
    [study]
    format = 1
    <BLANKLINE>
    [[compare]]
    estimator = "ols"
    """
    parts = []
    for name, table in tables.items():
        every = [table] if isinstance(table, Mapping) else table
        head = f"[{name}]" if isinstance(table, Mapping) else f"[[{name}]]"
        parts += ["\n".join([head, *(f"{toml_key(k)} = {toml_value(v, lines=True)}" for k, v in t.items())])
                  for t in every]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _text(text: str, *, lines: bool) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise StudyFileError(f"{text!r} holds half a character, which no file can.") from error
    if not (lines and "\n" in text):
        return f'"{"".join(_escaped(c) for c in text)}"'
    # The newline after the opening marks is not part of the text.
    return '"""\n' + "".join(c if c == "\n" else _escaped(c) for c in text) + '"""'


def _escaped(letter: str) -> str:
    if letter in _SHORT:
        return _SHORT[letter]
    kind = unicodedata.category(letter)
    if kind not in {"Cc", "Cf", "Zl", "Zp"} or letter in _JOINERS:
        return letter
    return f"\\u{ord(letter):04x}" if ord(letter) <= 0xFFFF else f"\\U{ord(letter):08x}"
