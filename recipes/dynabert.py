"""The command `bertkd dynabert` as a script; `python recipes/dynabert.py --help` lists its options."""

from bertkd.cli import run_command

if __name__ == "__main__":
    run_command("dynabert")
