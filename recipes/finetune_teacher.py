"""The command `bertkd finetune` as a script; `python recipes/finetune_teacher.py --help` lists its options."""

from bertkd.cli import run_command

if __name__ == "__main__":
    run_command("finetune")
