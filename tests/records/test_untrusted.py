"""What comes from outside can neither leave the folder of a report, nor become code in it, nor carry a secret."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from test_report import make_result

from bertkd.records import RunResult
from bertkd.records.pages import markdown_report, render_page
from bertkd.records.result_sets import read_sets

SCRIPT = "<script>alert(1)</script>"


def written(folder: Path, **values: Any) -> Path:
    folder.mkdir(exist_ok=True)
    content = make_result().to_json() | values
    (folder / RunResult.FILE).write_text(json.dumps(content))
    return folder / RunResult.FILE


@pytest.mark.parametrize("task", ["../../evil", "/etc/x", "a/b", "..", ".hidden", "", "a\\b", "x\n", "a" * 200, "a:b"])
def test_a_task_that_would_leave_the_folder_is_refused(task: str, tmp_path: Path) -> None:
    path = written(tmp_path / "run", task=task)
    with pytest.raises(ValueError, match=r"results\.json is no results file: task is .* reports name files by it"):
        RunResult.read(path)


@pytest.mark.parametrize("task", ["sst2", "my reviews", "imdb-v2.1", "日本語"])
def test_an_ordinary_name_of_a_task_is_none(task: str, tmp_path: Path) -> None:
    assert RunResult.read(written(tmp_path / "run", task=task)).task == task


def test_pages_show_what_comes_from_files_as_text(tmp_path: Path) -> None:
    settings = {"strategy": SCRIPT, "max_train_samples": 1}
    names = {"method": SCRIPT, "paper": SCRIPT, "command": f"bertkd kd\n```\n{SCRIPT}", "settings": settings}
    written(tmp_path / SCRIPT.replace("/", ""), **names, hardware={"cpu": SCRIPT})
    sets = read_sets(tmp_path)

    report = markdown_report(sets, tmp_path / "report.md", str(tmp_path))
    for page in report.pages.values():
        outside_of_code = re.sub(r"^```bash\n.*?\n```$", "", page, flags=re.DOTALL | re.MULTILINE)
        assert "<script" not in outside_of_code and "```" not in outside_of_code
    assert "<script>alert" not in render_page(sets, SCRIPT)


@pytest.mark.parametrize("token", ["hf_" + "aB3" * 11 + "x", "ghp_abcdefghijklmnop"])
def test_tokens_reach_no_record(token: str) -> None:
    result = make_result(
        command=f"bertkd kd --hub_token {token} --run_name {token} --model_name_or_path https://user:{token}@hub/x",
        settings={"model_name_or_path": f"https://user:{token}@hub/x", "files": [token], "deeper": {"note": token}},
    )
    assert token not in json.dumps(result.to_json())
    assert result.settings["model_name_or_path"] == "https://HIDDEN@hub/x"


def test_names_that_begin_like_a_token_stay() -> None:
    folder = "models/hf_finetuned/hf_distilled_student"
    result = make_result(command=f"bertkd kd --model_name_or_path {folder}", settings={"model_name_or_path": folder})
    assert folder in result.command and result.settings["model_name_or_path"] == folder
