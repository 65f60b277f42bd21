"""TinyBERT's recipes end to end on tiny models and files, as a user starts them."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from datasets import Dataset
from parsing import parse
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForPreTraining,
    TrainerCallback,
)

from bertkd import TinyBertKDConfig, TinyBertKDTrainer
from bertkd.cli import augment, dynabert, finetune, mlm, tinybert, tinybert_general
from bertkd.cli.options import CorpusOptions, ShapeOptions
from bertkd.cli.parser import Options
from bertkd.data import GLUE_TASKS
from bertkd.distillation.extra_modules import EXTRA_FILE
from bertkd.methods import method_named
from bertkd.pipeline.models import shape_of
from bertkd.pipeline.tinybert import TinyBertStages, released_student
from bertkd.records import StageResult, read_result
from bertkd.students import Shape
from bertkd.tinybert import NUM_COPIES
from bertkd.tinybert.candidates import CandidateFinder

QUICK = ["--use_cpu", "--disable_tqdm", "true", "--num_train_epochs", "1"]
SMALL = ["--num_hidden_layers", "2", "--hidden_size", "8", "--intermediate_size", "12"]


@pytest.fixture(scope="module")
def corpus(glue_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = (glue_dir / "SST-2" / "train.tsv").read_text().splitlines()[1:200]
    path = tmp_path_factory.mktemp("corpus") / "lines.txt"
    path.write_text("\n".join(line.split("\t")[0] for line in lines))
    return path


@pytest.fixture(scope="module")
def text(corpus: Path) -> list[str]:
    return ["--corpus_files", str(corpus), "--eval_rows", "20", "--max_seq_length", "24", *QUICK]


@pytest.fixture(scope="module")
def task(glue_dir: Path) -> list[str]:
    data = ["--task_name", "sst2", "--glue_dir", str(glue_dir), "--max_train_samples", "48"]
    return [*data, "--max_eval_samples", "40", *QUICK]


@pytest.fixture(scope="module")
def teacher(task: list[str], pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    finetune.main(["--model_name_or_path", str(pretrained), *task, "--output_dir", str(folder)])
    return folder


@pytest.fixture(scope="module")
def language_model(text: list[str], pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlm") / "run"
    arguments = [
        *text,
        "--model_name_or_path",
        str(pretrained),
        "--learning_rate",
        "1e-2",
        "--output_dir",
        str(folder),
    ]
    (result,) = mlm.main([*arguments, "--num_train_epochs", "3"])
    assert result.loss < result.loss_before
    return folder


@pytest.fixture
def student(task: list[str], teacher: Path, language_model: Path) -> list[str]:
    """Arguments of the task distillation of a small student."""
    augmentation = ["--augment_model", str(language_model), "--augment_copies", "2", "--augment_candidates", "3"]
    distillation = ["--teacher_model_name_or_path", str(teacher), "--ignore_weak_teacher", *SMALL]
    return [*task, *distillation, *augmentation, "--intermediate_num_train_epochs", "1"]


# ---- language models ----


def test_a_language_model_is_an_ordinary_folder(language_model: Path, pretrained: Path) -> None:
    names = {file.name for file in language_model.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "training.json"} <= names
    assert not list(language_model.glob("checkpoint-*"))
    _, report = AutoModelForMaskedLM.from_pretrained(language_model, output_loading_info=True)
    assert not report["missing_keys"] and not report["mismatched_keys"]
    result = StageResult.read(language_model / "training.json")
    assert result.method == "mlm" and result.rows["validation"] == 20 and result.settings["corpus_mode"] == "block"
    card = (language_model / "README.md").read_text()
    assert "AutoModelForMaskedLM" in card and "bertkd mlm" in card
    learned = load_file(language_model / "model.safetensors")
    before = load_file(pretrained / "model.safetensors")
    name = "bert.encoder.layer.0.output.dense.weight"
    assert not torch.equal(learned[name], before[name])


def test_a_frozen_encoder_does_not_change(text: list[str], pretrained: Path, tmp_path: Path) -> None:
    arguments = [*text, "--model_name_or_path", str(pretrained), "--freeze_encoder", "--learning_rate", "1e-2"]
    mlm.main([*arguments, "--output_dir", str(tmp_path)])
    before, after = AutoModel.from_pretrained(pretrained), AutoModelForMaskedLM.from_pretrained(tmp_path)
    learned = dict(after.base_model.named_parameters())
    for name, parameter in before.named_parameters():
        if not name.startswith("pooler"):
            assert torch.equal(parameter, learned[name])


# ---- general distillation ----


def test_general_distillation_leaves_a_student_and_its_projection(
    text: list[str], pretrained: Path, tmp_path: Path
) -> None:
    arguments = [*text, "--teacher_model_name_or_path", str(pretrained), *SMALL, "--learning_rate", "1e-2"]
    (result,) = tinybert_general.main([*arguments, "--output_dir", str(tmp_path)])
    assert result.loss < result.loss_before and result.layers == 2 and result.method == "tinybert-general"
    model = AutoModel.from_pretrained(tmp_path)
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (8, 2)
    assert load_file(tmp_path / EXTRA_FILE)["projection.weight"].shape == (16, 8)
    assert not any("projection" in name for name in load_file(tmp_path / "model.safetensors"))
    (again,) = tinybert_general.main([*arguments, "--output_dir", str(tmp_path)])
    assert again == result
    with pytest.raises(ValueError, match=r"other settings \(hidden_weight was 1.0 and is 2.0\)"):
        tinybert_general.main([*arguments, "--hidden_weight", "2.0", "--output_dir", str(tmp_path)])


def test_general_distillation_goes_on_with_its_projection(text: list[str], pretrained: Path, tmp_path: Path) -> None:
    arguments = [*text, "--teacher_model_name_or_path", str(pretrained)]
    tinybert_general.main([*arguments, *SMALL, "--learning_rate", "1e-2", "--output_dir", str(tmp_path / "a")])
    start = ["--model_name_or_path", str(tmp_path / "a"), "--learning_rate", "0"]
    tinybert_general.main([*arguments, *start, "--output_dir", str(tmp_path / "b")])
    before, after = (load_file(tmp_path / name / EXTRA_FILE) for name in ("a", "b"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("is_finished", [True, False])
def test_general_distillation_that_goes_on_from_another_is_started_again(
    is_finished: bool, text: list[str], pretrained: Path, tmp_path: Path
) -> None:
    arguments, folder = [*text, "--teacher_model_name_or_path", str(pretrained)], tmp_path / "b"
    tinybert_general.main([*arguments, *SMALL, "--output_dir", str(tmp_path / "a")])
    going_on = [*arguments, "--model_name_or_path", str(tmp_path / "a"), "--keep_checkpoints"]
    (result,) = tinybert_general.main([*going_on, "--output_dir", str(folder)])
    (again,) = tinybert_general.main([*going_on, "--output_dir", str(folder)])
    assert again == result

    # Folders of earlier versions name the projection that came with the start.
    settings = json.loads((folder / "settings.json").read_text())
    settings["projection_from"] = settings["model_name_or_path"]
    settings["contents"]["projection_from"] = settings["contents"]["model_name_or_path"]
    (folder / "settings.json").write_text(json.dumps(settings))
    if not is_finished:
        (folder / "training.json").unlink()
    (again,) = tinybert_general.main([*going_on, "--output_dir", str(folder)])
    assert (again == result) == is_finished and again.loss == pytest.approx(result.loss)

    shutil.copytree(tmp_path / "a", tmp_path / "c")
    settings["projection_from"] = str(tmp_path / "c")
    (folder / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"other settings \(projection_from was '.*c' and is None\)"):
        tinybert_general.main([*going_on, "--output_dir", str(folder)])


def test_of_stage_intermediate_the_least_loss_counts() -> None:
    config = TinyBertKDConfig(output_dir="out", use_cpu=True, metric_for_best_model="task", greater_is_better=True)
    stage = TinyBertStages().intermediate_config(config)
    assert (stage.metric_for_best_model, stage.greater_is_better) == ("loss", False)


def test_a_streamed_corpus_needs_a_number_of_steps(text: list[str], pretrained: Path, tmp_path: Path) -> None:
    arguments = [*text, "--teacher_model_name_or_path", str(pretrained), *SMALL, "--corpus_streaming"]
    with pytest.raises(ValueError, match="say how long to train with --max_steps"):
        tinybert_general.main([*arguments, "--output_dir", str(tmp_path)])
    steps = ["--max_steps", "6", "--eval_strategy", "steps", "--save_strategy", "no", "--eval_steps", "3"]
    (result,) = tinybert_general.main([*arguments, *steps, "--output_dir", str(tmp_path)])
    assert result.rows == {"train": None, "validation": None} and result.loss < result.loss_before


def test_a_teacher_of_another_tokenizer_is_refused(text: list[str], pretrained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(pretrained, other)
    content = json.loads((other / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    first, second = sorted(vocabulary, key=vocabulary.get)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(content))
    arguments = [*text, "--teacher_model_name_or_path", str(other), "--model_name_or_path", str(pretrained)]
    with pytest.raises(ValueError, match=rf"have different vocabularies: one knows '{second}' as the token"):
        tinybert_general.main([*arguments, "--output_dir", str(tmp_path / "run")])


def test_a_corpus_and_a_teacher_must_be_named(text: list[str], pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Name the pretrained teacher"):
        tinybert_general.main([*text, "--output_dir", str(tmp_path)])
    teacher = ["--teacher_model_name_or_path", str(pretrained), "--output_dir", str(tmp_path)]
    with pytest.raises(ValueError, match="Give a corpus with --corpus_files"):
        tinybert_general.main([*QUICK, *teacher, "--student_shape", "TinyBERT4"])


def test_numbers_win_over_a_named_shape(pretrained: Path) -> None:
    def shape(*options: str) -> Shape:
        (run,) = parse(TinyBertKDConfig, [*options, "--use_cpu"], {}, ShapeOptions, CorpusOptions)
        sizes = {field.name: getattr(run.own, field.name) for field in dataclasses.fields(Shape)}
        return shape_of(AutoModel.from_pretrained(pretrained), run.own.student_shape, **sizes)

    assert shape("--student_shape", "TinyBERT4") == Shape(4, 312, 1200)
    assert shape("--student_shape", "TinyBERT4", "--num_hidden_layers", "3") == Shape(3, 312, 1200)
    assert shape("--hidden_size", "8") == Shape(4, 8, 24)


# ---- task distillation ----


def test_task_distillation_runs_from_augmentation_to_the_table(
    student: list[str], task: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (result,) = tinybert.main([*student, "--output_dir", str(tmp_path)])
    assert result.method == "tinybert-nogd" and result.rows["train"] > 48 and result.speedup > 0
    assert "tinybert-nogd" in capsys.readouterr().out
    first = StageResult.read(tmp_path / "intermediate" / "training.json")
    assert first.rows["train"] == result.rows["train"] and first.settings["lr_scheduler_type"] == "constant"
    assert (tmp_path / "intermediate" / EXTRA_FILE).is_file() and not (tmp_path / EXTRA_FILE).exists()
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert model.config.hidden_size == 8 and model.config.id2label == {0: "negative", 1: "positive"}
    assert read_result(tmp_path / "results.json").value == result.value


def test_only_layers_learn_in_stage_intermediate(student: list[str], tmp_path: Path) -> None:
    assert tinybert.main([*student, "--stages", "intermediate", "--output_dir", str(tmp_path)]) == []
    settings = ["--seed", "42", "--intermediate_learning_rate", "0", "--stages", "intermediate"]
    tinybert.main([*student, *settings, "--output_dir", str(tmp_path / "untrained")])
    learned = load_file(tmp_path / "intermediate" / "model.safetensors")
    start = load_file(tmp_path / "untrained" / "intermediate" / "model.safetensors")
    same = {name for name in start if torch.equal(start[name], learned[name])}
    assert same == {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"}
    assert not (tmp_path / "results.json").exists()


def test_stages_one_by_one_are_the_stages_in_one_go(student: list[str], tmp_path: Path) -> None:
    tinybert.main([*student, "--output_dir", str(tmp_path / "whole")])
    with pytest.raises(ValueError, match="Stage intermediate is not done"):
        tinybert.main([*student, "--stages", "prediction", "--output_dir", str(tmp_path / "parts")])
    assert not (tmp_path / "parts" / "augmented").exists()
    for stage in ("intermediate", "prediction"):
        tinybert.main([*student, "--stages", stage, "--output_dir", str(tmp_path / "parts")])
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    with pytest.raises(ValueError, match="--stages are some of intermediate, prediction"):
        tinybert.main([*student, "--stages", "prediction", "intermediate", "--output_dir", str(tmp_path / "x")])


def test_rows_are_augmented_only_where_a_stage_learns_from_them(student: list[str], tmp_path: Path) -> None:
    arguments = [*student, "--no_augment_prediction", "--output_dir", str(tmp_path)]
    tinybert.main([*arguments, "--stages", "intermediate"])
    shutil.rmtree(tmp_path / "augmented")
    tinybert.main([*arguments, "--stages", "intermediate"])
    (result,) = tinybert.main(arguments)
    assert result.rows["train"] == 48 and not (tmp_path / "augmented").exists()


@pytest.mark.parametrize("stage", ["intermediate", "prediction"])
def test_an_interrupted_stage_goes_on(
    stage: str, student: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*student, "--num_train_epochs", "2", "--intermediate_num_train_epochs", "2"]
    tinybert.main([*arguments, "--output_dir", str(tmp_path / "whole")])

    class Kill(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kwargs):
            if args.stage == stage and state.epoch == 1:
                raise KeyboardInterrupt

    taken: list[str] = []
    made, step = TinyBertKDTrainer.__init__, TinyBertKDTrainer.training_step

    def counted(self, *args, **kwargs):
        taken.append(self.args.stage)
        return step(self, *args, **kwargs)

    def with_kill(self, *args, **kwargs):
        made(self, *args, callbacks=[Kill()], **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(TinyBertKDTrainer, "__init__", with_kill)
        with pytest.raises(KeyboardInterrupt):
            tinybert.main([*arguments, "--output_dir", str(tmp_path / "cut")])
    monkeypatch.setattr(TinyBertKDTrainer, "training_step", counted)
    tinybert.main([*arguments, "--output_dir", str(tmp_path / "cut")])
    steps = taken.count(stage)
    tinybert.main([*arguments, "--output_dir", str(tmp_path / "anew")])
    assert steps == (taken.count(stage) - steps) / 2 > 0
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    for name in whole:
        torch.testing.assert_close(whole[name], cut[name], rtol=1e-4, atol=2e-6)


def test_the_student_goes_on_from_general_distillation(
    student: list[str], text: list[str], pretrained: Path, tmp_path: Path
) -> None:
    general = tmp_path / "general"
    given = ["--teacher_model_name_or_path", str(pretrained), *SMALL, "--output_dir", str(general)]
    tinybert_general.main([*text, *given])
    start = ["--model_name_or_path", str(general), "--intermediate_learning_rate", "0", "--stages", "intermediate"]
    tinybert.main([*student, *start, "--output_dir", str(tmp_path / "task")])
    before, after = load_file(general / EXTRA_FILE), load_file(tmp_path / "task" / "intermediate" / EXTRA_FILE)
    assert all(torch.equal(before[name], after[name]) for name in before)
    layers, kept = load_file(general / "model.safetensors"), tmp_path / "task" / "intermediate" / "model.safetensors"
    assert torch.equal(
        layers["encoder.layer.0.output.dense.weight"], load_file(kept)["bert.encoder.layer.0.output.dense.weight"]
    )
    (result,) = tinybert.main([*student, "--model_name_or_path", str(general), "--output_dir", str(tmp_path / "full")])
    assert result.method == "tinybert"


def released_checkpoint(folder: Path, pretrained: Path, projection: dict[str, torch.Tensor]) -> Path:
    """A folder in the form that TinyBERT's authors released, of the tokenizer of `pretrained`."""
    vocabulary = AutoTokenizer.from_pretrained(pretrained)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    config = BertConfig(vocab_size=len(vocabulary), **sizes)
    state = {**BertForPreTraining(config).state_dict(), **projection}
    folder.mkdir()
    save_file({name: tensor.clone() for name, tensor in state.items()}, folder / "model.safetensors")
    values = {name: value for name, value in config.to_dict().items() if name != "model_type"}
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def test_a_released_checkpoint_is_a_start(student: list[str], pretrained: Path, tmp_path: Path) -> None:
    projection = {"fit_dense.weight": torch.rand(16, 8), "fit_dense.bias": torch.rand(16)}
    released = released_checkpoint(tmp_path / "released", pretrained, projection)
    start = ["--model_name_or_path", str(released), "--intermediate_learning_rate", "0", "--stages", "intermediate"]
    tinybert.main([*student, *start, "--no_augment", "--output_dir", str(tmp_path / "task")])
    kept = load_file(tmp_path / "task" / "intermediate" / EXTRA_FILE)
    assert torch.equal(kept["projection.weight"], projection["fit_dense.weight"])


