"""The command `bertkd tinybert` as a script; `python recipes/tinybert.py --help` lists its options."""

from bertkd.cli import run_command

if __name__ == "__main__":
    run_command("tinybert")
