"""The command `bertkd kd` as a script; `python recipes/kd.py --help` lists its options."""

from bertkd.cli import run_command

if __name__ == "__main__":
    run_command("kd")
