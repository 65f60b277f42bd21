"""Every command line of the table ends in the sentence that it names."""

import shlex
import warnings

import pytest

from bad_input.cases import CommandCase, Place, assert_clear, command_cases
from bertkd.cli import main


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in command_cases()])
def test_the_line_ends_in_its_sentence(
    case: CommandCase,
    place: Place,
    capsys: pytest.CaptureFixture,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, content in case.files.items():
        file = place.dir / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else place.filled(content).encode())
    if case.prepare is not None:
        case.prepare(place)
    monkeypatch.chdir(place.dir)

    ending = None
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            main(shlex.split(place.filled(case.line)))
        except SystemExit as error:
            ending = error
    output = capsys.readouterr()

    if case.ends == "named":
        assert ending is None or ending.code in (None, 0), ending
        # A terminal shows warnings, and those of the log, on stderr; pytest keeps them.
        said = "\n".join(str(warning.message) for warning in warned)
        assert_clear(f"{output.out}\n{output.err}\n{caplog.text}\n{said}", case.says)
        return

    assert ending is not None and ending.code not in (None, 0), "it went through without a word"
    # argparse prints its sentence and exits with 2, the commands exit with theirs.
    message = ending.code if isinstance(ending.code, str) else output.err
    assert_clear(message.removesuffix("(BERTKD_TRACEBACK=1 shows where)"), case.says)
    left = [path for path in place.dir.glob("out/**/*") if path.suffix in (".safetensors", ".onnx", ".xml", ".bin")]
    assert not left, "a model was left behind"
