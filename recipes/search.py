"""The command `bertkd search` as a script; `python recipes/search.py --help` lists its options."""

from bertkd.cli import run_command

if __name__ == "__main__":
    run_command("search")
