"""What several test files share: tiny random models, rows of tokens, and the real data where it is."""

import os
import sys
from pathlib import Path

# No test may reach for a network, and threads that wait must not spin.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "recipes"), str(ROOT / "tests")]

import pytest  # noqa: E402

SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real GLUE files beside the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data sets are not beside the project (../shared/data)")
    return SHARED_DATA
