"""The command `bertkd report` as a script; `python recipes/report.py --help` lists its options."""

from bertkd.cli import run_command

if __name__ == "__main__":
    run_command("report")
