"""Take a sub-network out of a supernet (bertkd dynabert), as a folder that loads anywhere.

    bertkd extract --model_name_or_path outputs/dynabert/finetune --width 0.5 --depth 0.75 --output_dir outputs/small

The folder's logits are compared with the network's before it is kept.
"""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from bertkd.cli.commands import quiet
from bertkd.cli.parser import PlainParser, command_line
from bertkd.cli.rules import Range
from bertkd.dynabert.extraction import FORMATS
from bertkd.folder_lock import folder_in_use
from bertkd.pipeline.dynabert import extract_to_folder
from bertkd.pipeline.experiment import check_no_training
from bertkd.pipeline.folders import check_output, check_separate


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
    check_separate(folder, {"--model_name_or_path": supernet})
    check_output(folder)
    check_no_training(folder)
    with folder_in_use(folder, command):
        return extract_to_folder(supernet, folder, options.width, options.depth, options.format, command)
