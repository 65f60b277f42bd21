"""What a case of bad or unusual input is, and the kinds that docs/promises.md counts.

A case is one entry of a list `CASES` in a file beside this one: `commands_*.py` has lines typed to `bertkd`, and
`api_*.py` has calls from Python. `test_commands.py` and `test_api.py` run them all.
"""

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["ApiCase", "CommandCase", "Kind", "Place", "api_cases", "assert_clear", "command_cases"]

# The rows of the table in docs/promises.md, in its order.
Kind = Literal[
    "options and settings",
    "data files",
    "labels",
    "models and checkpoints",
    "numbers",
    "training",
    "teacher cache",
    "folders and interrupted work",
    "exports",
    "names, paths and secrets",
    "records and reports",
]

# "refused" stops before anything is written. "named" goes on and says what it did with the input.
Ending = Literal["refused", "named"]


@dataclass(frozen=True)
class Place:
    """What a case may use: an empty folder of its own, and what all cases share and none may change.

    Attributes:
        dir: the case's own folder.
        glue: the built-in task in the layout of GLUE (SST-2).
        model: a tiny random BERT of 4 layers with a tokenizer for that task.
        teacher: such a model, fine-tuned on that task.
        supernet: a supernet of DynaBERT trained from it.
    """

    dir: Path
    glue: Path
    model: Path
    teacher: Path
    supernet: Path

    def filled(self, text: str) -> str:
        """Returns a text with {dir}, {glue}, {model}, {teacher} and {supernet} filled in."""
        for name, path in vars(self).items():
            text = text.replace(f"{{{name}}}", str(path))
        return text


@dataclass(frozen=True)
class CommandCase:
    """A line typed to `bertkd`, and the sentence that it has to end in.

    Attributes:
        kind: the row of the table that counts it.
        name: what is wrong, in words; the test's name.
        line: the words after `bertkd`, as in a shell; see `Place.filled`. The output belongs into {dir}/out.
        says: a regular expression that the sentence contains: what is wrong, where, and what to do.
        files: texts or bytes of files to write into {dir} first, by name; texts are filled in as the line is.
        prepare: called after that, for what files cannot express.
        ends: whether it stops, or goes on and says so.
    """

    kind: Kind
    name: str
    line: str
    says: str
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    prepare: Callable[[Place], Any] | None = None
    ends: Ending = "refused"


@dataclass(frozen=True)
class ApiCase:
    """A call from Python, and the sentence that it has to end in.

    Attributes:
        kind, name, says, ends: see `CommandCase`.
        call: what a user would write.
        error: the exception that it raises, for a call that is refused; a warning or a line of the log otherwise.
    """

    kind: Kind
    name: str
    call: Callable[[Place], Any]
    says: str
    error: type[Exception] = ValueError
    ends: Ending = "refused"


# What Python says of a program's mistake, which no user's mistake may end in.
UNCLEAR = re.compile(
    r"Traceback|has no attribute|NoneType|not subscriptable|unexpected keyword|list index|tuple index|"
    r"positional argument|did not foresee|KeyError|IndexError|AttributeError|TypeError|AssertionError|"
    r"<[a-z_.]+ object|object at 0x|Errno"
)


def assert_clear(message: str, says: str) -> None:
    """Checks that a message is the sentence which is wanted, and nothing that only a programmer understands."""
    assert re.search(says, message), f"it says:\n{message}\nand not:\n{says}"
    assert not (unclear := UNCLEAR.search(message)), f"{unclear.group()!r} is nothing for a user:\n{message}"


def command_cases() -> Iterator[CommandCase]:
    """Yields the cases of all `commands_*.py`."""
    yield from _cases("commands_*.py")


def api_cases() -> Iterator[ApiCase]:
    """Yields the cases of all `api_*.py`."""
    yield from _cases("api_*.py")


def _cases(pattern: str) -> Iterator[Any]:
    for path in sorted(Path(__file__).parent.glob(pattern)):
        yield from importlib.import_module(f"bad_input.{path.stem}").CASES
