"""Check and show addresses of storages, without their secrets."""

from __future__ import annotations

from pathlib import Path
import re
from urllib.parse import unquote


SCHEMES = ("postgresql", "postgres", "mysql", "mariadb", "sqlite", "redis", "rediss", "grpc")
"""Those that users know of, for the error when one is mistyped."""

_HIDDEN = "***"

# Between a user's name, which may be empty, and the last '@': passwords have any sign in them.
_AFTER_USER = re.compile(
    r"(?P<before>(?:^|(?<=[/\s\"':]))[^:/@\s]*:)(?P<secret>(?!//)[^@].*)(?=@)", re.DOTALL
)
# A parameter of a URL, of what drivers call a data source name, or of one within the other.
_PARAMETER = re.compile(
    r"(?P<before>(?:pass(?:word|wd|phrase)?|pwd|secret|token|api_?key|auth)\s*(?:=|%3D)\s*)"
    r"(?P<secret>'[^']*'|(?:(?!%3B)[^&;\s])+)",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"\s*[\"']?(?P<scheme>[a-z][a-z0-9+]*)\s*(?P<rest>:|//)", re.IGNORECASE)
_SHORTEST = 3
"""Shorter secrets are not looked for in other strings: they are in every word."""


def shown_address(address: str) -> str:
    """An address without its secrets, for messages."""
    return _hide(_hide(address, _PARAMETER), _AFTER_USER)


def without_secrets(text: str, address: str) -> str:
    """A text, such as a driver's message, without the secrets of an address.

    Args:
        text:
            The text.
        address:
            The address that it may repeat in part.
    """
    found = [*_PARAMETER.finditer(address), *_AFTER_USER.finditer(address)]
    secrets = {match["secret"] for match in found}
    for secret in sorted(secrets | set(map(unquote, secrets)), key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, _HIDDEN)
    return text


def check_is_path(address: str) -> None:
    """Refuse what is taken for a path only because an address is mistyped.

    Args:
        address:
            What was given, without ``://``.

    Raises:
        ValueError:
            If it looks like an address; it says how to write one. It shows no secrets.
    """
    begins = _SCHEME.match(address)
    scheme = begins["scheme"].lower().partition("+")[0] if begins else ""
    if scheme in SCHEMES:
        raise ValueError(f"it is not an address: write {scheme}://, with a colon and two slashes.")
    if scheme != "journal" and (_AFTER_USER.search(address) or _PARAMETER.search(address)):
        raise ValueError(
            "it is not an address: write postgresql://USER:PASSWORD@HOST/NAME, for example. If "
            "it is the path of a journal file, write journal: before it."
        )


def check_file_exists(address: str, what: str) -> None:
    """Refuse the address of a file that is not there: it is mistyped, and would be made.

    Args:
        address:
            The address of a storage; of a server nothing is checked.
        what:
            The option that names it, for the message.

    Raises:
        ValueError:
            If it is not there.
    """
    path = address.removeprefix("sqlite:///").removeprefix("journal:").partition("?")[0]
    if "://" not in path and not Path(path).exists():
        raise ValueError(
            f"{what}: there is no storage {shown_address(address)!r}; give the --storage of the "
            "earlier search, or the file OUT.optuna_quant.journal beside its output."
        )


def _hide(text: str, secret: re.Pattern[str]) -> str:
    return secret.sub(lambda match: match["before"] + _HIDDEN, text)
