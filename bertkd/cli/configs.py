"""List the settings that bertkd ships, or print one of them.

bertkd configs
bertkd configs patient_kd/sst2
"""

from collections.abc import Sequence

from bertkd.cli.parser import PlainParser
from bertkd.cli.shipped import read_settings, settings_path, shipped_settings


def main(argv: Sequence[str] | None = None) -> None:
    """Lists all names, or prints the settings of one with its path."""
    parser = PlainParser("configs", str(__doc__))
    parser.add_argument("name", nargs="?", help="Which settings to print. Without a name, all names are listed.")
    name = parser.parse(argv).name

    if name is None:
        print("\n".join(shipped_settings()))
        print(
            "\nUse them with --config NAME, those of accelerate with its launcher. "
            "`bertkd configs NAME` prints one with its path."
        )
        return
    print(f"# {settings_path(name)}\n{read_settings(name)}", end="")
