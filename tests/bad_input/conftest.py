"""The models that the cases share, trained once for each test process."""

from pathlib import Path

import pytest

from bad_input.cases import Place
from bertkd.cli import main

TRAINING = "--task_name sst2 --max_train_samples 64 --max_eval_samples 32 --max_steps 8 --use_cpu --logging_steps 4"


@pytest.fixture(scope="session")
def shared_models(glue_dir: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A teacher of the built-in task, and a supernet."""
    folder = tmp_path_factory.mktemp("models")
    teacher, supernet = folder / "teacher", folder / "supernet"
    shared = f"{TRAINING} --glue_dir {glue_dir}".split()
    main(["finetune", "--model_name_or_path", str(pretrained), "--output_dir", str(teacher), *shared])
    learned = ["--teacher_model_name_or_path", str(teacher), "--ignore_weak_teacher"]
    main(["dynabert", *learned, "--output_dir", str(supernet), "--stages", "width", *shared])
    return {"teacher": teacher, "supernet": supernet / "width"}


@pytest.fixture
def place(glue_dir: Path, pretrained: Path, shared_models: dict[str, Path], tmp_path: Path) -> Place:
    return Place(dir=tmp_path, glue=glue_dir, model=pretrained, **shared_models)
