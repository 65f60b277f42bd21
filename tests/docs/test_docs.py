"""Every command and every piece of Python in README.md and docs/ runs, on tiny models and the built-in task."""

import json
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from helpers import tiny_model
from transformers import AutoTokenizer, TrainingArguments

from benchmarks import benchmark_training, collect_results
from bertkd import DistilBertKDConfig, DistillationConfig, DynaBertKDConfig, PatientKDConfig, TinyBertKDConfig
from bertkd.cli import bench as benchmark
from bertkd.cli import compress, dynabert, export, kd, patient_kd, search, shrink, tinybert, tinybert_general
from bertkd.cli import distilbert as distilbert_pretrain
from bertkd.cli import finetune as finetune_teacher
from bertkd.cli import mlm as train_mlm
from bertkd.cli import submit as make_submission
from bertkd.cli.arguments import CorpusArguments, DataArguments, RecipeArguments, StudentArguments, parse
from bertkd.cli.augment import AugmentRecipeArguments
from bertkd.data import GLUE_TASKS, load_glue, tokenize
from bertkd.models import FAMILIES

MAINS = {
    "finetune_teacher.py": finetune_teacher.main,
    "kd.py": kd.main,
    "patient_kd.py": patient_kd.main,
    "dynabert.py": dynabert.main,
    "search.py": search.main,
    "tinybert_general.py": tinybert_general.main,
    "distilbert_pretrain.py": distilbert_pretrain.main,
    "tinybert.py": tinybert.main,
    "export.py": export.main,
    "make_submission.py": make_submission.main,
}
# What a recipe's command line consists of.
OPTIONS: dict[str, tuple[Any, Any, Any]] = {
    "finetune_teacher.py": (DistillationConfig, RecipeArguments, DataArguments),
    "kd.py": (DistillationConfig, RecipeArguments, DataArguments),
    "patient_kd.py": (PatientKDConfig, RecipeArguments, DataArguments),
    "dynabert.py": (DynaBertKDConfig, dynabert.DynaBertArguments, DataArguments),
    "search.py": (DistillationConfig, search.SearchArguments, DataArguments),
    "tinybert.py": (TinyBertKDConfig, tinybert.TinyBertArguments, DataArguments),
    "export.py": (DistillationConfig, export.ExportArguments, DataArguments),
    "augment.py": (DistillationConfig, AugmentRecipeArguments, DataArguments),
    "tinybert_general.py": (TinyBertKDConfig, StudentArguments, CorpusArguments),
    "distilbert_pretrain.py": (DistilBertKDConfig, distilbert_pretrain.DistilBertArguments, CorpusArguments),
    "train_mlm.py": (DistilBertKDConfig, train_mlm.MaskedLMArguments, CorpusArguments),
    "shrink.py": (DistillationConfig, shrink.ShrinkArguments, DataArguments),
}
# What opens an exported folder runs after the command that makes it.
OF_AN_EXPORT = "outputs/pkd-int8"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
QUICK = ["--use_cpu", "--max_train_samples", "32", "--max_eval_samples", "32", "--num_train_epochs", "1"]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)


def commands(page: Path) -> Iterator[list[str]]:
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def write_own_files(glue_dir: Path) -> None:
    for name in ("train", "dev"):
        labels = ("negative", "positive")
        lines = [line.split("\t") for line in (glue_dir / "SST-2" / f"{name}.tsv").read_text().splitlines()[1:65]]
        Path(f"{name}.csv").write_text("sentence,label\n" + "".join(f'"{t}",{labels[int(i)]}\n' for t, i in lines))