def test_a_released_checkpoint_without_a_projection_leaves_none(pretrained: Path, tmp_path: Path) -> None:
    released = released_checkpoint(tmp_path / "released", pretrained, {})
    config = TinyBertKDConfig(output_dir=str(tmp_path / "run"), use_cpu=True)
    student, projection = released_student(str(released), GLUE_TASKS["sst2"], config)
    assert student.config.hidden_size == 8 and projection is None and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "method"),
    [
        (["--no_augment"], "tinybert-nogd-noda"),
        (["--no_augment", "--attention_weight", "0"], "tinybert-nogd-noda-noattn"),
        (["--no_augment_prediction", "--hidden_weight", "0"], "tinybert-nogd-nohidn"),
        (["--no_augment", "--init_from", "teacher", "--num_student_layers", "2"], "tinybert-fromteacher-noda"),
        (["--no_augment", "--relative_states"], "tinybert-nogd-noda-relative"),
        (["--no_augment", "--embedding_weight", "0", "--strategy", "top"], "tinybert-nogd-noda-noembd-top"),
    ],
)
def test_ablations_are_named(changes: list[str], method: str, student: list[str], tmp_path: Path) -> None:
    (result,) = tinybert.main([*student, *changes, "--output_dir", str(tmp_path)])
    assert result.method == method
    assert (result.rows["train"] == 48) == ("--no_augment" in changes or "--no_augment_prediction" in changes)


