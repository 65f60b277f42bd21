"""The command `bertkd distilbert` as a script; `python recipes/distilbert_pretrain.py --help` lists its options."""

from bertkd.cli import run_command

if __name__ == "__main__":
    run_command("distilbert")
