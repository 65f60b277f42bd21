"""The command `bertkd shrink` as a script; `python recipes/shrink.py --help` lists its options."""

from bertkd.cli import run_command

if __name__ == "__main__":
    run_command("shrink")
