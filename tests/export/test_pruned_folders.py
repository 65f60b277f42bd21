"""The code that travels with a pruned model says which version of transformers it needs."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import tiny_model

from bertkd.models.pruned import check_transformers
from bertkd.students import prune

OPEN = """
import sys
import transformers
transformers.__version__ = sys.argv[2]
try:
    transformers.AutoModelForSequenceClassification.from_pretrained(sys.argv[1], trust_remote_code=True)
except ImportError as error:
    print(error)
assert "bertkd" not in sys.modules
"""


def test_a_pruned_folder_names_the_version_that_it_needs(tmp_path: Path) -> None:
    prune(tiny_model(), heads=(1, 2), neurons=(8, 5)).save_pretrained(tmp_path / "pruned")
    for version, says in (("5.22.1", "needs transformers 5.23 or newer, and this is 5.22.1"), ("5.23.0", "")):
        command = [sys.executable, "-c", OPEN, str(tmp_path / "pruned"), version]
        process = subprocess.run(command, capture_output=True, text=True, check=True)
        assert says in process.stdout and ("--format stock" in process.stdout) == bool(says)


@pytest.mark.parametrize("version", ["5.23.0", "5.24.0.dev0", "6.0.0"])
def test_newer_versions_are_welcome(version: str) -> None:
    check_transformers(version)
    with pytest.raises(ImportError, match="this is 4.57.1"):
        check_transformers("4.57.1")
