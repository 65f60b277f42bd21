"""What several test files share: tiny random models, rows of tokens, and the real data where it is."""

import os
import sys
from pathlib import Path

# No test may reach for a network, and threads that wait must not spin.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import pytest  # noqa: E402
import torch  # noqa: E402
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer  # noqa: E402

from bertkd.data.demo import make_demo_task  # noqa: E402

SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real GLUE files beside the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data sets are not beside the project (../shared/data)")
    return SHARED_DATA


@pytest.fixture
def teacher_in_pytorch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports measure the teacher in PyTorch alone, and not in every engine: each graph of it takes seconds."""
    monkeypatch.setattr("bertkd.pipeline.export.available_engines", lambda: ["pytorch"])


@pytest.fixture(scope="session")
def glue_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo_task(tmp_path_factory.mktemp("glue"))


@pytest.fixture(scope="session")
def pretrained(glue_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 4 layers with a tokenizer for the words of the built-in task."""
    folder = tmp_path_factory.mktemp("pretrained")
    words = sorted({w for line in (glue_dir / "SST-2" / "train.tsv").read_text().splitlines() for w in line.split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24}
    config = BertConfig(vocab_size=len(vocabulary), initializer_range=0.2, **sizes)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder
