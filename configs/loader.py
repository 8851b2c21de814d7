"""YAML into frozen dataclasses, strictly: an unknown key, a wrong type or a value out of range stops the run.

Every message names the key's path, what is allowed and, for a misspelt key, what was probably meant.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from cache.files.place import refuse_address
from cache.names import nearest

T = TypeVar("T")
FOLDER = Path(__file__).parent
STRICT = ConfigDict(strict=True, extra="forbid")
# YAML 1.2 and every researcher take 1e-4 for a number; PyYAML, which follows 1.1, takes it for text.
SCIENTIFIC = re.compile(r"[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+$")


# What an override begins with that is more than one plain value.
BEGIN_YAML = ("[", "{", '"', "'", "|", ">", "&", "*", "!")


class _Loader(yaml.SafeLoader):
    """Knows 1e-4, and refuses a key that stands twice: of two values the reader would see the wrong one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for number, key in enumerate(keys) if key in keys[:number]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"key {twice!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that `_Loader` would take for a number."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", SCIENTIFIC, list("-+0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", SCIENTIFIC, list("-+0123456789"))


def load_config(kind: type[T], path: Path, overrides: Sequence[str] = ()) -> T:
    """Read one YAML file, apply `a.b=value` overrides (values parsed as YAML), check everything.

    Raises:
        ValueError: one line naming the key and what is allowed.
    """
    if not path.is_file():
        raise ValueError(f"no configuration file {path}; shipped ones: {_shipped()}")
    text = path.read_text(encoding="utf-8", errors="replace")
    tree = _parse_yaml(text, str(path))
    _refuse_doubtful_comments(text, str(path))
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ValueError(f"{path} must hold keys and values, not a {type(tree).__name__}")
    for override in overrides:
        _override(tree, override)
    return check(kind, tree, str(path))


def check(kind: type[T], tree: dict[str, Any], where: str) -> T:
    """Turn plain YAML values into the dataclass `kind`, or raise one clear line."""
    try:
        text = json.dumps(tree)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}; quote the value if it is text") from error
    _refuse_addresses(json.loads(text))
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        # Unions report every alternative; the first line is enough to act on.
        raise ValueError(f"{where}: {_message(kind, error)}") from error


def _refuse_addresses(tree: Any, key: str = "") -> None:
    """Refuse `s3://...` wherever a path may stand: a folder of that name would be made, or missed, without a word."""
    if isinstance(tree, str) and not key.endswith(("_url", "remote")):
        refuse_address(tree, key)
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        _refuse_addresses(value, f"{key}.{name}" if key else str(name))


def plain_values(config: Any) -> dict[str, Any]:
    """The resolved configuration as YAML and JSON can hold it: what was parsed is text again."""
    plain: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return plain


def dump_config(config: Any) -> str:
    """The resolved configuration as YAML, loadable again by `load_config`."""
    return yaml.dump(plain_values(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _shipped() -> str:
    return ", ".join(
        sorted(f"configs/{p.relative_to(FOLDER)}" for p in FOLDER.rglob("*.yaml") if p.parent.name != "splits")
    )


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error


def _override(tree: dict[str, Any], override: str) -> None:
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise ValueError(f"override {override!r} must look like key=value or a.b=value")
    *parents, last = path.split(".")
    node = tree
    for parent in parents:
        child = node.get(parent)
        if not isinstance(child, dict):
            child = node[parent] = {}
        node = child
    node[last] = _override_value(value, f"override {override!r}")


def _override_value(text: str, where: str) -> Any:
    """A list, a mapping or quoted text as in YAML, anything else as it stands: ` #` and `: ` may be part of a path."""
    text = text.strip()
    if text[:1] in BEGIN_YAML:
        return _parse_yaml(text, where)
    try:
        loader: Any = _Loader("")
        return loader.construct_object(yaml.ScalarNode(loader.resolve(yaml.ScalarNode, text, (True, False)), text))
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{where}: {' '.join(str(error).split())}") from error


def _refuse_doubtful_comments(text: str, where: str) -> None:
    """YAML cuts `data/RAVDESS #2/metadata.csv` at the `#`: another folder would be read without a word."""
    lines = text.splitlines()
    for token in yaml.scan(text, yaml.SafeLoader):
        if isinstance(token, yaml.ScalarToken) and token.plain:
            behind = lines[token.end_mark.line][token.end_mark.column :].lstrip() if lines else ""
            if behind[:1] == "#" and behind[1:2].strip(" #"):
                raise ValueError(
                    f"{where} line {token.end_mark.line + 1}: YAML reads only {token.value!r}; if {behind!r} belongs to"
                    ' the value, quote all of it ("..."), else put a space behind the #'
                )


def _message(kind: type[Any], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    path = ".".join(location)
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown key {path}{_suggestion(kind, location)}"
    if first["type"] in ("missing", "missing_argument"):
        return f"{path} is required and has no default"
    text = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        # Checks of a whole section name their keys themselves.
        return f"{path}: {text}" if path else text
    return f"{path or 'configuration'}: {text}, got {_short(first['input'])}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _suggestion(kind: type[Any], location: Sequence[str]) -> str:
    keys = _keys_at(kind, location[:-1])
    close = nearest(location[-1], keys)
    allowed = f"; allowed: {', '.join(keys)}" if keys else ""
    return (f"; did you mean {close}?" if close else "") + allowed


def _keys_at(kind: Any, location: Sequence[str]) -> list[str]:
    for part in location:
        hints = get_type_hints(kind)
        if part not in hints:
            return []
        kind = next((t for t in (hints[part], *get_args(hints[part])) if dataclasses.is_dataclass(t)), None)
        if kind is None:
            return []
    return [field.name for field in dataclasses.fields(kind)]
