"""Every call of the table ends in the sentence that it names."""

import warnings

import pytest

from bad_input.cases import ApiCase, Place, api_cases, assert_clear


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in api_cases()])
def test_the_call_ends_in_its_sentence(
    case: ApiCase, place: Place, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    if case.ends == "refused":
        with pytest.raises(case.error) as caught:
            case.call(place)
        assert_clear(str(caught.value), case.says)
        return

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        case.call(place)
    output = capsys.readouterr()
    said = "\n".join(str(warning.message) for warning in warned)
    assert_clear(f"{said}\n{caplog.text}\n{output.out}\n{output.err}", case.says)
