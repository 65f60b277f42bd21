"""The command `bertkd mlm` as a script; `python recipes/train_mlm.py --help` lists its options."""

from bertkd.cli import run_command

if __name__ == "__main__":
    run_command("mlm")
