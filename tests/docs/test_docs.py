"""Every command and every piece of Python in README.md and docs/ runs or is parsed, and every page is found."""

import html
import importlib
import json
import math
import pkgutil
import re
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import yaml
from commands import bertkd_command, blocks, check_command, commands, run_command
from conftest import ROOT
from helpers import tiny_model
from parsing import all_parsers
from transformers import AutoTokenizer, TrainingArguments

import bertkd
from benchmarks import benchmark_training, collect_results, paper_tables, pruning_table
from bertkd.cli import COMMANDS
from bertkd.data import GLUE_TASKS, load_glue, tokenize
from bertkd.metrics import main_value
from bertkd.models import FAMILIES
from bertkd.pruning.method import SHARES, variant_name
from bertkd.records import RunResult, read_result, result_rows, summarize
from bertkd.records.result_sets import read_sets

DOCS = ROOT / "docs"
# What opens an exported folder runs after the command that makes it.
OF_AN_EXPORT = "outputs/pkd-int8"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), DOCS / "reference" / "index.md"]
# Their commands are records of what ran.
GENERATED = ("performance.md",)
QUICK = ["--use_cpu", "--max_train_samples", "32", "--max_eval_samples", "32", "--num_train_epochs", "1"]
# What is pruned is fitted on one batch of 32 rows, and chosen by another one.
QUICK_PRUNING = ["--max_train_samples", "64"]
# A tiny model on a busy machine: any time and any accuracy will do.
QUICK_EXPORT = ["--max_drop", "1", "--repeats", "2"]
QUICK_CORPUS = ["--use_cpu", "--num_train_epochs", "1", "--eval_rows", "4", "--corpus_min_tokens", "3"]
# Of the package, what is no part of the API.
NOT_API = {"__main__", "atomic", "cli", "configs", "folder_lock", "pipeline"}


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def write_own_files(glue_dir: Path) -> None:
    """Files as a user has them: two with labels, two with texts alone."""
    names = ("negative", "positive")

    for split in ("train", "dev"):
        lines = (glue_dir / "SST-2" / f"{split}.tsv").read_text().splitlines()[1:65]
        rows = [line.split("\t") for line in lines]
        labeled = [f'"{text}",{names[int(label)]}' for text, label in rows]
        Path(f"{split}.csv").write_text("\n".join(["sentence,label", *labeled]))
        if split == "train":
            texts = [text for text, _ in rows]
            Path("texts.csv").write_text("\n".join(["sentence", *(f'"{text}"' for text in texts)]))
            for name in ("texts.txt", "wikipedia.txt"):
                Path(name).write_text("\n".join(texts))


def pretrain_tiny(pretrained: Path) -> str:
    """Train a tiny masked language model: commands that learn from text need its head, which `pretrained` has not."""
    start = ["--model_name_or_path", str(pretrained), "--corpus_files", "wikipedia.txt"]
    run_command("mlm", [*start, *QUICK_CORPUS, "--output_dir", "outputs/mlm"])
    return "outputs/mlm"


def run_quickly(name: str, options: list[str], pretrained: Path, language_model: str, more: list[str]) -> None:
    """Run a documented command on tiny models, few rows and one epoch."""
    learns_from_text = "--corpus_files" in options
    base = language_model if learns_from_text or name == "augment" else str(pretrained)
    options = [base if option == "bert-base-uncased" else option for option in options]

    if learns_from_text:
        options += QUICK_CORPUS
    elif name != "submit":
        options += [*QUICK, "--ignore_weak_teacher"]
    run_command(name, [*options, *more])


