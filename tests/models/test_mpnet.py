"""The encoder of BERT-base size is put together from its five packages, and checked."""

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from bertkd.models import mpnet
from bertkd.models.mpnet import mpnet_path


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five installed packages that carry a small archive in pieces, and an empty cache."""
    names = tuple(f"fake-part-{part}" for part in range(1, 6))
    monkeypatch.setattr(mpnet, "DISTRIBUTIONS", names)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for file in mpnet.FILES:
            archive.writestr(f"{mpnet.NAME}/{file}", f"content of {file}")
        archive.writestr(f"{mpnet.NAME}/desktop.ini", "of no use")
    data = content.getvalue()

    for number, name in enumerate(names):
        info = tmp_path / f"{name.replace('-', '_')}-0.0.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\n")
        piece = f"part_{number + 1}/model.zip.{number + 1:03}"
        (info / "RECORD").write_text(f"{piece},,\n")
        (tmp_path / piece).parent.mkdir()
        end = None if number == 4 else (number + 1) * 100
        (tmp_path / piece).write_bytes(data[number * 100 : end])

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(mpnet.constants, "HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(mpnet, "SHA256", hashlib.sha256(data).hexdigest())
    return tmp_path


def test_the_archive_is_unpacked_once(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = mpnet_path()
    assert sorted(file.name for file in folder.iterdir()) == sorted(mpnet.FILES)
    assert (folder / "vocab.txt").read_text() == "content of vocab.txt"

    monkeypatch.setattr(mpnet, "_unpack", lambda *_: pytest.fail("it is unpacked again"))
    assert mpnet_path() == folder


def test_another_archive_is_refused_and_leaves_nothing(packages: Path) -> None:
    (packages / "part_3" / "model.zip.003").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"expected sha256 .*, found .*Install them again"):
        mpnet_path()
    assert not list((packages / "cache").rglob("*.json"))


def test_a_missing_package_is_named(packages: Path) -> None:
    for file in packages.glob("fake_part_4*/*"):
        file.unlink()
    next(packages.glob("fake_part_4*")).rmdir()
    with pytest.raises(ImportError, match=r"of which fake-part-4 is not installed.*bertkd\[base\]"):
        mpnet_path()
