"""The command `bertkd extract` as a script; `python recipes/extract_subnetwork.py --help` lists its options."""

from bertkd.cli import run_command

if __name__ == "__main__":
    run_command("extract")
