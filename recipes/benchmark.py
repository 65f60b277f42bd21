"""The command `bertkd bench` as a script; `python recipes/benchmark.py --help` lists its options."""

from bertkd.cli import run_command

if __name__ == "__main__":
    run_command("bench")
