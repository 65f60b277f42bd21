"""Take a sub-network out of a supernet (bertkd dynabert), as a folder that loads anywhere.

    bertkd extract --model_name_or_path outputs/dynabert/finetune --width 0.5 --depth 0.75 --output_dir outputs/small

The folder's logits are compared with the network's before it is kept.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from bertkd.cli.commands import quiet
from bertkd.cli.parser import PlainParser, command_line
from bertkd.cli.rules import Range
from bertkd.dynabert import make_adaptive, save_subnetwork
from bertkd.dynabert.extraction import FORMATS
from bertkd.efficiency import count_parameters, model_size_mb
from bertkd.folder_lock import folder_in_use
from bertkd.models.loading import load_tokenizer
from bertkd.pipeline import load_model, resolve_model_name
from bertkd.pipeline.experiment import check_no_training
from bertkd.pipeline.folders import check_output
from bertkd.pipeline.training import describe_subnetwork
from bertkd.records import RunResult, SubnetworkResult


def known_size(supernet: str, width: float, depth: float) -> SubnetworkResult | None:
    """What the supernet's record says of a size; None where it says nothing."""
    trained = RunResult.of(supernet)
    if trained is None:
        return None

    for size in trained.subnetworks:
        if (size.width, size.depth) == (width, depth):
            return size
    return None


def parser() -> PlainParser:
    """The parser of the command."""
    made = PlainParser("extract", str(__doc__))
    made.add_argument("--model_name_or_path", required=True, help="The folder of a stage: a model of full size.")
    made.add_argument(
        "--width",
        type=float,
        range=Range(least=0, most=1, is_open=True),
        default=1.0,
        help="The share of the heads and neurons, in (0, 1].",
    )
    made.add_argument(
        "--depth",
        type=float,
        range=Range(least=0, most=1, is_open=True),
        default=1.0,
        help="The share of the layers, in (0, 1].",
    )
    made.add_argument(
        "--format",
        default="auto",
        choices=FORMATS,
        help="With `stock`, a model of less width is padded with zeros: larger, and known to every transformers.",
    )
    made.add_argument("--output_dir", required=True, help="The folder of the sub-network.")
    return made


def main(argv: Sequence[str] | None = None) -> PreTrainedModel:
    """Extracts one sub-network."""
    options = parser().parse(argv)
    quiet()
    supernet, folder, command = options.model_name_or_path, Path(options.output_dir), command_line("extract", argv)
    check_output(folder, {"--model_name_or_path": supernet})
    check_no_training(folder)
    with folder_in_use(folder, command):
        return extract(options, supernet, folder, command)


def extract(options: argparse.Namespace, supernet: str, folder: Path, command: str) -> PreTrainedModel:
    """Writes the folder of one sub-network."""
    model = make_adaptive(load_model(supernet).eval())
    tokenizer = load_tokenizer(resolve_model_name(supernet))

    # A record that is broken must not come to light after the model was written.
    known = known_size(supernet, options.width, options.depth)
    size = {"width": options.width, "depth": options.depth, "format": options.format}
    subnetwork = save_subnetwork(model, folder, **size, tokenizer=tokenizer)

    value, metrics, speedup = math.nan, {}, None
    if known is not None:
        value, metrics = known.value, known.metrics
        # The zeros of a padded model take time too.
        speedup = None if options.format == "stock" else known.speedup
    describe_subnetwork(supernet, folder, subnetwork, command, value, metrics, speedup)

    if known is None and (options.width, options.depth) != (1.0, 1.0):
        print(
            f"{supernet} was not trained at width {options.width:g} and depth {options.depth:g}, as far as its "
            f"{RunResult.FILE} tells: measure the sub-network, or train a supernet (`bertkd dynabert`)."
        )
    kept, whole = count_parameters(subnetwork).total, count_parameters(model).total
    name = type(subnetwork).__name__
    print(f"{name}, {kept:,} of {whole:,} parameters, {model_size_mb(folder):.1f} MB: {folder}")
    return subnetwork
