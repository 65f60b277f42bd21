"""Hides access tokens and passwords in what is written down: other people may read a record, and everybody a card."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "command_without_secrets",
    "settings_without_secrets",
    "text_without_secrets",
    "words_without_secrets",
]

# Stands in the place of a secret.
HIDDEN = "HIDDEN"
# Access tokens of Hugging Face, GitHub and OpenAI. A folder such as hf_finetuned_v2 is none.
TOKEN = re.compile(r"\b(?:(?:api_org_|gh[pousr]_|github_pat_|sk-)[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{30,})")
# The user and password of an address.
PASSWORD = re.compile(r"(\w+://)[^\s/@]+@")
# Ends of names, so that `tokenizer_name` and `max_tokens_per_batch` stay.
SECRET = "(?:token|password|secret|api[_-]key)"
SECRET_NAME = re.compile(rf"(^|[_-]){SECRET}$")
SECRET_OPTION = re.compile(rf"""(--[\w-]*{SECRET}(?:=|\s+))("[^"]*"|'[^']*'|\S+)""")


def text_without_secrets(text: str) -> str:
    """Hides what looks like an access token or a password, wherever it came from."""
    return PASSWORD.sub(rf"\1{HIDDEN}@", TOKEN.sub(HIDDEN, text))


def words_without_secrets(words: Sequence[str]) -> list[str]:
    """The words of a command line, with the values of secret options hidden, and tokens in all others."""
    shown: list[str] = []
    hides_next = False

    for word in words:
        name, equals, _ = word.partition("=")
        is_secret = name.startswith("--") and SECRET_NAME.search(name) is not None
        if hides_next:
            shown.append(HIDDEN)
        elif is_secret and equals:
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(text_without_secrets(word))
        hides_next = is_secret and not equals
    return shown


def command_without_secrets(command: str) -> str:
    """A command in one line, as `words_without_secrets`: what others put together need not have a shell's quotes."""
    return text_without_secrets(SECRET_OPTION.sub(rf"\1{HIDDEN}", command))


def settings_without_secrets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those that are secrets, at every depth, and with tokens hidden in all others."""
    kept: dict[str, Any] = {}
    for key, value in settings.items():
        if not SECRET_NAME.search(str(key)):
            kept[key] = _value_without_secrets(value)
    return kept


def _value_without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return settings_without_secrets(value)
    if isinstance(value, list | tuple):
        return [_value_without_secrets(item) for item in value]
    return text_without_secrets(value) if isinstance(value, str) else value
