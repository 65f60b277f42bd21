"""The command `bertkd tinybert-general` as a script; `python recipes/tinybert_general.py --help` lists its options."""

from bertkd.cli import run_command

if __name__ == "__main__":
    run_command("tinybert-general")
