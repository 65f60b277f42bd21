"""`python -m bertkd`, which `accelerate launch -m bertkd` and `torchrun -m bertkd` start too."""

from bertkd.cli import main

if __name__ == "__main__":
    main()
