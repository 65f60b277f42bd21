"""DistilBERT's recipe end to end on tiny models and files, and what comes after it."""

from pathlib import Path

import pytest
import torch
from conftest import ROOT
from parsing import parse
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
)

from bertkd import DistilBertKDConfig
from bertkd.cli import distilbert, finetune, kd, resolve, tinybert_general
from bertkd.cli.options import CorpusOptions
from bertkd.distilbert import distilbert_student
from bertkd.pipeline import models
from bertkd.pipeline.distilbert import PAPER_LAYERS, layers_of_student

QUICK = ["--use_cpu", "--disable_tqdm", "true", "--num_train_epochs", "1"]


@pytest.fixture(scope="module")
def corpus(glue_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    lines = (glue_dir / "SST-2" / "train.tsv").read_text().splitlines()[1:200]
    path = tmp_path_factory.mktemp("corpus") / "lines.txt"
    path.write_text("\n".join(line.split("\t")[0] for line in lines))
    options = ["--eval_rows", "20", "--max_seq_length", "24", "--corpus_min_tokens", "3", *QUICK]
    return ["--corpus_files", str(path), *options, "--per_device_train_batch_size", "8"]


@pytest.fixture(scope="module")
def language_model(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlm")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((pretrained / file).read_bytes())
    torch.manual_seed(0)
    BertForMaskedLM(BertConfig.from_pretrained(pretrained)).save_pretrained(folder)
    return folder


def test_from_a_corpus_to_a_student_and_on_to_a_task(
    corpus: list[str], language_model: Path, pretrained: Path, glue_dir: Path, tmp_path: Path
) -> None:
    general = tmp_path / "general"
    teacher = ["--teacher_model_name_or_path", str(language_model)]
    (result,) = distilbert.main([*corpus, *teacher, "--output_dir", str(general)])
    assert result.method == "distilbert" and result.layers == 2 and result.loss < result.loss_before
    assert type(DistilBertForMaskedLM.from_pretrained(general)) is DistilBertForMaskedLM
    assert "DistilBERT" in (general / "README.md").read_text()
    (again,) = distilbert.main([*corpus, *teacher, "--output_dir", str(general)])
    assert again == result

    task = ["--task_name", "sst2", "--glue_dir", str(glue_dir), "--max_train_samples", "48", *QUICK]
    task += ["--max_eval_samples", "40"]
    (tuned,) = finetune.main(["--model_name_or_path", str(general), *task, "--output_dir", str(tmp_path / "a")])
    assert type(AutoModelForSequenceClassification.from_pretrained(tmp_path / "a")) is (
        DistilBertForSequenceClassification
    )
    assert tuned.layers == 2
    # The second step: a BERT that was fine-tuned teaches the DistilBERT on the task.
    finetune.main(["--model_name_or_path", str(pretrained), *task, "--output_dir", str(tmp_path / "bert")])
    assert isinstance(
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "bert"), BertForSequenceClassification
    )
    step = ["--model_name_or_path", str(general), "--teacher_model_name_or_path", str(tmp_path / "bert")]
    (result,) = kd.main([*step, *task, "--ignore_weak_teacher", "--output_dir", str(tmp_path / "b")])
    assert result.layers == 2 and result.teacher_metrics


def test_the_student_starts_where_it_is_told(corpus: list[str], language_model: Path, tmp_path: Path) -> None:
    teacher = BertForMaskedLM.from_pretrained(language_model)
    name = "distilbert.transformer.layer.0.ffn.lin1.weight"
    start = [*corpus, "--teacher_model_name_or_path", str(language_model), "--learning_rate", "0"]
    for changes, expected in (
        ([], distilbert_student(teacher, [0, 2])),
        (["--num_student_layers", "1", "--student_layers", "3"], distilbert_student(teacher, [3])),
        (["--random_start"], None),
    ):
        folder = tmp_path / str(len(changes))
        distilbert.main([*start, *changes, "--output_dir", str(folder)])
        made = load_file(folder / "model.safetensors")
        if expected is not None:
            assert torch.equal(made[name], expected.state_dict()[name])
        else:
            assert not torch.equal(made[name], distilbert_student(teacher).state_dict()[name])


def test_a_tokenizer_may_be_that_of_an_installed_model(
    corpus: list[str], language_model: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "minilm_path", lambda: pretrained)
    options = ["--teacher_model_name_or_path", str(language_model), "--tokenizer_name", "minilm", "--max_steps", "2"]
    distilbert.main([*corpus, *options, "--output_dir", str(tmp_path / "a")])
    options += ["--num_student_layers", "2", "--init_from", "teacher"]
    tinybert_general.main([*corpus, *options, "--output_dir", str(tmp_path / "b")])
    for name in ("a", "b"):
        assert (tmp_path / name / "tokenizer.json").is_file()


def test_layers_are_named_by_the_paper_or_by_the_user() -> None:
    def layers(*options: str) -> list[int]:
        defaults = {"student_layers": PAPER_LAYERS}
        (run,) = parse(DistilBertKDConfig, [*options, "--use_cpu"], defaults, data_class=CorpusOptions)
        count = run.models.num_student_layers
        if run.models.student_layers != PAPER_LAYERS:
            count = resolve.layer_count(run.models)
        return layers_of_student(run.models.student_layers, count, 12)

    assert layers() == layers("--num_student_layers", "6") == [0, 2, 4, 7, 9, 11]
    assert layers("--student_layers", "0,5") == [0, 5]
    assert layers("--student_layers", "first", "--num_student_layers", "3") == [0, 1, 2]
    assert layers("--student_layers", "every") == [1, 3, 5, 7, 9, 11]  # as many as the paper's
    assert layers("--student_layers", "last") == [6, 7, 8, 9, 10, 11]
    with pytest.raises(ValueError, match="for another number name them too"):
        layers("--num_student_layers", "4")


def test_a_teacher_without_a_head_for_words_is_refused(corpus: list[str], pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no head for masked words"):
        distilbert.main([*corpus, "--teacher_model_name_or_path", str(pretrained), "--output_dir", str(tmp_path)])
    with pytest.raises(ValueError, match="Name the masked language model"):
        distilbert.main([*corpus, "--output_dir", str(tmp_path)])


def test_the_released_settings() -> None:
    arguments = ["--config", str(ROOT / "recipes/configs/distilbert/original.yaml"), "--use_cpu"]
    (run,) = parse(DistilBertKDConfig, arguments, {}, distilbert.DistilBertOptions, CorpusOptions)
    config = run.config
    assert (config.alpha_ce, config.alpha_mlm, config.alpha_cos, config.alpha_mse) == (5.0, 2.0, 1.0, 0.0)
    assert (config.temperature, config.mlm_probability, config.mlm_smoothing) == (2.0, 0.15, 0.7)
    assert config.mlm_unit == "batch"
    assert (config.adam_beta1, config.adam_beta2, config.adam_epsilon, config.max_grad_norm) == (0.9, 0.98, 1e-6, 5.0)
    assert (config.learning_rate, config.warmup_steps, config.weight_decay, config.seed) == (5e-4, 0.05, 0.0, 56)
    assert config.per_device_train_batch_size * config.gradient_accumulation_steps == 250
    assert run.data.corpus_min_tokens == 12 and run.data.max_seq_length == 512
    arguments[1] = str(ROOT / "recipes/configs/distilbert/small.yaml")
    (run,) = parse(DistilBertKDConfig, arguments, {}, distilbert.DistilBertOptions, CorpusOptions)
    assert run.config.alpha_ce == 5.0 and run.data.corpus_mode == "block"
