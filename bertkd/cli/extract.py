"""Take a sub-network out of a network of many sizes (recipes/dynabert.py), as a folder that loads anywhere.

    python recipes/extract_subnetwork.py --model_name_or_path outputs/dynabert/finetune --width 0.5 --depth 0.75 \
        --output_dir outputs/small

The folder's logits are compared with the network's before it is kept.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedModel

from bertkd.cli.arguments import command_line
from bertkd.cli.experiment import describe_subnetwork, quiet
from bertkd.cli.loading import load_model, resolve
from bertkd.dynabert import make_adaptive, save_subnetwork
from bertkd.dynabert.extraction import FORMATS
from bertkd.efficiency import count_parameters, model_size_mb
from bertkd.records import read_result


def figures_of(supernet: str, width: float, depth: float) -> dict[str, Any]:
    """What the stage's table of sizes says of this one; nothing where it is not there."""
    path = Path(supernet) / "results.json"
    sizes = read_result(path).subnetworks if path.is_file() else []
    found = next((one for one in sizes if (one.width, one.depth) == (width, depth)), None)
    return {} if found is None else {"value": found.value, "metrics": found.metrics, "speedup": found.speedup}


def main(argv: Sequence[str] | None = None) -> PreTrainedModel:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", required=True, help="A stage's folder: a model of full size.")
    parser.add_argument("--width", type=float, default=1.0, help="Share of the heads and neurons, in (0, 1].")
    parser.add_argument("--depth", type=float, default=1.0, help="Share of the layers, in (0, 1].")
    parser.add_argument(
        "--format",
        default="auto",
        choices=FORMATS,
        help="stock: zero-padded where the width is cut; larger, and known to every version of transformers.",
    )
    parser.add_argument("--output_dir", required=True)
    arguments = parser.parse_args(argv)
    quiet()
    model = make_adaptive(load_model(arguments.model_name_or_path).eval())
    tokenizer = AutoTokenizer.from_pretrained(resolve(arguments.model_name_or_path))
    size = {"width": arguments.width, "depth": arguments.depth, "format": arguments.format}
    made = save_subnetwork(model, arguments.output_dir, **size, tokenizer=tokenizer)
    known = figures_of(arguments.model_name_or_path, arguments.width, arguments.depth)
    if arguments.format == "stock":
        known.pop("speedup", None)  # that of the size without its zeros
    describe_subnetwork(arguments.model_name_or_path, Path(arguments.output_dir), made, command_line(argv), **known)
    before, after = count_parameters(model).total, count_parameters(made).total
    print(
        f"{type(made).__name__}, {after:,} of {before:,} parameters, {model_size_mb(arguments.output_dir):.1f} MB: "
        f"{arguments.output_dir}"
    )
    return made
