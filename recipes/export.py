"""The command `bertkd export` as a script; `python recipes/export.py --help` lists its options."""

from bertkd.cli import run_command

if __name__ == "__main__":
    run_command("export")
