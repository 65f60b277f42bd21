"""The command `bertkd compress` as a script; `python recipes/compress.py --help` lists its options."""

from bertkd.cli import run_command

if __name__ == "__main__":
    run_command("compress")
