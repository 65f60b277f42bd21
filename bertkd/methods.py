"""Finds all methods: every folder with a `method.py`. A new method adds its folder, and nothing else changes."""

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from bertkd.distillation.method import Method

__all__ = ["all_methods", "compared_with", "method_key", "method_label", "method_named", "sizes_follow_task"]

# What is no method, but has a name in results files.
OTHER_LABELS = {"shrunk": "Smaller without training"}


@cache
def all_methods() -> tuple[Method, ...]:
    """Every method, in the order of their papers."""
    root = Path(__file__).parent
    folders = [folder.name for folder in pkgutil.iter_modules([str(root)]) if folder.ispkg]
    methods: list[Method] = []

    for name in folders:
        if (root / name / "method.py").is_file():
            methods += importlib.import_module(f"bertkd.{name}.method").METHODS

    return tuple(sorted(methods, key=lambda method: method.arxiv))


def method_named(name: str) -> Method:
    """The method that results files call `name`.

    Raises:
        ValueError: there is none.
    """
    for method in all_methods():
        if name == method.name or name in method.variants:
            return method

    known = ", ".join(method.name for method in all_methods() if method.name != "teacher")
    raise ValueError(f"There is no method {name!r}: known are {known}.")


def method_label(name: str) -> str:
    """The label of a method, or of a variant of one, for people; an unknown name stays as it is."""
    return _labels().get(name, name)


def method_key(name: str) -> tuple[int, str]:
    """Sorting key of names in results files: in the order of the papers, unknown names last."""
    names = list(_labels())
    return (names.index(name) if name in names else len(names), name)


def compared_with(name: str) -> str:
    """The name of the method that `name` adds to; empty for none."""
    for method in all_methods():
        if name == method.name:
            return method.compared_with
        if name in method.variants_compared_with:
            return method.variants_compared_with[name]
    return ""


def sizes_follow_task(name: str) -> bool:
    """Whether students of this name differ in size from task to task, because a budget says how large they are."""
    return any(method.student == "pruned" and name in (method.name, *method.variants) for method in all_methods())


def _labels() -> dict[str, str]:
    labels: dict[str, str] = {}
    for method in all_methods():
        labels |= {method.name: method.label, **method.variants}
    return {**labels, **OTHER_LABELS}