def test_a_stage_of_the_trainer_is_not_an_option_of_the_recipe(student: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--stage is set by the command"):
        tinybert.main([*student, "--stage", "intermediate", "--output_dir", str(tmp_path)])
    shape = student.index(SMALL[0])
    without = student[:shape] + student[shape + len(SMALL) :]
    with pytest.raises(ValueError, match="give a new one's shape"):
        tinybert.main([*without, "--no_augment", "--output_dir", str(tmp_path)])
    with pytest.raises(ValueError, match="--num_student_layers goes with --init_from teacher"):
        tinybert.main([*student, "--no_augment", "--num_student_layers", "2", "--output_dir", str(tmp_path / "b")])


def test_seeds_share_one_augmented_set(student: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    find = CandidateFinder.__call__
    monkeypatch.setattr(CandidateFinder, "__call__", lambda self, texts: made.extend(texts) or find(self, texts))
    tinybert.main([*student, "--seed", "1", "--stages", "intermediate", "--output_dir", str(tmp_path / "one")])
    once = len(made)
    shutil.rmtree(tmp_path / "one")
    tinybert.main([*student, "--seed", "1", "2", "--output_dir", str(tmp_path)])
    assert len(made) == 2 * once > 0
    assert len(list((tmp_path / "augmented").glob("*"))) == 1
    assert {folder.name for folder in tmp_path.iterdir()} == {"augmented", "seed-1", "seed-2"}


def test_the_papers_settings() -> None:
    def settings(task: str) -> Options[Any, Any, Any]:
        arguments = ["--config", str(ROOT / f"recipes/configs/tinybert/{task}.yaml"), "--use_cpu"]
        return parse(TinyBertKDConfig, arguments, {"stage": "prediction"}, tinybert.TinyBertOptions)[0]

    for task, epochs, length, copies in (
        ("cola", 50, 64, 30), ("sst2", 20, 64, 20), ("mrpc", 20, 128, 30), ("stsb", 20, 128, 30),
        ("rte", 20, 128, 30), ("mnli", 10, 128, 10), ("qqp", 10, 128, 10), ("qnli", 10, 128, 20),
    ):  # fmt: skip
        run = settings(task)
        recipe, training = run.own, run.config
        assert (recipe.intermediate_num_train_epochs, run.data.max_seq_length) == (epochs, length)
        assert recipe.augment_copies == copies == NUM_COPIES[task] and recipe.augment_prediction == (task != "stsb")
        assert (recipe.intermediate_learning_rate, training.learning_rate, training.num_train_epochs) == (
            5e-5,
            3e-5,
            3,
        )
        assert (training.temperature, training.alpha, training.per_device_train_batch_size) == (1.0, 1.0, 32)


def test_dynabert_learns_from_augmented_rows_but_in_its_last_stage(
    task: list[str], teacher: Path, language_model: Path, tmp_path: Path
) -> None:
    sizes = ["--width_mult_list", "0.5", "1", "--depth_mult_list", "1", "--importance_rows", "16"]
    words = [*task, "--teacher_model_name_or_path", str(teacher), "--ignore_weak_teacher", *sizes, "--augment"]
    with pytest.raises(ValueError, match=r"--augment_model.* add --augment false"):
        dynabert.main([*words, "--output_dir", str(tmp_path)])
    more = ["--augment_model", str(language_model), "--augment_copies", "2", "--augment_candidates", "3"]
    dynabert.main([*words, *more, "--output_dir", str(tmp_path)])
    results = {stage: read_result(tmp_path / stage / "results.json") for stage in ("width", "depth", "finetune")}
    width, depth, last = (results[stage].rows["train"] for stage in ("width", "depth", "finetune"))
    assert 96 < width == depth <= 144 and last == 48
    assert {result.rows["validation"] for result in results.values()} == {40}
    assert results["depth"].method == "dynabert-depth-augmented"
    assert method_named("dynabert").variants["dynabert-depth-augmented"] == "DynaBERT, stage depth, augmented rows"


def test_a_name_is_that_of_the_last_stage(task: list[str], teacher: Path, tmp_path: Path) -> None:
    sizes = ["--width_mult_list", "1", "--depth_mult_list", "1", "--no_rewire"]
    words = [*task, "--teacher_model_name_or_path", str(teacher), "--ignore_weak_teacher", *sizes]
    folder = tmp_path / "supernet"
    dynabert.main([*words, "--stages", "width", "depth", "--result_name", "mine", "--output_dir", str(folder)])
    names = [read_result(folder / stage / "results.json").method for stage in ("width", "depth")]
    assert names == ["dynabert-width-unwired", "mine"]


# ---- augmentation ----


def test_augmentation_leaves_a_file(task: list[str], language_model: Path, tmp_path: Path) -> None:
    arguments = [*task, "--augment_model", str(language_model), "--augment_copies", "3", "--output_dir", str(tmp_path)]
    path = augment.main(arguments)
    made = Dataset.from_parquet(str(path))
    assert (
        set(made.column_names) == {"sentence", "label", "idx", "original_row"} and len(set(made["original_row"])) == 48
    )
    originals = [row for i, row in enumerate(made) if i == 0 or made[i - 1]["original_row"] != row["original_row"]]
    assert [row["idx"] for row in originals] == list(range(48))


def test_a_model_without_a_head_for_masked_words_is_refused(
    student: list[str], task: list[str], pretrained: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"has no head for masked words .* train one with `bertkd mlm`"):
        augment.main([*task, "--augment_model", str(pretrained), "--output_dir", str(tmp_path)])
    with pytest.raises(ValueError, match="Augmentation needs a masked language model"):
        augment.main([*task, "--output_dir", str(tmp_path)])
