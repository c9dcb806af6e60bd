"""Secrets: what a token looks like, which values are secret, and texts without either.

A secret reaches a run through its environment. It must not reach a file, a log, MLflow or a card.
"""

import ipaddress
import json
import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from scalequest.errors import UserError

# What stands in the place of a secret.
MASK = "***"
# Tokens of services that people keep in addresses, environments and files.
TOKENS = re.compile(
    r"\b(?:gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{20,}|glpat-[\w-]{16,}|hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{20,}|"
    r"(?:AKIA|ASIA)[0-9A-Z]{16}|xox[baprs]-[\w-]{10,}|AIza[\w-]{35}|ya29\.[\w-]{20,}|npm_[A-Za-z0-9]{30,}|"
    r"pypi-AgEI[\w-]{20,}|dckr_pat_[\w-]{20,}|(?:gsk|xai|nvapi|r8)[_-][A-Za-z0-9_-]{20,}|"
    r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"
)
# A user name or password in an address, a secret in its query, a credential in a header.
_USER = re.compile(r"(://)[^/\s@'\"]+(?=@)")
_PASSWORD = re.compile(r"://[^/\s:@'\"]*:[^/\s@'\"]+@")
_QUERY = re.compile(
    r"([?&](?:api[-_]?key|key|(?:access_|private_|auth_)?token|sig|signature|password|secret)=)[^&\s#'\"]+",
    re.IGNORECASE,
)
_BEARER = re.compile(
    r"((?:bearer|x-api-key|api[-_]key)['\"]?\s*[:=]?\s*['\"]?)(?=[\w.~+/=-]*\d)[\w.~+/=-]{16,}", re.IGNORECASE
)
# Variables whose values are secrets, beside the one that `runtime.api.key_variable` names.
VARIABLES = (
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
    "GITHUB_TOKEN", "GH_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
)  # fmt: skip
# A shorter value is a placeholder ("EMPTY"), and would be found in any text.
MIN_SECRET = 6


# Variables that were named as secret in this process.
_named: set[str] = set()


def keep_secret(variable: str) -> None:
    """Treat a variable's value as a secret from now on: that of ``runtime.api.key_variable``."""
    _named.add(variable)


def secret_values(*variables: str) -> dict[str, str]:
    """Name and value of each secret variable that is set, the named ones included."""
    names = dict.fromkeys((*VARIABLES, *sorted(_named), *variables))
    named = {name: os.environ.get(name, "").strip() for name in names if name}
    return {name: value for name, value in named.items() if len(value) >= MIN_SECRET}


def without_values(text: str, *values: str) -> str:
    """``text`` with each value masked, also where the value is escaped as in an address or in JSON."""
    for value in values:
        if len(value) >= MIN_SECRET:
            for form in {value, quote(value, safe=""), json.dumps(value)[1:-1]}:
                text = text.replace(form, MASK)
    return text


def redacted(text: str, *variables: str) -> str:
    """``text`` without tokens, passwords in addresses, credentials of headers and the values of secret variables.

    Args:
        text: a log line, an error, a field of a record.
        variables: names of further variables whose values are secret.
    """
    text = without_values(text, *secret_values(*variables).values())
    for pattern in (_USER, _QUERY, _BEARER):
        text = pattern.sub(rf"\1{MASK}", text)
    return TOKENS.sub(MASK, text)


def redacted_all(data: Any) -> Any:
    """Nested lists and dicts with every string in them ``redacted``."""
    if isinstance(data, dict):
        return {redacted_all(key): redacted_all(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [redacted_all(value) for value in data]
    return redacted(data) if isinstance(data, str) else data


def holding_secrets(data: Any, name: str = "") -> Iterator[str]:
    """Dotted names of the strings in nested data that hold a token, a password or the value of a secret variable."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from holding_secrets(value, f"{name}.{redacted(str(key))}".lstrip("."))
    elif isinstance(data, list):
        for value in data:
            yield from holding_secrets(value, name)
    elif isinstance(data, str):
        found = [pattern.search(data) for pattern in (TOKENS, _PASSWORD, _QUERY)]
        if any(found) or any(value in data for value in secret_values().values()):
            yield name


def secret_in(text: str, *variables: str) -> str:
    """What secret ``text`` holds, without repeating it; empty where there is none.

    Args:
        text: what is about to be written where others read it: a card, metrics, a report.
        variables: names of further variables whose values are secret.
    """
    if found := TOKENS.search(text):
        return f"a token that starts with {found[0][:6]}"
    for name, value in secret_values(*variables).items():
        if without_values(text, value) != text:
            return f"the value of {name}"
    if _BEARER.search(text):
        return "the credential of a header"
    return "a password in an address" if _PASSWORD.search(text) else ""


def refuse_secrets(text: str, where: str, *variables: str) -> None:
    """Stop before a secret is written.

    Raises:
        UserError: ``text`` holds one (``secret_in``); it is not repeated.
    """
    if found := secret_in(text, *variables):
        raise UserError(
            f"{where}: holds {found}. Expected a text without secrets; it was not written. Remove it where it comes from."
        )


def address_problem(address: str, plain_http: bool = False) -> str:
    """Why an endpoint's address must not be used; empty if it may.

    Args:
        address: ``https://HOST/v1``.
        plain_http: also allow ``http://`` to another machine.
    """
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018 -- raises where it is none
    except ValueError:
        return "it is no address. Expected https://HOST/v1"
    if parts.scheme not in ("http", "https") or not parts.hostname or "\\" in address:
        return "it is no address. Expected https://HOST/v1"
    if "@" in parts.netloc or "%40" in parts.netloc.lower():
        return (
            "it holds a user name or password. Expected none. Put the key into the variable of runtime.api.key_variable"
        )
    if parts.query or "?" in address or ";" in parts.path or parts.fragment:
        return "it has a query. Expected host and path alone. Put the key into the variable of runtime.api.key_variable"
    if TOKENS.search(address):
        return "it holds a token. Expected none. Put the key into the variable of runtime.api.key_variable"
    if parts.scheme == "http" and not plain_http and not is_this_machine(parts):
        return (
            "plain http:// sends the key and the questions unencrypted to another machine. Expected https://. Use https, "
            "or set runtime.api.plain_http to true in a network that you trust"
        )
    return ""


def is_this_machine(parts: SplitResult) -> bool:
    """Whether the host of an address is the loopback interface by name or number."""
    host = (parts.hostname or "").rstrip(".")
    if host == "localhost":
        return True
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(number, "ipv4_mapped", None)
    return (mapped or number).is_loopback


def api_key(variable: str) -> str:
    """The key in an environment variable; empty where it is not set.

    Raises:
        UserError: no HTTP header can hold it. The value is not in the message.
    """
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(
            f"environment variable {variable}: its value is not a key (it has blanks, line breaks or characters outside "
            "ASCII). Expected one word in ASCII. Set it again"
        )
    return key
