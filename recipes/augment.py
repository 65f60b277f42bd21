"""The command `bertkd augment` as a script; `python recipes/augment.py --help` lists its options."""

from bertkd.cli import run_command

if __name__ == "__main__":
    run_command("augment")
