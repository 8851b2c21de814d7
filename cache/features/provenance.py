"""Whether two sets of features may be mixed: whether they were made in the same way, whatever they were made of.

Every key of a store's provenance counts (see docs/store.md), so that a new one cannot be forgotten, except:

- what tells conditions and corpora apart, and is meant to differ: `condition`, `noise`, the `sha256` of an imported
  file, `asr.statements_sha256`;
- `libraries` and `device`: versions and kinds of device that agree within the tolerance that rows are tested to. (An
  array that is being *written* has one of each: the store itself sees to that.)

Of `layers`, those that are used count and not those that are kept: a store with the last layer alone may be joined with
one that has them all if only the last is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# What it means that a key is not there. A store that was made on a CPU says nothing of the device.
UNSAID = {"device": "cpu", "asr.precision": "float32", "asr.engine": "whisper-timestamped"}
NOT_COMPARED = ("condition", "noise", "sha256", "asr.statements_sha256", "libraries", "asr.libraries", "device")
# Of a hash, enough to tell two apart.
SHOWN = 12


@dataclass(frozen=True)
class Origin:
    """Where one modality's rows come from, and how they were made.

    Attributes:
        store: path of the store; it is named to readers and not compared.
        encoder: what the store calls the array.
        made: keys of the provenance that count, nested ones as `asr.model`, and `layers`, those that are used.
    """

    store: str
    encoder: str
    made: Mapping[str, Any]

    @classmethod
    def of(cls, store: str, encoder: str, provenance: Mapping[str, Any], layers: Sequence[int]) -> Origin:
        """Of an array's attributes."""
        flat = dict(_flat({**provenance, "layers": list(layers)}))
        return cls(store, encoder, {key: value for key, value in flat.items() if not _is_free(key)})


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first key of `Origin.made` in which two differ, with both values; "" where there is none."""
    for key in sorted(one.keys() | other.keys()):
        if one.get(key) != other.get(key):
            return f"{key} {_shown(one.get(key, UNSAID.get(key)))}, not {_shown(other.get(key, UNSAID.get(key)))}"
    return ""


def every_difference(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Each key in which the provenance of an array that is to be written differs, in words."""
    old, new = dict(_flat(stored)), dict(_flat(wanted))
    changed = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    return "; ".join(f"{key} was {_recorded(key, old)}, is {_recorded(key, new)}" for key in changed)


def refuse_mixing(modality: str, one: Origin, other: Origin, remedy: str) -> None:
    """Refuse rows of `one` beside rows of `other`.

    Raises:
        ValueError: they were made differently; one line with the first difference and the remedy.
    """
    if differs := difference(one.made, other.made):
        raise ValueError(
            f"{one.store}: its {modality} features were made otherwise than those of {other.store} ({differs}), "
            f"and cannot be mixed with them; {remedy}"
        )


def refuse_others(made: Mapping[str, Mapping[str, Any]], origins: Mapping[str, Origin], who: str, remedy: str) -> None:
    """Refuse features that were made otherwise than those that something rests on.

    Args:
        made: by modality, how those were made (`Origin.made`).
        origins: of the features at hand; they may have further modalities.
        who: what rests on them, to be named.
        remedy: what the reader can do.

    Raises:
        ValueError: one line with the store, the modality, the first key that differs, both values and the remedy.
    """
    for modality, how in made.items():
        origin = origins[modality]
        if differs := difference(origin.made, how):
            raise ValueError(
                f"{origin.store}: its {modality} features were made otherwise than those of {who} ({differs}); {remedy}"
            )


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in NOT_COMPARED)


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _recorded(key: str, flat: Mapping[str, Any]) -> Any:
    return flat.get(key, UNSAID.get(key, "not recorded"))


def _shown(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:
        return value[:SHOWN]
    return "unset" if value is None else str(value)
