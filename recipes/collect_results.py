"""`benchmarks/collect_results.py`, under the name that earlier commands know it by."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).resolve().parents[1] / "benchmarks" / "collect_results.py"), run_name="__main__")