def test_readme_commands_run_one_after_the_other(
    pretrained: Path, glue_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    write_own_files(glue_dir)
    texts = [line.split("\t")[0] for line in (glue_dir / "SST-2" / "train.tsv").read_text().splitlines()[1:65]]
    (tmp_path / "wikipedia.txt").write_text("\n".join(texts))
    corpus = ["--eval_rows", "4", "--use_cpu", "--num_train_epochs", "1"]
    start = ["--model_name_or_path", str(pretrained), "--corpus_files", "wikipedia.txt"]
    train_mlm.main([*start, *corpus, "--output_dir", "outputs/mlm"])
    ran = []
    for words in commands(ROOT / "README.md"):
        if words[0] != "python":
            assert words[0] in ("make", "accelerate"), words
            continue
        script = Path(words[1]).name
        is_text = "--corpus_files" in words
        # What learns from text needs a head for words, which the tiny model has not.
        base = "outputs/mlm" if is_text else str(pretrained)
        arguments = [base if word == "bert-base-uncased" else word for word in words[2:]]
        if script == "make_submission.py":
            arguments += ["--glue_dir", str(shared_data / "glue")]
        else:
            # A tiny model on a busy machine: any time will do.
            augmented = ["--augment_model", "outputs/mlm", "--augment_copies", "1"]
            own = {
                "dynabert.py": [],
                "search.py": ["--budget", "1e6", "--repeats", "2"],
                "export.py": ["--max_drop", "1", "--calibration_rows", "8", "--repeats", "2"],
                "tinybert.py": [*augmented, "--intermediate_num_train_epochs", "1"],
            }
            fewer = [] if "teacher" in arguments[-1] else ["--num_student_layers", "2"]
            fewer = [] if "outputs/distilbert" in arguments else fewer
            if is_text:
                arguments += [*corpus, "--corpus_min_tokens", "3"]
            else:
                arguments += [*QUICK, "--ignore_weak_teacher", *own.get(script, fewer)]
            if "--train_file" not in arguments and not is_text:
                arguments += ["--glue_dir", str(glue_dir)]
        MAINS[script](arguments)
        ran.append(script)
    assert [name.removesuffix(".py") for name in ran] == [
        "finetune_teacher",
        "finetune_teacher",
        "patient_kd",
        "kd",
        "kd",
        "dynabert",
        "search",
        "tinybert_general",
        "tinybert",
        "distilbert_pretrain",
        "kd",
        "export",
        "make_submission",
    ]
    (deployed,) = [block for block in blocks(ROOT / "README.md", "python") if OF_AN_EXPORT in block]
    names: dict[str, Any] = {}
    exec(compile(deployed, "README.md", "exec"), names)
    assert names["logits"].shape == (1, 2)


def test_own_files_become_a_student_as_the_quickstart_says(
    pretrained: Path, glue_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_own_files(glue_dir)
    ran = []
    for words in commands(ROOT / "docs" / "quickstart.md"):
        if words[0] == "python":
            arguments = [str(pretrained) if word == "minilm" else word for word in words[2:]]
            MAINS[Path(words[1]).name]([*arguments, *QUICK, "--ignore_weak_teacher"])
            ran.append(arguments[-1])
    assert ran == ["outputs/teacher", "outputs/finetuned", "outputs/kd", "outputs/pkd"]
    for block in blocks(ROOT / "docs" / "quickstart.md", "python"):
        exec(compile(block, "quickstart.md", "exec"), {})


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "results.md"], ids=lambda page: page.name)
def test_commands_name_recipes_options_and_files_that_exist(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for words in commands(page):
        found = [i for i, word in enumerate(words) if word.startswith("recipes/") and word.endswith(".py")]
        files = [after for word, after in pairwise(words) if word in ("--config", "--config_file")]
        assert all(Path(file).is_file() for file in [*files, *(words[i] for i in found)]), words
        name = Path(words[found[0]]).name if found else ""
        if name in OPTIONS and "--help" not in words:
            config_class, recipe_class, data_class = OPTIONS[name]
            parse(config_class, [*words[found[0] + 1 :], "--use_cpu"], {}, recipe_class, data_class)
        elif name == "benchmark.py":
            benchmark.parse_arguments(words[found[0] + 1 :])
        elif name == "compress.py":
            options, rest = compress.parse_arguments(words[found[0] + 1 :])
            _, config_class, recipe_class = compress.RECIPES[options.method]
            parse(config_class, [*rest, "--use_cpu"], {}, recipe_class)


def test_readme_names_targets_that_make_knows() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {words[1] for words in commands(ROOT / "README.md") if words[0] == "make"}
    assert named == {"demo", "test"}
    for target in named:
        assert f"\n{target}:" in makefile


# The quickstart's Python opens what its commands leave: above.
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "quickstart.md"], ids=lambda page: page.name)
def test_python_in_the_docs_runs(
    page: Path, pretrained: Path, glue_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(pretrained)
    train = load_glue("sst2", str(glue_dir), splits=["train"])
    sizes: dict[str, Any] = {"num_labels": 2, "id2label": {0: "negative", 1: "positive"}}
    teacher = tiny_model(layers=6, vocab_size=len(tokenizer), **sizes)
    teacher.save_pretrained("outputs/teacher")
    names = {
        "teacher": teacher,
        "student": tiny_model(layers=3, seed=1, vocab_size=len(tokenizer), **sizes),
        "tokenizer": tokenizer,
        "train_dataset": tokenize(train, GLUE_TASKS["sst2"], tokenizer, 32)["train"].select(range(16)),
        "batches": [dict(tokenizer(["a fine film", "dull"], padding=True, return_tensors="pt"))],
        "metrics": lambda runner: {"accuracy": 1.0},
    }
    monkeypatch.setitem(FAMILIES, "camembert", None)  # so that what a page puts there is taken out again
    for block in blocks(page, "python"):
        if OF_AN_EXPORT not in block:
            exec(compile(block, str(page), "exec"), names)
    if page.name == "customisation.md":
        logs = [entry for entry in names["trainer"].state.log_history if "train_loss" in entry]
        assert logs, "the documented trainer did not train"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere_and_options_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
    # Removed from transformers 5: documentation that names them sends users into an error.
    for gone in ("evaluation_strategy", "warmup_ratio", "overwrite_output_dir", "group_by_length=True"):
        assert gone not in text
    assert hasattr(TrainingArguments, "warmup_steps")


def test_generated_pages_are_those_of_the_results_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert collect_results.main(["--check"]) == 0


def test_the_performance_page_is_that_of_its_measurements() -> None:
    report = json.loads((ROOT / "docs" / "performance.json").read_text())
    assert (ROOT / "docs" / "performance.md").read_text() == benchmark_training.render(report)


def results_of(task: str, method: str, aside: str = "") -> list[float]:
    """The main metric of each seed, in percent."""
    files = sorted((ROOT / "docs/results/minilm" / aside / task).glob(f"{method}-seed*.json"))
    return [100 * json.loads(file.read_text())["value"] for file in files]


def test_figures_in_sentences_are_those_of_the_results_files() -> None:
    """A figure that a sentence quotes goes stale silently, unlike a generated table."""

    def mean(task: str, method: str) -> float:
        values = results_of(task, method)
        return round(sum(values) / len(values), 1)  # as the tables show it, whose differences a reader takes

    def costs(task: str, part: str) -> str:
        return f"{results_of(task, 'distilbert')[0] - results_of(task, f'distilbert-{part}', 'ablation')[0]:.1f}"

    page = " ".join((ROOT / "docs/distilbert.md").read_text().split())
    gains = {task: mean(task, "distilbert") - mean(task, "distilbert-mlm") for task in ("stsb", "cola", "mrpc")}
    told = f"worth {gains['stsb']:.1f} points on STS-B, {gains['cola']:.0f} on CoLA and {gains['mrpc']:.0f} on MRPC"
    assert told in page
    second = {task: mean(task, "distilbert-kd") - mean(task, "distilbert") for task in ("stsb", "cola")}
    assert f"adds {second['stsb']:.1f} points on STS-B" in page and f"on CoLA it takes {-second['cola']:.1f}" in page
    lost = {part: costs("stsb", part) for part in ("random", "noce", "nomlm", "nocos")}
    told = "random start costs {random} points, no KL {noce}, no masked words {nomlm}, no cosine {nocos}"
    assert told.format(**lost) in page and f"random start shows ({costs('sst2', 'random')} points)" in page

    def benchmark_rows(name: str) -> dict[tuple[str, str], float]:
        rows = json.loads((ROOT / "docs/benchmark" / name / "bench.json").read_text())["rows"]
        return {(row["model"], row["way"]): row["speedup"] for row in rows}

    page = " ".join((ROOT / "docs/export.md").read_text().split())
    shapes = ("bert-base", "bert6", "bert3", "tinybert4")
    cpu = [benchmark_rows("cpu")[shape, "openvino int8"] for shape in shapes]
    assert "BERT-base {:.1f} times as fast, BERT6 {:.0f}, BERT3 {:.0f}, TinyBERT4 {:.0f}.".format(*cpu) in page
    over_int8 = [speedup / cpu[0] for speedup in cpu[1:]]
    assert "they are {:.1f}, {:.1f} and {:.1f} times as fast".format(*over_int8) in page
    one, many = benchmark_rows("h200-batch1"), benchmark_rows("h200-batch128")
    small, deep = one["tinybert4", "pytorch float32"], one["bert3", "pytorch float32"]
    assert f"TinyBERT4 is {small:.1f} times as fast as BERT-base in float32, BERT3 {deep:.1f}" in page
    assert f"come back with 128 rows ({many['tinybert4', 'pytorch float32']:.1f})" in page
    assert f"bfloat16: {many['bert-base', 'pytorch bfloat16']:.1f} times as fast as float32" in page
    readme = " ".join((ROOT / "README.md").read_text().split())
    told = f"BERT-base {cpu[0]:.0f} times as fast as eager float32, and TinyBERT4's shape {cpu[3]:.0f} times"
    assert told in readme

    kd = json.loads((ROOT / "docs/results/minilm-levers/sst2/kd-seed42.json").read_text())
    before, after = 100 * kd["metrics_before"]["accuracy"], 100 * kd["value"]
    page = " ".join((ROOT / "docs/levers.md").read_text().split())
    assert f"from {before:.1f} to {after:.1f} % accuracy" in page and f"{kd['size_mb']:.1f} MB" in page