@pytest.mark.usefixtures("teacher_in_pytorch_alone")
def test_commands_that_reproduce_the_papers_run_one_after_the_other(
    pretrained: Path, glue_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    write_own_files(glue_dir)
    language_model = pretrain_tiny(pretrained)
    exports = [words for words in commands(DOCS / "export.md") if words[1] == "export"]
    more = {
        "search": ["--budget", "1e6", "--repeats", "2"],
        "prune": QUICK_PRUNING,
        "export": QUICK_EXPORT,
        "tinybert": [
            *("--augment_model", language_model, "--augment_copies", "1", "--intermediate_num_train_epochs", "1")
        ],
    }

    ran = []
    for words in [*commands(DOCS / "reproduce.md"), *exports]:
        command = bertkd_command(words)
        assert command is not None, words
        name, options = command
        extra = more.get(name, [])
        if name == "submit":
            extra = ["--glue_dir", str(shared_data / "glue")]
        elif "--corpus_files" not in options:
            extra = [*extra, "--glue_dir", str(glue_dir)]
        if "--num_student_layers" in options or (name in ("kd", "patient-kd") and "outputs/distilbert" not in options):
            extra = [*extra, "--num_student_layers", "2"]  # the tiny teacher has four
        run_quickly(name, options, pretrained, language_model, extra)
        ran.append(name)

    assert ran == [
        *("finetune", "finetune", "kd", "patient-kd", "dynabert", "search", "tinybert-general", "tinybert"),
        *("distilbert", "kd", "prune", "submit", "export"),
    ]
    (deployed,) = [block for block in blocks(DOCS / "export.md", "python") if OF_AN_EXPORT in block]
    names: dict[str, Any] = {}
    exec(compile(deployed, "export.md", "exec"), names)
    assert names["logits"].shape == (1, 2)


def test_few_labels_and_much_text_become_a_student_as_the_guide_says(
    pretrained: Path, glue_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_own_files(glue_dir)
    language_model = pretrain_tiny(pretrained)

    ran = []
    for words in commands(DOCS / "few_labels.md"):
        command = bertkd_command(words)
        assert command is not None, words
        name, options = command
        more = {"augment": ["--augment_copies", "1"], "prune": QUICK_PRUNING}.get(name, [])
        if "--num_student_layers" in options:
            more = ["--num_student_layers", "2"]
        if "--seed" in options:
            more = ["--seed", "1"]  # `outputs/teachers/seed-1` is where the first of several goes
            options = [option if option != "outputs/teachers" else "outputs/teachers/seed-1" for option in options]
        run_quickly(name, options, pretrained, language_model, more)
        ran.append(name)

    assert ran == ["finetune", "kd", "prune", "mlm", "finetune", "distilbert", "kd", "augment"]
    assert Path("outputs/augmented/train.parquet").is_file()


@pytest.mark.usefixtures("teacher_in_pytorch_alone")
def test_own_files_become_a_student_as_the_quickstart_says(
    pretrained: Path, glue_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_own_files(glue_dir)

    ran = []
    for words in commands(DOCS / "quickstart.md"):
        if command := bertkd_command(words):
            name, options = command
            options = [str(pretrained) if option == "minilm" else option for option in options]
            more = [*QUICK_PRUNING, *QUICK_EXPORT, "--quantization_aware_rows", "0"] if name == "compress" else []
            run_command(name, [*options, *QUICK, "--ignore_weak_teacher", *more])
            ran.append(options[-1])

    assert ran == ["outputs/teacher", "outputs/finetuned", "outputs/kd", "outputs/pkd", "outputs/small"]
    assert Path("outputs/small/student/curve.png").is_file()
    for block in blocks(DOCS / "quickstart.md", "python"):
        exec(compile(block, "quickstart.md", "exec"), {})


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in GENERATED], ids=page_name)
def test_commands_name_options_and_settings_that_exist(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for words in commands(page):
        command = bertkd_command(words)
        if command is not None:
            check_command(*command)
        else:
            assert words[0] in ("make", "pip"), words
        if "--config_file" in words:  # it was written by `bertkd configs` before
            assert (ROOT / "bertkd/configs/accelerate" / words[words.index("--config_file") + 1]).is_file()


def test_options_named_in_sentences_exist() -> None:
    known = {"cpu", "num_processes"}  # of `accelerate launch`
    for parser in all_parsers().values():
        known |= {name.lstrip("-") for action in parser._actions for name in action.option_strings}
    for script in (ROOT / "benchmarks").glob("*.py"):
        known |= {*re.findall(r'"--(\w+)"', script.read_text(encoding="utf-8"))}

    named = 0
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "recipes/README.md"]:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for code in re.findall(r"`([^`]+)`", text):
            for option in re.findall(r"--([\w-]+)", code):
                assert option in known, f"{page_name(page)}: --{option}"
                named += 1
    assert named > 100


def test_readme_names_targets_that_make_knows() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {words[1] for words in commands(ROOT / "README.md") if words[0] == "make"}
    assert named == {"demo", "test"}
    for target in [*named, "docs"]:
        assert f"\n{target}:" in makefile


def test_no_requirement_has_two_versions() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    names = [line.partition("==")[0] for line in lines if not line.startswith("#")]
    assert len(names) == len({*names}) and not [line for line in lines if "+" in line]


def test_readme_can_be_read_in_a_minute() -> None:
    text = (ROOT / "README.md").read_text()
    table = text[text.index("<!-- results:start -->") : text.index("<!-- results:end -->")]
    assert len(text.replace(table, "").splitlines()) <= 90


# The quickstart's Python opens what its commands leave: above.
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "quickstart.md"], ids=page_name)
def test_python_in_the_docs_runs(
    page: Path, pretrained: Path, glue_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = [block for block in blocks(page, "python") if OF_AN_EXPORT not in block]
    if not python:
        return

    monkeypatch.chdir(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(pretrained)
    train = load_glue("sst2", str(glue_dir), splits=["train"])
    sizes: dict[str, Any] = {
        "num_labels": 2,
        "id2label": {0: "negative", 1: "positive"},
        "max_position_embeddings": 128,
    }
    teacher = tiny_model(layers=6, vocab_size=len(tokenizer), **sizes)
    teacher.save_pretrained("outputs/teacher")
    names = {
        "teacher": teacher,
        "student": tiny_model(layers=3, seed=1, vocab_size=len(tokenizer), **sizes),
        "tokenizer": tokenizer,
        "train_dataset": tokenize(train, GLUE_TASKS["sst2"], tokenizer, 32)["train"].select(range(40)),
        "batches": [dict(tokenizer(["a fine film", "dull"], padding=True, return_tensors="pt"))],
        "metrics": lambda runner: {"accuracy": 1.0},
    }
    monkeypatch.setitem(FAMILIES, "camembert", None)  # so that what a page puts there is taken out again
    for block in python:
        exec(compile(block, str(page), "exec"), names)

    if page.name == "customization.md":
        logs = [entry for entry in names["trainer"].state.log_history if "train_loss" in entry]
        assert logs, "the documented trainer did not train"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page",
    [
        *PAGES,
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        ROOT / "recipes/README.md",
        DOCS / "notebooks/README.md",
    ],
    ids=page_name,
)
def test_links_lead_somewhere_and_options_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)]*)?\)", text):
        if target.startswith("http"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        # The anchors of the reference are made of the code: a strict build of the site checks them.
        if anchor and file.parent.name != "reference":
            assert anchor[1:] in anchors(file), f"{target}{anchor}"
    # Removed from transformers 5: documentation that names them sends users into an error.
    for gone in ("evaluation_strategy", "warmup_ratio", "overwrite_output_dir", "group_by_length=True"):
        assert gone not in text
    assert hasattr(TrainingArguments, "warmup_steps")


def site_config() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    return config


def navigation(entries: list[Any]) -> list[tuple[str, str]]:
    """Title and file of every page in the site's navigation, in its order."""
    pages = []
    for entry in entries:
        ((title, target),) = entry.items()
        pages += navigation(target) if isinstance(target, list) else [(title, target)]
    return pages


def test_every_page_stands_in_the_navigation() -> None:
    folders = [DOCS, ROOT / "notebooks"]  # docs/notebooks is a link
    files = set()
    for folder in folders:
        for path in [*folder.rglob("*.md"), *folder.rglob("*.ipynb")]:
            files.add(path.relative_to(DOCS if folder == DOCS else ROOT))
    made = {path for path in files if path.parts[0] == "results" or {"outputs", ".ipynb_checkpoints"} & {*path.parts}}
    pages = {path.as_posix() for path in files - made} - {"notebooks/README.md"} | {"results/index.md"}
    listed = [target for _, target in navigation(site_config()["nav"])]
    assert sorted(listed) == sorted(pages)


def test_llms_txt_lists_the_pages_of_the_navigation_with_a_description() -> None:
    lines = (DOCS / "llms.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# bertkd" and lines[2].startswith("> ")
    listed = [re.fullmatch(r"- \[(.+)\]\((.+)\): \S.+", line) for line in lines if line.startswith("- ")]
    assert all(listed), "a line of llms.txt is no link with a description"

    # A page of the reference has nothing in its file but the module's name, and a notebook is no Markdown.
    pages = navigation(site_config()["nav"])
    pages = [
        (title, page) for title, page in pages if page == "reference/index.md" or not page.startswith("reference/")
    ]
    pages = [(title, page) for title, page in pages if page.endswith(".md")]
    assert [(link[1], link[2]) for link in listed if link] == pages


def api_modules() -> list[str]:
    """The modules of the package that have public names."""
    modules = [module.name for module in pkgutil.iter_modules(bertkd.__path__) if not module.name.startswith("_")]
    return [name for name in modules if name not in NOT_API]


def test_the_reference_has_a_page_for_every_module_and_its_overview_every_public_name() -> None:
    overview = (DOCS / "reference" / "index.md").read_text()
    for name in bertkd.__all__:
        assert f"`{name}`" in overview, name
    for name in api_modules():
        assert f"::: bertkd.{name}\n" in (DOCS / "reference" / f"{name}.md").read_text(), name
        assert f"`bertkd.{name}`" in overview, name


@pytest.mark.slow
def test_the_site_builds_strictly_with_every_public_name_and_loads_nothing_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = pytest.importorskip("mkdocs.commands.build")
    load_config = importlib.import_module("mkdocs.config").load_config
    for plugin in ("material", "mkdocstrings", "mkdocs_jupyter"):
        pytest.importorskip(plugin)
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    site = tmp_path / "site"
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(site), strict=True)
    build.build(config)  # raises where there is a warning

    for name in api_modules():
        page = (site / "reference" / name / "index.html").read_text()
        ids = {html.unescape(anchor) for anchor in re.findall(r'id="([^"]+)"', page)}
        for public in importlib.import_module(f"bertkd.{name}").__all__:
            assert any(re.fullmatch(rf"bertkd\.{name}(\.\w+)*\.{public}", anchor) for anchor in ids), (name, public)

    loads = re.compile(
        r'<(?:script|img|iframe)[^>]*\bsrc="https?:|<link[^>]*stylesheet[^>]*href="https?:|import\("http'
    )
    for page in site.rglob("*.html"):
        assert not loads.search(page.read_text()), page.relative_to(site)
    for link in re.findall(r"\]\((.+?)\)", (site / "llms.txt").read_text()):
        assert (site / link).is_file(), link


def test_the_page_of_commands_has_every_command() -> None:
    text = (DOCS / "commands.md").read_text()
    assert set(re.findall(r"^\| `bertkd ([\w-]+)` \|", text, flags=re.MULTILINE)) == set(COMMANDS)


def test_the_page_of_recipes_says_which_command_each_script_is() -> None:
    text = (ROOT / "recipes" / "README.md").read_text()
    for script in (ROOT / "recipes").glob("*.py"):
        assert f"| `{script.name}` |" in text, script.name
        if command := re.search(r'run_command\("([\w-]+)"', script.read_text()):
            assert f"| `{script.name}` | `bertkd {command[1]}` |" in text


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

    rows = [line.split("|") for line in (ROOT / "README.md").read_text().splitlines() if ", 3 layers" in line]
    header = next(line.split("|") for line in (ROOT / "README.md").read_text().splitlines() if "Share of" in line)
    column = next(index for index, name in enumerate(header) if name.strip() == "Share of teacher")
    shares = {row[1].strip(): row[column].strip().rstrip("%") for row in rows if row[column].strip()}
    second = shares.pop("DistilBERT, second step, 3 layers")
    assert f"keep {second} % of it after the second step" in page
    assert f"pretrained so keep {min(shares.values())} to {max(shares.values())} %" in page

    page = " ".join((ROOT / "docs/tinybert.md").read_text().split())
    folder = ROOT / "docs/results/base"
    stsb, cola, mrpc, rte = (
        100 * json.loads((folder / task / "tinybert4-seed42.json").read_text())["value"]
        for task in ("stsb", "cola", "mrpc", "rte")
    )
    assert f"STS-B {stsb:.1f}, CoLA {cola:.1f}, MRPC {mrpc:.1f} and RTE {rte:.1f} by the main metrics" in page

    def lost_without(part: str) -> float:
        parts = results_of("stsb", f"tinybert-{part}", "ablation")
        return mean("stsb", "tinybert") - round(sum(parts) / len(parts), 1)

    augmentation, attention, general = (lost_without(part) for part in ("noda", "noattn", "nogd"))
    told = f"STS-B lost {augmentation:.0f} points without augmentation, {attention:.0f} without attention scores"
    assert f"{told} and {general:.0f} without the general student" in page and lost_without("nohidn") < 0

    def shown(file: Path) -> float:
        return round(100 * float(json.loads(file.read_text())["value"]), 1)

    older = ROOT / "docs/results/minilm-cpu"
    drops = []
    for task in ("cola", "sst2"):
        whole = shown(older / task / "tinybert-seed42.json")
        drops += [whole - shown(file) for file in (older / "ablation" / task).glob("tinybert-no*-seed42.json")]
    assert len(drops) == 7 and f"no part was worth more than {max(drops):.1f} points" in page

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
    other = benchmark_rows("pruned")["teacher", "openvino int8"]
    assert f"size {cpu[0]:.1f} times as fast on one machine with two cores, and {other:.1f} times on another" in page
    exports = [json.loads(file.read_text()) for file in (ROOT / "docs/results").rglob("*export_result.json")]
    lost = max(100 * (export["value_before"] - export["value"]) for export in exports)
    assert f"of the {len(exports)} exports" in page
    assert f"none loses more than {math.ceil(10 * lost) / 10} points" in page
    assert {export["task"] for export in exports} == {"sst2"} and {export["layers"] for export in exports} == {3, 6}

    page = " ".join((ROOT / "docs/faster.md").read_text().split())
    assert f"BERT-base {cpu[0]:.0f} times as fast as eager float32 PyTorch ([measured]" in page
    assert f"on two others [{other:.0f} times](benchmark/pruned/bench.md)" in page
    gain = many["bert-base", "pytorch bfloat16"]
    assert f"With many rows at a time bfloat16 alone is {gain:.0f} times as fast" in page
    assert one["bert-base", "pytorch bfloat16"] < 1.05 * one["bert-base", "pytorch float32"], "it gains nothing"
    (base,) = [found for found in read_sets(ROOT / "docs" / "results") if found.name == "base"]
    accuracy = {run.method: 100 * run.value for run in base.runs if (run.task, run.seed) == ("sst2", 42)}
    for name, text in (("pruned-25", "a quarter of the FLOPs"), ("pruned-12.5", "an eighth")):
        eager, int8 = (benchmark_rows("pruned")[name, way] for way in ("pytorch float32", "openvino int8"))
        assert f"| {text} | {accuracy[name]:.1f} | {eager:.1f} | {int8:.1f} |" in page
    teachers = [run.teacher_metrics for run in base.runs if (run.task, run.method) == ("sst2", "pruned-25")]
    assert f"the teacher, 12 layers | {100 * teachers[0]['accuracy']:.1f} | 1.0 | {other:.1f} |" in page

    page = " ".join((ROOT / "README.md").read_text().split())
    eager = [benchmark_rows("cpu")[shape, "pytorch float32"] for shape in shapes]
    assert (
        f"twelve layers in int8 are {cpu[0]:.1f} times as fast, six layers {eager[1]:.1f} times "
        f"({cpu[1]:.1f} in int8), "
        f"and three layers {eager[2]:.1f} times ({cpu[2]:.1f} in int8)"
    ) in page
    of_pruned = benchmark_rows("pruned")
    half, quarter, eighth = (
        (of_pruned[f"pruned-{share}", "pytorch float32"], of_pruned[f"pruned-{share}", "openvino int8"])
        for share in ("50", "25", "12.5")
    )
    whole = of_pruned["teacher", "openvino int8"]
    assert (
        "{:.1f} times ({:.1f} in int8) at a half, {:.1f} ({:.1f}) at a quarter and {:.1f} ({:.1f}) at an".format(
            *half, *quarter, *eighth
        )
        in page
        and f"twelve layers in int8 are {whole:.1f} times as fast, and models with random weights" in page
    )
    page = " ".join((ROOT / "docs/pruning.md").read_text().split())
    assert "a half is {:.1f} times as fast in PyTorch and {:.1f} times in OpenVINO int8".format(*half) in page
    assert "a quarter {:.1f} and {:.1f} times, an eighth {:.1f} and {:.1f} times".format(*quarter, *eighth) in page
    assert f"The teacher itself is {whole:.1f} times as fast in int8 there" in page

    stages = {}
    for stage in ("depth", "finetune"):
        run = json.loads((ROOT / f"docs/results/base/rte/dynabert-{stage}-seed42.json").read_text())
        stages[stage] = {(size["width"], size["depth"]): size["value"] for size in run["subnetworks"]}
    most = max(value - stages["depth"][size] for size, value in stages["finetune"].items())
    page = " ".join((ROOT / "docs/dynabert.md").read_text().split())
    assert f"it [adds up to {100 * most:.0f} points]" in page

    kd = json.loads((ROOT / "docs/results/minilm-levers/sst2/kd-seed42.json").read_text())
    before, after = 100 * kd["metrics_before"]["accuracy"], 100 * kd["value"]
    page = " ".join((ROOT / "docs/levers.md").read_text().split())
    assert f"from {before:.1f} to {after:.1f} % accuracy" in page and f"{kd['size_mb']:.1f} MB" in page


def test_times_in_the_guide_are_those_of_the_results_files() -> None:
    page = " ".join((DOCS / "faster.md").read_text().split())
    rows = json.loads((DOCS / "benchmark/pruned/bench.json").read_text())["rows"]
    ms = {row["model"]: row["p50_ms"] for row in rows if row["way"] == "openvino int8"}
    half, quarter = (100 * ms[f"pruned-{share}"] / ms["teacher"] for share in ("50", "25"))
    assert quarter < 50 < half, "half of the time lies between both"
    told = f"in int8 a half of the FLOPs takes {half:.0f} % of the teacher's time, and a quarter {quarter:.0f} %"
    assert told in page

    runs = [run for run in json.loads((DOCS / "pruning.json").read_text())["runs"] if run["rows"] == 2048]
    seconds = [run["seconds_harms"] + run["seconds_reconstruction"] for run in runs]
    assert round(max(seconds) / 60) == 2 and "the pruning took about two minutes" in page

    tasks = ("cola", "mrpc", "rte", "stsb")
    small = [read_result(DOCS / f"results/minilm-cpu/{task}/pruned-50-seed42.json") for task in tasks]
    assert {run.settings["num_train_epochs"] for run in small} == {5} and all(run.settings["bf16"] for run in small)
    assert all(run.hardware["cores"] == 2 for run in small)
    minutes = [run.seconds / 60 for run in small]
    fewest, most = (f"{round(count(run.rows['train'] for run in small), -2):,}" for count in (min, max))
    told = f"took {min(minutes):.0f} to {max(minutes):.0f} minutes with {fewest} to {most} rows and five epochs"
    assert f"The training of a half in bfloat16 {told}" in page
    long = read_result(DOCS / "results/minilm-cpu/sst2/pruned-50-seed42.json")
    assert long.settings["num_train_epochs"] == 2
    assert f"and {long.seconds / 60:.0f} minutes with all of SST-2 and two epochs" in page

    large = [read_result(DOCS / f"results/base/{task}/pruned-50-seed42.json") for task in tasks]
    assert all("H200" in run.hardware["gpu"][0] for run in large)
    minutes = [run.seconds / 60 for run in large]
    assert f"it took {min(minutes):.0f} to {max(minutes):.0f} minutes on the small tasks" in page


def test_students_with_six_layers_compare_with_others_as_the_pages_say() -> None:
    runs = pruning_table.read("base")

    def mean(task: str, method: str, layers: int) -> float:
        values = [run.value for run in runs if (run.task, run.method, run.layers) == (task, method, layers)]
        return round(100 * fmean(values), 1)  # as the tables show it, whose differences a reader takes

    ahead = mean("rte", "pkd-last", 6) - mean("rte", "kd", 6)
    (rows,) = {run.rows["validation"] for run in runs if run.task == "rte"}
    assert round(ahead / 100 * rows) == 3
    page = " ".join((DOCS / "patient_kd.md").read_text().split())
    assert f"PKD-last is {ahead:.1f} points ahead of vanilla KD, which is three of {rows} rows" in page

    behind = []
    for task in ("cola", "mrpc", "rte", "stsb"):
        best = {layers: max(mean(task, name, layers) for name in ("kd", "pkd-skip", "pkd-last")) for layers in (6, 3)}
        if best[6] < mean(task, "pruned-50", 12):
            behind.append(task)
        assert mean(task, "pruned-25", 12) > best[3] + 2, "a quarter is clearly better than three layers"
    page = " ".join((DOCS / "choose.md").read_text().split())
    assert behind == ["cola"] and "as good as the pruned half on [three of four tasks]" in page


def test_the_tables_beside_the_papers_are_those_of_the_results_files() -> None:
    for path, text in paper_tables.pages().items():
        assert path.read_text(encoding="utf-8") == text, "run: python benchmarks/paper_tables.py"


def test_a_papers_models_stand_beside_ours_as_shares_of_their_own_teachers() -> None:
    known = {(run.method, run.task, run.layers): run for run in reversed(pruning_table.read("base"))}

    def run(method: str, task: str, layers: int, **metrics: float) -> RunResult:
        return replace(known[method, task, layers], metrics=metrics)

    runs = [
        run("teacher", "mrpc", 12, accuracy=0.8, f1=0.1),
        run("teacher", "stsb", 12, pearson=0.1, spearmanr=0.5),
        run("kd", "mrpc", 6, accuracy=0.6, f1=0.9),
        run("kd", "mrpc", 6, accuracy=0.64, f1=0.9),
        run("kd", "stsb", 6, pearson=0.9, spearmanr=0.4),
        run("kd", "mrpc", 3, accuracy=0.8),
    ]
    paper = {
        "reference": {"scores": {"mrpc": 90, "stsb": 80, "qqp": 70}},
        "models": [
            {"name": "KD, 6 layers", "scores": {"mrpc": 81, "stsb": 76, "qqp": 70}},
            {"name": "Other, 6 layers", "scores": {"mrpc": 90}},
            {"name": "KD, 4 layers", "scores": {"mrpc": 90}},
        ],
    }
    header, _, row = paper_tables.render(paper, ["KD"], paper_tables.our_shares(runs)).splitlines()
    cells = dict(zip(*([cell.strip() for cell in line.split("|")] for line in (header, row)), strict=True))
    assert cells["Model"] == "KD, 6 layers"
    # 81 / 90, and the mean of 60 / 80 and 64 / 80; 76 / 80 and 40 / 50.
    assert (cells["MRPC, paper"], cells["MRPC, here"]) == ("90.0", "77.5 ± 3.5")
    assert (cells["STS-B, paper"], cells["STS-B, here"]) == ("95.0", "80.0")
    assert (cells["Mean, paper"], cells["Mean, here"]) == ("92.5", "78.8")


def test_the_tables_of_pruned_students_are_those_of_the_results_files() -> None:
    page = pruning_table.PAGE.read_text(encoding="utf-8")
    assert page == pruning_table.with_tables(page), "run: python benchmarks/pruning_table.py"


def test_pruned_students_stand_beside_the_best_method_of_their_size_on_the_same_tasks() -> None:
    known = {(run.method, run.task, run.layers): run for run in reversed(pruning_table.read("base"))}
    half = [replace(known["pruned-50", task, 12], value=0.8, metrics={"m": 0.8}) for task in ("cola", "rte")]
    runs = [replace(known["teacher", task, 12], value=0.9, metrics={"m": 0.9}) for task in ("cola", "rte", "sst2")]

    def add(method: str, layers: int, **values: float) -> None:
        for task, value in values.items():
            runs.append(replace(known["kd", task, layers], method=method, value=value, metrics={"m": value}))

    add("kd", 6, cola=0.5, rte=0.6, sst2=0.1)
    add("pkd-skip", 6, cola=0.5, rte=0.5, sst2=0.9)
    add("finetuned", 6, cola=0.9)  # lacks a task
    add("pkd-last", 3, cola=0.9, rte=0.9)  # of another size
    rows = [line.split("|") for line in pruning_table.render([*runs, *half]).splitlines()]
    by_name = {(row[1].strip(), row[2].strip()): row[-2].strip() for row in rows}
    assert by_name["50%", "distilled"] == "80.0" and by_name["50%", "KD, 6 layers"] == "55.0"
    assert by_name["25%", "PKD-last, 3 layers"] == "90.0" and len(by_name) == 7

    # A size of a supernet is a student like others.
    for task in ("cola", "rte"):
        supernet = known["dynabert-width", task, 12]
        size = next(size for size in supernet.subnetworks if size.width == 0.25)
        runs.append(replace(supernet, subnetworks=[replace(size, value=0.95, metrics={"m": 0.95})]))
    rendered = pruning_table.render([*runs, *half])
    assert "DynaBERT, stage width, width 0.25, 12 layers" in rendered and "PKD-last, 3 layers" not in rendered


def test_ablations_are_compared_with_the_usual_student_of_the_same_seeds() -> None:
    known = {(run.method, run.task, run.layers): run for run in reversed(pruning_table.read("base"))}
    runs: list[RunResult] = []

    def add(method: str, task: str, seed: int, before: float, value: float) -> None:
        run = known["pruned-25", task, 12]
        runs.append(replace(run, method=method, seed=seed, metrics_before={"m": before}, metrics={"m": value}))

    for seed, value in ((1, 0.5), (2, 0.7), (3, 0.1)):
        add("pruned-25", "cola", seed, 0.2, value)
    add("pruned-25", "rte", 1, 0.2, 0.6)  # a task without an ablation
    add("pruned-50", "cola", 1, 0.2, 0.6)  # a size without one
    assert pruning_table.render_ablations(runs) == ""

    add("pruned-25-score", "cola", 1, 0.1, 0.3)
    add("pruned-25-nohidden", "cola", 1, 0.2, 0.4)
    # Seeds that not all have are left out.
    add("pruned-25-nohidden", "cola", 2, 0.9, 0.9)
    runs = [replace(run, metric="m", value=run.metrics["m"]) for run in runs]
    lines = pruning_table.render_ablations(runs).splitlines()
    header, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    assert header == ["FLOPs", "Changed", "CoLA before training", "CoLA m"]
    assert rows == [
        ["25%", "nothing", "20.0", "50.0"],
        ["25%", "units stay by score alone", "10.0", "30.0"],
        ["25%", "no hidden states in the loss", "20.0", "40.0"],
    ]


def test_figures_in_sentences_about_pruned_students_are_those_of_the_results_files() -> None:
    names = [variant_name(share) for share in SHARES]
    runs = [run for run in pruning_table.read("base") if run.method in names]
    before: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        before.setdefault((run.method, run.task), []).append(main_value(run.metrics_before or {}, run.metric))

    def mean(task: str, method: str) -> float:
        files = sorted((pruning_table.RESULTS / "base" / task).glob(f"{method}-seed*.json"))
        return 100 * fmean(json.loads(file.read_text())["value"] for file in files)

    def gain(share: str, task: str) -> float:
        return mean(task, f"pruned-{share}") - 100 * fmean(before[f"pruned-{share}", task])

    page = " ".join((DOCS / "pruning.md").read_text().split())
    seeds = {task: {run.seed for run in runs if run.task == task} for task in ("cola", "mrpc", "rte", "sst2", "stsb")}
    assert seeds == {task: {42, 43} if task in ("mrpc", "rte") else {42} for task in seeds}, "as the page says"
    assert {task for method, task in before if method == "pruned-50"} == set(seeds) - {"sst2"}

    lost = []
    for run in runs:
        if run.method == "pruned-50":
            lost += [(run.teacher_metrics or {})[name] - value for name, value in (run.metrics_before or {}).items()]
    assert f"no metric at half of the FLOPs is more than {100 * max(lost):.1f} points below" in page
    assert before["pruned-12.5", "cola"] == [0]
    added = [gain("12.5", task) for task in ("mrpc", "rte", "sst2", "stsb")]
    assert f"adds {gain('12.5', 'cola'):.1f} points to that student of CoLA, and {min(added):.1f} to" in page
    assert f"to {max(added):.1f} to those of the other tasks at an eighth" in page
    assert f"at a half are {-gain('50', 'rte'):.1f} and {-gain('50', 'mrpc'):.1f} points lower" in page

    ours, kd, pkd, tuned = (mean("stsb", name) for name in ("pruned-50", "kd-6", "pkd-last-6", "finetuned-6"))
    assert f"six layers ({kd:.1f}), Patient-KD ({pkd:.1f}) and fine-tuning alone ({tuned:.1f}) are ahead" in page
    assert f"of the pruned student ({ours:.1f});" in page
    ours, kd, pkd, tuned = (mean("mrpc", name) for name in ("pruned-50", "kd-6", "pkd-skip-6", "finetuned-6"))
    second = mean("mrpc", "distilbert-kd")
    assert f"fine-tuning alone ({tuned:.1f}), vanilla KD ({kd:.1f}), Patient-KD ({pkd:.1f}) and DistilBERT's" in page
    assert f"DistilBERT's second step ({second:.1f}) are ahead of it" in page
    assert f"are ahead of it ({ours:.1f}); and on RTE" in page
    assert f"on RTE Patient-KD ({mean('rte', 'pkd-last-6'):.1f} against {mean('rte', 'pruned-50'):.1f})." in page

    training_free = json.loads((DOCS / "pruning.json").read_text())["runs"]
    # The difference that a reader of the table takes.
    value = {(run["rows"], run["share"]): round(100 * run["value"], 1) for run in training_free}
    lost = [value[2048, share] - value[512, share] for share in (0.6, 0.4, 0.2)]
    assert f"accuracy is {min(lost):.1f} to {max(lost):.1f} points lower, in half of the time" in page


def _means_of_starts(runs: Sequence[RunResult], task: str) -> tuple[float, float, float]:
    """KD from the teacher's layers, PKD-skip from pretrained ones, and pruned halves of the first one's teacher."""
    of_task = [run for run in runs if run.task == task]
    (ours,) = [run for run in of_task if run.method == "kd-teacher-layers"]
    skip = [run.value for run in of_task if run.method == "pkd-skip"]
    same_teacher = [run for run in of_task if run.teacher_metrics == ours.teacher_metrics]
    half = [run.value for run in same_teacher if run.method == "pruned-50"]
    return 100 * ours.value, 100 * fmean(skip), 100 * fmean(half)


def test_figures_in_sentences_about_the_smaller_teacher_are_those_of_the_results_files() -> None:
    page = " ".join((DOCS / "pruning.md").read_text().split())
    lines = pruning_table.render(pruning_table.read("minilm-cpu")).splitlines()[2:]
    rows = {(row[1], row[2]): row for row in ([cell.strip() for cell in line.split("|")] for line in lines)}
    seeds = {task: set[int]() for task in ("cola", "mrpc", "rte", "sst2", "stsb")}
    for run in pruning_table.read("minilm-cpu"):
        if run.method in map(variant_name, SHARES):
            seeds[run.task].add(run.seed)
    assert (seeds["sst2"], seeds["rte"], seeds["cola"]) == ({42}, {42, 43}, {42, 43, 44}), "as the page says"
    assert seeds["stsb"] == seeds["mrpc"] == seeds["cola"], "as the page says"

    # The figures that a reader of the table takes.
    means = {name: float(row[-2]) for name, row in rows.items()}
    pkd, tiny = ("50%", "PKD-skip, 3 layers"), ("12.5%", "TinyBERT, 3 layers")
    half, quarter, eighth = ((share, "distilled") for share in SHARES)

    (results,) = [one for one in read_sets(ROOT / "docs" / "results") if one.name == "minilm-cpu"]
    shares = {row["Method"]: row["Share of teacher"] for row in result_rows(summarize(results.runs))}

    def kept(name: tuple[str, str]) -> str:
        method = f"Pruned, {name[0]} of the FLOPs" if name[1] == "distilled" else name[1]
        return shares[method].replace("%", " %")

    assert f"a half of the FLOPs keeps {kept(half)} of its teachers, a quarter {kept(quarter)} and an" in page
    assert f"an eighth {kept(eighth)}. Of the other methods in this set, the best keep {kept(pkd)}, which" in page
    assert f"and {kept(tiny)}, which is TinyBERT" in page
    starts = {task: _means_of_starts(results.runs, task) for task in ("cola", "mrpc", "stsb")}
    teacher_layers, pretrained, pruned = zip(*starts.values(), strict=True)
    assert "vanilla KD reaches {:.1f} on CoLA, {:.1f} on MRPC and {:.1f} on STS-B".format(*teacher_layers) in page
    assert "PKD-skip has {:.1f}, {:.1f} and {:.1f} there".format(*pretrained) in page
    assert "of the same teachers have {:.1f}, {:.1f} and {:.1f}.".format(*pruned) in page
    gains = [after - before for after, before in zip(teacher_layers, pretrained, strict=True)]
    questions = " ".join((DOCS / "faq.md").read_text().split())
    assert f"on CoLA, MRPC and STS-B, by {min(gains):.0f} to {max(gains):.0f} points" in questions
    front = " ".join((ROOT / "README.md").read_text().split())
    assert f"to a quarter of the FLOPs, a student keeps {kept(quarter)} of its teachers' mean" in front
    assert f"and at an eighth {kept(eighth)}, with" in front
    bench = json.loads((DOCS / "benchmark" / "minilm-pruned" / "bench.json").read_text())["rows"]
    speed = {(row["model"], row["way"]): f"{row['speedup']:.1f}" for row in bench}

    def speeds(model: str) -> tuple[str, str]:
        return speed[model, "pytorch float32"], speed[model, "openvino int8"]

    ours, theirs = speeds("pruned-50"), speeds("pkd-skip")
    assert f"A half is {ours[0]} times as fast as the teacher, and {ours[1]} times in int8; three layers are" in page
    assert f"three layers are {theirs[0]} and {theirs[1]} times as fast" in page
    ours = speeds("pruned-25")
    assert f"A quarter is {ours[0]} and {ours[1]} times as fast, and its mean is" in page
    assert f"its mean is {means[quarter] - means[pkd]:.1f} points higher than that of the three layers" in page
    ours, theirs = speeds("pruned-12.5"), speeds("tinybert")
    assert f"An eighth is {ours[0]} and {ours[1]} times as fast, TinyBERT {theirs[0]} and {theirs[1]} times" in page
    assert f"with a mean that is {means[eighth] - means[tiny]:.1f} points lower" in page

    runs = {
        (run.task, run.method): run
        for run in pruning_table.read("minilm-cpu", has_ablations=True)
        if run.seed == 42 and run.method.startswith("pruned-")
    }

    def value(method: str, task: str, is_trained: bool = True) -> float:
        run = runs[task, method]
        return 100 * main_value(run.metrics if is_trained else run.metrics_before, run.metric)

    usual = "pruned-25"
    lost = {
        change: [value(usual, task) - value(f"{usual}-{change}", task) for task in ("cola", "stsb")]
        for change in ("score", "error", "unfitted", "nohidden")
    }
    assert f"the hidden states costs {lost['nohidden'][0]:.1f} points on CoLA and {lost['nohidden'][1]:.1f} on" in page
    others = max(lost["score"] + lost["error"] + lost["unfitted"])
    assert f"no other change costs more than {others:.1f} points" in page
    started = [value(method, "cola", False) for method in (usual, f"{usual}-score", f"{usual}-error")]
    assert f"reaches {started[0]:.1f} on CoLA, and {started[1]:.1f} or {started[2]:.1f} by one order alone" in page
    started = [value(method, "stsb", False) for method in (usual, f"{usual}-score", f"{usual}-error")]
    assert max(started) - min(started) < 0.5 and "on STS-B the orders differ by less than half a point" in page
    rungs = [value(f"pruned-12.5{end}", "cola", trained) for trained in (False, True) for end in ("-rungs", "")]
    assert f"starts at {rungs[0]:.1f} in rungs and at {rungs[1]:.1f} without them" in page
    assert f"ends at {rungs[2]:.1f} and {rungs[3]:.1f}" in page


def test_figures_in_sentences_about_dynabert_beside_pruning_are_those_of_the_results_files() -> None:
    tasks = ("cola", "mrpc", "sst2", "stsb")
    folder = pruning_table.RESULTS

    def records(name: str) -> list[RunResult]:
        return [read_result(folder / name.replace("TASK", task)) for task in tasks]

    pruned = {share: records(f"minilm-cpu/TASK/pruned-{share}-seed42.json") for share in ("50", "25", "12.5")}
    teachers = [main_value(run.teacher_metrics, run.metric) for run in pruned["50"]]
    first = [main_value(run.teacher_metrics, run.metric) for run in records("minilm/TASK/dynabert-width-seed42.json")]
    assert first == pytest.approx(teachers), "both sets have the same teachers"

    def best(width: float, depth: float) -> float:
        means = []
        for stage in ("width", "depth", "finetune"):
            sizes = [
                next((size.value for size in run.subnetworks if (size.width, size.depth) == (width, depth)), math.nan)
                for run in records(f"minilm/TASK/dynabert-{stage}-seed42.json")
            ]
            means.append(sum(sizes) / sum(teachers))
        return 100 * max(mean for mean in means if not math.isnan(mean))

    ours = {share: 100 * sum(run.value for run in runs) / sum(teachers) for share, runs in pruned.items()}
    page = " ".join((DOCS / "pruning.md").read_text().split())
    assert f"it keeps {best(0.5, 1):.1f} % at half of the width, where the pruned students of the same seed" in page
    assert f"of the same seed keep {ours['50']:.1f} %; {best(0.25, 1):.1f} % at a quarter of the width" in page
    assert f"a quarter of the width, where these keep {ours['25']:.1f} %; and {best(0.25, 0.5):.1f} % at" in page
    assert f"half of the depth, where these keep {ours['12.5']:.1f} %" in page

    # Task by task, at a half, of the stage that keeps the most.
    supernets = records("minilm/TASK/dynabert-finetune-seed42.json")
    halves = [
        next(size.value for size in run.subnetworks if (size.width, size.depth) == (0.5, 1)) for run in supernets
    ]
    assert 100 * sum(halves) / sum(teachers) == pytest.approx(best(0.5, 1))
    ahead = [100 * (run.value - half) for run, half in zip(pruned["50"], halves, strict=True)]
    assert f"there DynaBERT has {100 * halves[0]:.1f} by its best stage" in page and ahead[0] < 0
    seeds = [100 * read_result(folder / f"minilm-cpu/cola/pruned-50-seed{seed}.json").value for seed in (42, 43, 44)]
    assert f"the pruned students {statistics.mean(seeds):.1f} ± {statistics.stdev(seeds):.1f} over three seeds" in page
    assert f"{seeds[0]:.1f} with the same one" in page
    assert f"the pruned student is ahead, by {min(ahead[1:]):.1f} to {max(ahead[1:]):.1f} points" in page


def test_constant_answers_have_the_shares_that_the_pages_name(shared_data: Path) -> None:
    known = {(run.method, run.task, run.layers): run for run in pruning_table.read("base")}
    majority = {}
    for task in ("rte", "mrpc", "sst2"):
        labels = load_glue(task, shared_data / "glue", splits=["validation"])["validation"]["label"]
        most = max(labels.count(label) for label in set(labels)) / len(labels)
        majority[task] = 100 * most / known["teacher", task, 12].metrics["accuracy"]
    rte, mrpc, sst2 = (f"{majority[task]:.0f} %" for task in ("rte", "mrpc", "sst2"))
    for name in ("kd.md", "patient_kd.md", "dynabert.md"):
        text = " ".join((DOCS / name).read_text().split())
        told = "Read these shares with care: a model that always gives the most frequent answer keeps"
        assert f"{told} {rte} on RTE, {mrpc} on MRPC, and {sst2} on SST-2." in text

    text = " ".join((DOCS / "pruning.md").read_text().split())
    rte_answer = majority["rte"] * known["teacher", "rte", 12].metrics["accuracy"]
    assert f"a constant answer, which has {rte_answer:.1f} %" in text
    small = [run for run in pruning_table.read("minilm-cpu") if run.task == "stsb"]
    (theirs,) = {main_value(run.teacher_metrics, run.metric) for run in small if run.method == "pkd-skip"}
    ours = {main_value(run.teacher_metrics, run.metric) for run in small if run.method.startswith("pruned")}
    assert f"is better by {100 * (theirs - sum(ours) / len(ours)):.1f} points than those of the pruned" in text


def test_figures_of_a_cpu_without_int8_are_those_of_its_measurement() -> None:
    page = " ".join((DOCS / "export.md").read_text().split())
    content = json.loads((DOCS / "benchmark" / "avx2" / "bench.json").read_text())
    assert content["hardware"]["instructions"] == ["avx2"]
    half, whole = (
        {row["way"]: row["p50_ms"] for row in content["rows"] if row["model"] == model}
        for model in ("gflops-50pct", "teacher")
    )
    vino, onnx = (
        [f"{half[f'{engine} {precision}']:.1f}" for precision in ("int8", "float32")]
        for engine in ("openvino", "onnxruntime")
    )
    assert f"takes {vino[0]} ms in OpenVINO's int8 and {vino[1]} ms in its float32" in page
    assert f"and in ONNX Runtime {onnx[0]} and {onnx[1]} ms" in page
    for ms in (half, whole):
        assert ms["openvino float32"] < ms["openvino int8"], "not always the faster one"
    # The front page: little or nothing.
    assert whole["openvino float32"] / whole["onnxruntime int8"] < 1.1
