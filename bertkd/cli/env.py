"""Show what a number depends on here: versions, hardware, instruction sets and engines.

    bertkd env

Paste it into a bug report.
"""

import json
from collections.abc import Sequence
from typing import Any

import torch

from bertkd.cli.parser import PlainParser
from bertkd.export import ENGINE_PACKAGES, ENGINES, PRECISIONS, available_engines, runs_in
from bertkd.records import environment


def engines() -> dict[str, str]:
    """Every engine with the precisions that it runs in here."""
    shown = {}
    for engine in ENGINES:
        if engine not in available_engines():
            shown[engine] = "not installed"
            continue
        shown[engine] = ", ".join(precision for precision in PRECISIONS if runs_in(engine, precision, "cpu"))
    return shown


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints the environment; returns it."""
    parser = PlainParser("env", str(__doc__))
    parser.add_argument("--json", action="store_true", help="Print it as JSON.")
    as_json = parser.parse(argv).json

    more = (*ENGINE_PACKAGES, "tokenizers", "safetensors", "huggingface_hub", "scikit-learn")
    found = environment(more)
    found["torch_capability"] = torch.backends.cpu.get_cpu_capability()
    found["engines"] = engines()

    if as_json:
        print(json.dumps(found, indent=2))
        return found

    for title in ("versions", "hardware", "engines"):
        print(f"{title}:")
        for name, value in found[title].items():
            print(f"  {name + ':':<18}{', '.join(value) if isinstance(value, list) else value}")
    print(f"torch's CPU code:   {found['torch_capability']}")
    print(f"commit of bertkd:   {found['commit']}")
    return found
