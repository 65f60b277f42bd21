"""The command `bertkd submit` as a script; `python recipes/make_submission.py --help` lists its options."""

from bertkd.cli import run_command

if __name__ == "__main__":
    run_command("submit")
