"""Store long strings and bytes in a study: compressed, in pieces that every storage accepts."""

from __future__ import annotations

import base64
from collections.abc import Mapping
import hashlib
from typing import TYPE_CHECKING
from typing import Any
import zlib

from optuna_quant import _optuna
from optuna_quant.study.errors import DamagedRecordError


if TYPE_CHECKING:
    import optuna

    from optuna_quant._common.json_value import Json


# MySQL's TEXT holds 65,535 bytes.
_CHUNK = 30_000


def write_bytes(study: optuna.Study, name: str, data: bytes) -> None:
    """Keep bytes in the study under a name."""
    packed = base64.b64encode(zlib.compress(data)).decode()
    chunks = [packed[i : i + _CHUNK] for i in range(0, len(packed), _CHUNK)]
    digest = hashlib.sha256(data).hexdigest()[:8]
    for number, chunk in enumerate(chunks):
        _optuna.set_study_system_attr(study, f"optuna_quant:{name}:{digest}:{number}", chunk)
    # Last, so that a reader that sees it finds the rest.
    head: Json = {"digest": digest, "chunks": len(chunks)}
    _optuna.set_study_system_attr(study, f"optuna_quant:{name}", head)


def find_bytes(attrs: Mapping[str, Any], name: str, *, study_name: str = "") -> bytes | None:
    """The bytes that are kept under a name in a study with these system attributes.

    Raises:
        DamagedRecordError:
            If they are not what was written.
    """
    attribute = f"optuna_quant:{name}"
    head = attrs.get(attribute)
    if head is None:
        return None
    try:
        prefix = f"{attribute}:{head['digest']}"
        packed = "".join(attrs[f"{prefix}:{number}"] for number in range(head["chunks"]))
        data = zlib.decompress(base64.b64decode(packed, validate=True))
        fits = hashlib.sha256(data).hexdigest()[:8] == head["digest"]
    except (KeyError, TypeError, ValueError, zlib.error):
        fits = False
    if not fits:
        raise DamagedRecordError(
            study_name, attribute, "or one of its pieces is not what was written"
        )
    return data


def stored_bytes(attrs: Mapping[str, Any], prefix: str) -> int:
    """How long the strings are that a study with these system attributes keeps under a prefix."""
    start = f"optuna_quant:{prefix}"
    return sum(len(v) for k, v in attrs.items() if k.startswith(start) and isinstance(v, str))


def read_bytes(study: optuna.Study, name: str) -> bytes | None:
    """The bytes that the study keeps under a name; :obj:`None` if there are none."""
    attrs = _optuna.study_system_attrs(study)
    return find_bytes(attrs, name, study_name=study.study_name)


def write_text(study: optuna.Study, name: str, text: str) -> None:
    """Keep a text in the study under a name."""
    write_bytes(study, name, text.encode())


def read_text(study: optuna.Study, name: str) -> str | None:
    """The text that the study keeps under a name; :obj:`None` if there is none."""
    data = read_bytes(study, name)
    return None if data is None else data.decode()
