"""The command `bertkd` itself: its help, its answers to mistakes, dry runs, records without secrets, and uploads."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from conftest import ROOT
from datasets import Dataset, DatasetDict
from helpers import tiny_model
from huggingface_hub.errors import LocalTokenNotFoundError
from huggingface_hub.utils import filter_repo_objects
from parsing import all_parsers
from transformers import TrainerCallback, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

import bertkd.cli
from bertkd import DistillationConfig, DistillationTrainer, methods
from bertkd.cli import COMMANDS, IN_ONE_PROCESS, compress, dynabert, kd, main, mlm, patient_kd, resolve, tinybert
from bertkd.cli import run_command as run_named
from bertkd.cli.commands import check_outputs, run_safely, sentence_of
from bertkd.cli.parser import CommandParser, command_line, parse_runs
from bertkd.cli.shipped import settings_path, shipped_settings
from bertkd.data import GLUE_TASKS
from bertkd.distillation.method import Method
from bertkd.pipeline import hub

SECRET = "hf_" + "aB3" * 11 + "x"
QUICK = ["--use_cpu", "--disable_tqdm", "true", "--max_train_samples", "64", "--max_eval_samples", "48"]


@pytest.fixture
def student(glue_dir: Path, pretrained: Path) -> list[str]:
    """The options of a distillation; the teacher is the tiny model itself."""
    models = ["--model_name_or_path", str(pretrained), "--teacher_model_name_or_path", str(pretrained)]
    data = ["--task_name", "sst2", "--glue_dir", str(glue_dir), *QUICK, "--num_train_epochs", "1"]
    labels = ["--teacher_labels", "negative", "positive", "--ignore_weak_teacher"]
    return [*models, *data, *labels, "--num_student_layers", "2"]


def written(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# ---- help ----


def test_the_help_fits_a_screen_and_names_every_command(capsys: pytest.CaptureFixture) -> None:
    main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 100
    for name in COMMANDS:
        assert any(line.split()[:1] == [name] for line in lines), name


def test_every_command_has_a_parser() -> None:
    assert list(all_parsers()) == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_help_text_is_a_fragment(command: str) -> None:
    parser = all_parsers()[command]
    shown = parser._actions
    if isinstance(parser, CommandParser):
        shown = [action for actions in parser._sections("own").values() for action in actions]
    inherited = {"per_device_train_batch_size", "num_train_epochs", "max_steps", "learning_rate", "weight_decay"}
    inherited |= {"warmup_steps", "gradient_accumulation_steps", "bf16", "use_cpu", "output_dir", "seed"}
    inherited |= {"push_to_hub", "hub_model_id"}

    for action in shown:
        text = " ".join((action.help or "").split())
        assert text, f"--{action.dest} of {command} has no help"
        if action.dest in inherited or action.dest == "help":
            continue  # transformers' and argparse's own words
        assert text[0].isupper() and text.endswith("."), f"--{action.dest} of {command}: {text}"
        assert len(text.split()) >= 4, f"--{action.dest} of {command}: {text}"


def test_the_first_screen_of_a_command_has_its_own_options_in_groups(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        kd.main(["--help"])
    own = capsys.readouterr().out
    titles = [line.rstrip(":") for line in own.splitlines() if re.fullmatch(r"[A-Z]\w+:", line)]
    assert titles == ["Models", "Data", "Method", "Training", "Output"]
    assert "--alpha" in own and "--dry_run" in own and "--adam_beta1" not in own and "(default: 0.5)" in own
    with pytest.raises(SystemExit):
        kd.main(["--help", "all"])
    every = capsys.readouterr().out
    assert "--adam_beta1" in every and len(every) > 2 * len(own)


def test_a_method_that_is_only_a_folder_has_a_command_of_its_own(
    student: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Doubled(DistillationTrainer):
        def kd_loss(self, student_logits: Any, teacher_logits: Any) -> Any:
            return 2 * super().kd_loss(student_logits, teacher_logits)

    method = Method("doubled", "Doubled KD", "doubled-kd", "2611.00001", Doubled, defaults={"alpha": 0.25})
    known = methods.all_methods()
    monkeypatch.setattr(methods, "all_methods", lambda: (*known, method))
    main(["doubled-kd", *student, "--output_dir", str(tmp_path)])
    written_record = json.loads((tmp_path / "results.json").read_text())
    assert written_record["method"] == "doubled" and written_record["settings"]["alpha"] == 0.25
    with pytest.raises(SystemExit, match="did you mean doubled-kd?"):
        main(["doubled_k"])


# ---- mistakes ----


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["exprot"], "there is no command exprot, did you mean export?"),
        (["nothing-like-it"], "there is no command nothing-like-it."),
    ],
)
def test_an_unknown_command_is_answered_with_the_nearest(words: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=re.escape(message)):
        main(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["kd", "--temprature", "3"], "there is no option --temprature, did you mean --temperature?"),
        (["kd", "--teacher", "x"], "no option --teacher, did you mean --teacher_model_name_or_path? --help lists"),
        (["finetune", "--lr", "1e-4"], "did you mean --learning_rate?"),
        (["finetune", "--batch_size", "8"], "did you mean --per_device_train_batch_size?"),
        (["bench", "--lr", "1"], "there is no option --lr. --help lists the options."),
        (
            ["kd", "--seed", "1,2"],
            "'1,2' is not a whole number. Put spaces between several: --seed 1 2; in a file, seed: [1, 2].",
        ),
        (["finetune", "--unlabeled_file", "x.csv"], "`bertkd finetune` does not use --unlabeled_file"),
        (["bench", "bert6", "--repeat", "3"], "there is no option --repeat, did you mean --repeats?"),
        (["kd", "--push_to_hub", "--hub_strategy", "end", "--use_cpu"], "--hub_strategy is not used"),
        (["kd", "--prediction_loss_only", "--use_cpu"], "--prediction_loss_only: a metric needs the answers of all"),
        (["export", "--test_file", "x.csv", "--use_cpu"], "`bertkd export` does not use --test_file"),
        (["kd", "--push_to_hub", "--seed", "1", "2", "--use_cpu"], "--push_to_hub uploads one model"),
        (["kd", "--help", "everything"], "write --help, or --help all"),
        (["kd", "--config", "patient_kd/sst3"], "there is no such file, nor shipped settings of that name"),
        (["patient-kd", "--config", "kd/sst2", "--beta", "much"], "invalid float value: 'much'"),
    ],
)
def test_a_wrong_option_is_one_sentence(words: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert message in capsys.readouterr().err


def test_a_mistake_is_one_sentence_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bertkd", "kd", "--use_cpu", "--output_dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-2].startswith("bertkd kd: Name a task with --task_name")


# ---- settings ----


def test_shipped_settings_are_found_by_name_and_by_their_earlier_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {"kd/sst2", "patient_kd/rte-3layer", "distilbert/original", "accelerate/multi_gpu"} <= {*shipped_settings()}
    by_name = settings_path("patient_kd/sst2")
    assert by_name == settings_path("patient_kd/sst2.yaml")
    # Where the recipes are not: the name that an earlier version's commands have.
    monkeypatch.chdir(tmp_path)
    assert by_name == settings_path("recipes/configs/patient_kd/sst2.yaml")
    own = tmp_path / "mine.yaml"
    own.write_text("alpha: 0.3\n")
    assert settings_path(str(own)) == own


def test_configs_prints_settings_that_are_valid_as_a_file(capsys: pytest.CaptureFixture) -> None:
    run_named("configs", [])
    assert "patient_kd/sst2" in capsys.readouterr().out.split()
    run_named("configs", ["accelerate/multi_gpu"])
    assert yaml.safe_load(capsys.readouterr().out)["distributed_type"] == "MULTI_GPU"


def test_env_tells_versions_hardware_and_engines(capsys: pytest.CaptureFixture) -> None:
    run_named("env", ["--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["torch"] and found["hardware"]["cores"] and "float32" in found["engines"]["pytorch"]
    run_named("env", [])
    assert "instructions:" in capsys.readouterr().out


# ---- dry runs ----


def check_plan(out: str, folder: Path) -> None:
    for title in ("Method:", "Student:", "Teacher:", "Teacher cache:", "Rows:", "Steps:", "Output folder:"):
        assert title in out, title
    assert re.search(r"Estimated time: +\d+:\d\d:\d\d on this machine: \d+\.\d\d s per step", out)
    assert not written(folder)


@pytest.mark.parametrize("train", [kd.main, patient_kd.main])
def test_a_dry_run_says_what_would_be_trained_and_leaves_nothing(
    train: Callable[[Sequence[str]], Any], student: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cache = ["--teacher_cache_dir", str(tmp_path / "cache"), "--teacher_cache_dtype", "float16"]
    options = [*student, "--dry_run", *cache]
    assert train([*options, "--output_dir", str(tmp_path / "run"), "--per_device_train_batch_size", "16"]) == []
    out = capsys.readouterr().out
    check_plan(out, tmp_path)
    assert "2 layers" in out and "64 to train on" in out and "4 of 16 rows (1 epochs)" in out


def test_a_dry_run_of_several_stages_tells_each(
    student: list[str], glue_dir: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    models = [word for word in student if word not in ("--num_student_layers", "2")]
    tinybert.main([*models, "--dry_run", "--augment_copies", "2", "--output_dir", str(tmp_path)])
    out = capsys.readouterr().out
    check_plan(out, tmp_path)
    assert out.count("Dry run") == 2 and "tinybert-intermediate" in out and "192 to train on" in out
    dynabert.main([*models, "--dry_run", "--importance_rows", "16", "--output_dir", str(tmp_path)])
    out = capsys.readouterr().out
    check_plan(out, tmp_path)
    assert out.count("Dry run") == 3 and "dynabert-finetune" in out


def test_a_dry_run_tells_no_tracker(
    student: list[str],
    pretrained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    made: list[str] = []

    class Tracker(TrainerCallback):
        def __init__(self) -> None:
            made.append("tracker")

    monkeypatch.setattr(bertkd.cli.parser, "get_available_reporting_integrations", lambda: ["tensorboard"])
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "tensorboard", Tracker)
    reports = ["--report_to", "tensorboard", "--dry_run", "--output_dir", str(tmp_path / "run")]
    models = [word for word in student if word not in ("--num_student_layers", "2")]
    kd.main([*models, *reports])
    tinybert.main([*models, "--no_augment", *reports])

    corpus = tmp_path / "texts.txt"
    corpus.write_text("\n".join(f"a fine film number {i} and a plot" for i in range(60)))
    texts = ["--model_name_or_path", str(pretrained), "--corpus_files", str(corpus), "--eval_rows", "8", "--use_cpu"]
    mlm.main([*texts, "--max_seq_length", "16", *reports])

    assert capsys.readouterr().out.count("Estimated time:") == 4
    assert not made and not written(tmp_path / "run")


def test_a_dry_run_counts_the_variants_of_both_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Dataset.from_dict({"sentence1": ["a film"], "sentence2": ["the plot"], "label": [1]})
    own = tinybert.TinyBertOptions(dry_run=True, augment_copies=3)
    monkeypatch.setattr(resolve, "tokenized", lambda _options, rows, _task: rows)
    options: Any = SimpleNamespace(own=own)
    found: Any = resolve.augmented_data(options, DatasetDict(train=rows), GLUE_TASKS["mrpc"])
    assert len(found["train"]) == 7


def test_a_dry_run_on_a_corpus(pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    corpus = tmp_path / "texts.txt"
    corpus.write_text("\n".join(f"a fine film number {i} and a plot" for i in range(60)))
    options = ["--model_name_or_path", str(pretrained), "--corpus_files", str(corpus), "--eval_rows", "8"]
    mlm.main([*options, "--use_cpu", "--dry_run", "--max_seq_length", "16", "--output_dir", str(tmp_path / "run")])
    check_plan(capsys.readouterr().out, tmp_path / "run")


def test_a_dry_run_of_compress_chooses_a_size_and_leaves_nothing(
    student: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = [word for word in student if word not in ("--num_student_layers", "2")]
    start = words.index("--model_name_or_path")
    del words[start : start + 2]
    budget = ["--method", "kd", "--budget", "1e9", "--unit", "parameters", "--engine", "pytorch"]
    compress.main([*words, *budget, "--precision", "float32", "--dry_run", "--output_dir", str(tmp_path / "run")])
    out = capsys.readouterr().out
    check_plan(out, tmp_path / "run")
    assert "The largest student within 1e9 parameters: 4 layers" in out and "4 layers, " in out


@pytest.mark.parametrize("command", ["export", "search", "shrink", "augment"])
def test_commands_that_train_nothing_have_no_dry_run(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        run_named(command, ["--dry_run"])
    assert "there is no option --dry_run" in capsys.readouterr().err


# ---- records and uploads ----


def test_a_token_is_hidden_in_the_recorded_command() -> None:
    for words in (["--hub_token", SECRET, "--alpha", "0.5"], [f"--hub_token={SECRET}", "--alpha", "0.5"]):
        line = command_line("kd", words)
        assert SECRET not in line and line.startswith("bertkd kd --hub_token") and line.endswith("--alpha 0.5")


def test_a_recipe_is_recorded_as_it_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(ROOT / "recipes" / "patient_kd.py"), "--alpha", "0.5"])
    assert command_line("patient-kd", None) == "python recipes/patient_kd.py --alpha 0.5"


class FakeHub:
    """Stands for the hub, and remembers what reaches it."""

    def __init__(self) -> None:
        self.tokens: list[str | None] = []
        self.repositories: list[tuple[str, bool | None]] = []
        self.files: dict[str, str] = {}
        self.revisions: list[str | None] = []
        self.refuses = False

    def connect(self, token: str | None = None) -> "FakeHub":
        self.tokens.append(token)
        return self

    def whoami(self) -> dict[str, str]:
        if self.refuses:
            raise LocalTokenNotFoundError("Token is required, but no token found.")
        return {"name": "somebody"}

    def create_repo(self, name: str, private: bool | None = None, exist_ok: bool = False) -> Any:
        assert exist_ok
        self.repositories.append((name, private))
        return SimpleNamespace(repo_id=f"somebody/{name}")

    def upload_folder(
        self, repo_id: str, folder_path: Path, ignore_patterns: list[str], revision: str | None = None, **_: Any
    ) -> None:
        self.revisions.append(revision)
        for path in written(Path(folder_path)):
            name = str(path.relative_to(folder_path))
            if not any(fnmatch(name, pattern) for pattern in ignore_patterns):
                self.files[name] = path.read_bytes().decode("utf-8", errors="ignore")


def test_a_finished_folder_is_uploaded_with_its_card_and_without_the_token(
    student: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    fake = FakeHub()
    monkeypatch.setattr(hub, "HfApi", fake.connect)
    upload = ["--push_to_hub", "--hub_model_id", "my-student", "--hub_token", SECRET, "--hub_private_repo", "true"]
    upload += ["--hub_revision", "next"]
    (result,) = kd.main([*student, *upload, "--keep_checkpoints", "--output_dir", str(tmp_path)])

    assert set(fake.tokens) == {SECRET} and fake.repositories == [("my-student", True)]
    assert fake.revisions == ["next"]
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "results.json"} <= fake.files.keys()
    assert not any("checkpoint" in name or name == "settings.json" for name in fake.files)
    assert f"{100 * result.value:.1f}" in fake.files["README.md"]
    assert SECRET not in result.command
    out = capfd.readouterr()
    assert SECRET not in out.out + out.err
    assert list(tmp_path.glob("checkpoint-*"))
    for path in written(tmp_path):
        assert SECRET.encode() not in path.read_bytes(), path


def test_an_upload_is_asked_for_before_the_training_and_made_up_for_after_it(
    student: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeHub()
    monkeypatch.setattr(hub, "HfApi", fake.connect)
    fake.refuses = True
    words = [*student, "--output_dir", str(tmp_path / "run")]
    with pytest.raises(ValueError, match="--push_to_hub: .* does not know you.*no token found.*hf auth login"):
        kd.main([*words, "--push_to_hub"])
    assert not written(tmp_path)

    fake.refuses = False
    kd.main(words)
    assert not fake.repositories
    kd.main([*words, "--push_to_hub"])
    assert fake.repositories == [("run", None)] and "model.safetensors" in fake.files


def test_of_several_stages_the_last_one_is_uploaded_and_of_several_budgets_none(
    student: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeHub()
    monkeypatch.setattr(hub, "HfApi", fake.connect)
    teacher, layers = student.index("--teacher_model_name_or_path"), student.index("--num_student_layers")
    words = [*student[teacher:layers], "--push_to_hub", "--output_dir", str(tmp_path / "sizes")]
    few = ["--init_from", "teacher", "--importance_rows", "16", "--max_steps", "1"]
    run_named("dynabert", [*words, *few, "--width_mult_list", "1", "--depth_mult_list", "1"])
    assert fake.repositories == [("sizes", None)]
    with pytest.raises(SystemExit, match="--push_to_hub uploads one model: give one --budget"):
        run_named("prune", [*words[:-1], str(tmp_path / "p"), "--budget", "60%", "40%", "--unit", "parameters"])


@pytest.mark.parametrize(
    ("name", "is_uploaded"),
    [
        ("model.safetensors", True),
        ("README.md", True),
        ("intermediate/model.safetensors", False),
        ("start/config.json", False),
        ("settings.json", False),
        ("part/settings.json", False),
        ("part/checkpoint-2/model.safetensors", False),
        ("_in_use", False),
        ("part/_in_use", False),
    ],
)
def test_what_belongs_to_this_machine_stays_here(name: str, is_uploaded: bool) -> None:
    assert bool(list(filter_repo_objects([name], ignore_patterns=hub.LOCAL_FILES))) == is_uploaded


# ---- launchers ----


@pytest.mark.parametrize("switch", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_a_model_that_is_split_over_gpus_is_refused(
    switch: str, student: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = parse_runs("kd", "", DistillationConfig, [*student, "--output_dir", str(tmp_path / "run")])
    monkeypatch.setenv(switch, "true")
    with pytest.raises(ValueError, match="FSDP and DeepSpeed split a model over GPUs.*accelerate/multi_gpu"):
        check_outputs(runs)


def test_several_gpus_of_one_process_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = DistillationConfig(output_dir=str(tmp_path), use_cpu=True, alpha=0.0)
    monkeypatch.setattr(DistillationConfig, "n_gpu", property(lambda _self: 2))
    with pytest.raises(ValueError, match="2 GPUs are visible to one process: start one process per GPU"):
        DistillationTrainer(model=tiny_model(), args=args)


def test_a_dry_run_that_measures_is_for_one_process(
    student: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, layers = student.index("--teacher_model_name_or_path"), student.index("--num_student_layers")
    monkeypatch.setattr(TrainingArguments, "world_size", property(lambda _self: 2))
    words = [*student[teacher:layers], "--budget", "50%", "--dry_run", "--output_dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match="--dry_run of bertkd prune measures in one process"):
        run_named("prune", words)


@pytest.mark.parametrize("command", sorted(IN_ONE_PROCESS))
def test_a_command_that_does_not_train_is_refused_under_a_launcher(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match=f"bertkd {command} runs in one process: start it without a launcher"):
        run_named(command, ["--output_dir", "never"])


def test_a_process_whose_group_is_gone_blames_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    words = ["--output_dir", str(tmp_path)]
    assert "a fault of bertkd" in sentence_of(gone, "bertkd kd", words) and (tmp_path / "bertkd-error.log").is_file()
    sentence_of(KeyError(f"refused for {SECRET}"), "bertkd kd", words)
    assert "refused for HIDDEN" in (log := (tmp_path / "bertkd-error.log").read_text()) and SECRET not in log
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert sentence_of(gone, "bertkd kd", words) == "another process has ended: see what it says, if it could."
    assert str(tmp_path / "bertkd-error-1.log") in sentence_of(KeyError("a"), "bertkd kd", words)


# ---- signals ----


def test_a_program_that_is_told_to_end_cleans_up() -> None:
    cleaned = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            cleaned.append(True)

    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ending:
            run_safely(work, "bertkd kd", [])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ending.value.code == 143 and cleaned


def test_ctrl_c_before_the_command_begins_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bertkd.cli.importlib, "import_module", interrupted)
    with pytest.raises(SystemExit) as ending:
        main(["kd"])
    assert ending.value.code == 130


# The command, its options besides those of a teacher and of data, and the folder of its last model.
IN_TWO_PROCESSES = {
    "kd": (["--init_from", "teacher", "--num_student_layers", "2"], "."),
    "dynabert": (["--stages", "width", "depth", "--importance_rows", "16", "--init_from", "teacher"], "depth"),
    "tinybert": (["--init_from", "teacher", "--num_student_layers", "2", "--augment", "false"], "."),
    "prune": (["--budget", "90%", "--unit", "parameters"], "."),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", IN_TWO_PROCESSES)
def test_torchrun_starts_the_command_in_two_processes(command: str, student: list[str], tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "bertkd"]
    own, last = IN_TWO_PROCESSES[command]
    of_teacher = student[student.index("--teacher_model_name_or_path") : student.index("--num_student_layers")]
    options = [*of_teacher, *own, "--max_steps", "2", "--output_dir", str(tmp_path)]
    done = subprocess.run([*launcher, command, *options], capture_output=True, text=True, cwd=ROOT, timeout=280)
    sentences = [line for line in done.stderr.splitlines() if line.startswith("bertkd ")]
    assert done.returncode == 0, sentences or done.stderr[-2000:]
    assert json.loads((tmp_path / last / "settings.json").read_text())["world_size"] == 2
    assert json.loads((tmp_path / last / "results.json").read_text())["layers"] > 0
    assert (tmp_path / last / "model.safetensors").is_file()


def test_every_recipe_is_a_command() -> None:
    scripts = {path.stem for path in (ROOT / "recipes").glob("*.py")}
    of_benchmarks = {"benchmark_training", "collect_results", "reproduce"}
    for script in scripts - of_benchmarks:
        (name,) = re.findall(r'run_command\("([\w-]+)"\)', (ROOT / "recipes" / f"{script}.py").read_text())
        assert name in COMMANDS
    assert len(scripts - of_benchmarks) == len(COMMANDS) - 3  # env, configs and prune are new
