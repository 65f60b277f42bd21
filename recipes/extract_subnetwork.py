"""Take a sub-network out of a network of many sizes (recipes/dynabert.py), as a folder that loads anywhere.

    python recipes/extract_subnetwork.py --model_name_or_path outputs/dynabert/finetune --width 0.5 --depth 0.75 \
        --output_dir outputs/small

The folder's logits are compared with the network's before it is kept.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from arguments import command_line
from experiment import describe_subnetwork, quiet, run_script
from loading import load_model, resolve
from transformers import AutoTokenizer, PreTrainedModel

from bertkd.dynabert import make_adaptive, save_subnetwork
from bertkd.dynabert.extraction import FORMATS
from bertkd.report import count_parameters, model_size_mb


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
    describe_subnetwork(arguments.model_name_or_path, Path(arguments.output_dir), made, command_line(argv))
    before, after = count_parameters(model).total, count_parameters(made).total
    print(
        f"{type(made).__name__}, {after:,} of {before:,} parameters, {model_size_mb(arguments.output_dir):.1f} MB: "
        f"{arguments.output_dir}"
    )
    return made


if __name__ == "__main__":
    run_script(main)
