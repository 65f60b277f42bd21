"""Tells the code of bertkd from that of its users."""

from typing import Any

__all__ = ["is_of_bertkd"]


def is_of_bertkd(code: Any) -> bool:
    """Says whether a class or a function belongs to bertkd, and not to a user."""
    # What is typed or executed may have no module.
    return str(code.__module__).startswith("bertkd.")
