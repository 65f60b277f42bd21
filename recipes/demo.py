"""The command `bertkd demo` as a script; `python recipes/demo.py --help` lists its options."""

from bertkd.cli import run_command

if __name__ == "__main__":
    run_command("demo")
