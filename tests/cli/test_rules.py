"""Options that have no effect are found by what they declare, numbers by their range, and YAML is read as text."""

import math
from pathlib import Path
from typing import Any

import pytest
from parsing import parse

from bertkd import (
    DistilBertKDConfig,
    DistillationConfig,
    DynaBertKDConfig,
    PatientKDConfig,
    TinyBertKDConfig,
)
from bertkd.cli import augment, compress, distilbert, dynabert, export, mlm, prune, rules, search, shrink, tinybert
from bertkd.cli.options import SHARED, CorpusOptions, ModelOptions, ShapeOptions, TaskOptions, TrainOptions
from bertkd.cli.parser import CommandParser, parse_runs
from bertkd.cli.rules import COUNT, POSITIVE, SHARE, Range, unmet_need
from bertkd.cli.settings_file import read_options
from bertkd.pruning import PrunedKDConfig

COMMANDS: dict[str, tuple[Any, Any, Any]] = {
    "augment": (TaskOptions, augment.AugmentOptions, DistillationConfig),
    "compress": (TaskOptions, compress.TinyBertCompressOptions, TinyBertKDConfig),
    "distilbert": (CorpusOptions, distilbert.DistilBertOptions, DistilBertKDConfig),
    "dynabert": (TaskOptions, dynabert.DynaBertOptions, DynaBertKDConfig),
    "export": (TaskOptions, export.ExportOptions, DistillationConfig),
    "finetune": (TaskOptions, TrainOptions, DistillationConfig),
    "kd": (TaskOptions, TrainOptions, DistillationConfig),
    "mlm": (CorpusOptions, mlm.MaskedLMOptions, DistilBertKDConfig),
    "patient-kd": (TaskOptions, TrainOptions, PatientKDConfig),
    "prune": (TaskOptions, prune.PruneOptions, PrunedKDConfig),
    "search": (TaskOptions, search.SearchOptions, DistillationConfig),
    "shrink": (TaskOptions, shrink.ShrinkOptions, DistillationConfig),
    "tinybert": (TaskOptions, tinybert.TinyBertOptions, TinyBertKDConfig),
    "tinybert-general": (CorpusOptions, ShapeOptions, TinyBertKDConfig),
}


def parser_of(command: str) -> CommandParser:
    return CommandParser(command, "", (ModelOptions, *COMMANDS[command]), {})


@pytest.fixture(scope="module")
def parsers() -> dict[str, CommandParser]:
    return {command: parser_of(command) for command in COMMANDS}


def test_every_rule_is_about_an_option_that_there_is(parsers: dict[str, CommandParser]) -> None:
    known = {name for parser in parsers.values() for name in parser.needs}
    assert {*rules.CONFIG_NEEDS, *rules.CONFIG_RANGES, *rules.ONLY_NAMED} <= known
    # What is shared already is not listed once more.
    assert not rules.ONLY_NAMED & SHARED

    for command, needs in rules.COMMAND_NEEDS.items():
        assert needs.keys() <= known, command
    for command, parser in parsers.items():
        assert rules.unused_options(command) <= {*parser.needs}, command
        for needs in parser.needs.values():
            for need in [needs] if isinstance(needs, str) else needs:
                for choice in need.split(" or "):
                    assert choice.removeprefix("not ").partition("=")[0] in known, need


def test_a_value_that_an_option_needs_is_one_of_its_choices(parsers: dict[str, CommandParser]) -> None:
    for parser in parsers.values():
        for needs in parser.needs.values():
            for need in [needs] if isinstance(needs, str) else needs:
                option, _, wanted = need.partition("=")
                action = parser.option(option)
                if wanted and action is not None and action.choices:
                    assert {*wanted.split("|")} <= {*map(str, action.choices)}, need


def test_the_help_leaves_out_what_a_command_does_not_use(capsys: pytest.CaptureFixture) -> None:
    parser_of("finetune").print_help_of("all")
    assert "--teacher_labels" not in (shown := capsys.readouterr().out) and "--learning_rate" in shown
    parser_of("export").print_help_of("own")
    assert "--num_train_epochs" not in (shown := capsys.readouterr().out) and "--precision" in shown


def test_notes_names_and_timings_that_nothing_reads_are_no_options(parsers: dict[str, CommandParser]) -> None:
    unread = {
        "augment": {"paper", "result_name"},
        "distilbert": {"paper", "measure_speedup"},
        "export": {"paper"},
        "mlm": {"paper", "measure_speedup"},
        "search": {"paper", "result_name"},
        "tinybert-general": {"paper", "measure_speedup"},
    }
    for command, parser in parsers.items():
        assert parser.unused & {"paper", "result_name", "measure_speedup"} == unread.get(command, set()), command


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        ("augment", None),
        ("bf16", "unless --bf16 is true"),
        ("cache", "unless --cache is given"),
        ("not augment", "beside --augment"),
        ("start=teacher", None),
        ("start=pretrained|random", r"where --start is teacher (it needs pretrained or random)"),
        ("stages=width", None),
        ("stages=finetune", "where --stages is width depth (it needs finetune)"),
        ("bf16 or augment", None),
        ("bf16 or cache", "without --bf16 or --cache"),
        ("steps", "unless --steps is given"),
        (["augment", "bf16"], "unless --bf16 is true"),
        ("an_option_of_another_command", None),
    ],
)
def test_a_need_holds_or_says_why_it_does_not(needs: str | list[str], reason: str | None) -> None:
    values = {
        "augment": True,
        "bf16": False,
        "cache": None,
        "start": "teacher",
        "stages": ["width", "depth"],
        "steps": -1,
    }
    assert unmet_need(needs, values) == reason


def test_a_range_knows_its_ends_and_its_words() -> None:
    assert [COUNT.contains(number) for number in (-1, 0, 1, math.inf, math.nan)] == [False, False, True, False, False]
    assert not POSITIVE.contains(0) and POSITIVE.contains(1e-9)
    assert SHARE.contains(0) and SHARE.contains(1) and not SHARE.contains(1.1)
    assert Range(least=1, unless=-1).contains(-1) and not Range().contains(math.nan)
    assert [str(COUNT), str(POSITIVE), str(Range())] == ["at least 1", "greater than 0", "a finite number"]
    assert str(Range(least=1, unless=-1)) == "at least 1, or -1 for none"
    assert str(Range(least=0, most=1, is_open=True)) == "greater than 0 and at most 1"


def test_a_value_that_is_the_default_is_no_mistake() -> None:
    words = ["--use_cpu", "--teacher_cache_dtype", "float32", "--hub_token", "x", "--push_to_hub"]
    (run,) = parse(DistillationConfig, words)
    assert run.config.teacher_cache_dtype == "float32"


def test_options_of_a_file_give_way_to_the_command_line_and_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "mine.yaml").write_text("augment_copies: 3\nstudent_shape: TinyBERT4\n")
    words = ["--config", str(tmp_path / "mine.yaml"), "--use_cpu", "--augment", "false"]
    (run,) = parse(TinyBertKDConfig, words, own_class=tinybert.TinyBertOptions)
    assert not run.own.augment and run.own.student_shape == "TinyBERT4"
    assert "mine.yaml: --augment_copies has no effect unless --augment is true" in (said := capsys.readouterr().err)
    assert "student_shape" not in said


@pytest.mark.parametrize(
    ("command", "words", "sentence"),
    [
        ("dynabert", "--no_rewire --importance_rows 9", "--importance_rows has no effect unless --rewire is true"),
        ("dynabert", "--model_name_or_path x", "--model_name_or_path has no effect where --init_from is teacher"),
        (
            "tinybert",
            "--model_name_or_path x --student_shape TinyBERT4",
            "--student_shape has no effect beside",
        ),
        ("tinybert", "--augment false --augment_copies 3", "--augment_copies has no effect unless --augment is true"),
        ("kd", "--num_train_epochs 3 --max_steps 9", "--num_train_epochs has no effect beside --max_steps"),
        ("export", "--learning_rate 1e-3", "`bertkd export` does not use --learning_rate"),
        ("mlm", "--measure_speedup false", "`bertkd mlm` does not use --measure_speedup"),
        ("prune", "--unit gflops --precision int8", "--precision has no effect where --unit is gflops"),
        ("search", "--unit mb --threads 2", "--threads has no effect where --unit is mb"),
        ("prune", "--batch_size 4", "--batch_size 4 is the rows of a timed pass; a training's are"),
    ],
)
def test_options_that_scripts_share_are_named(
    command: str, words: str, sentence: str, capsys: pytest.CaptureFixture
) -> None:
    data_class, own_class, config_class = COMMANDS[command]
    defaults = {"init_from": "teacher"} if command == "dynabert" else {}
    parse_runs(command, "", config_class, ["--use_cpu", *words.split()], defaults, own_class, data_class)
    assert f"note: {sentence}" in capsys.readouterr().err


def test_words_of_yaml_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "# a comment\nstrategy: 1:2\nclass_names: [no, yes, 010, 1.50, NaN]\nbf16: on\nmax_eval_samples: 010\n"
        "lr_scheduler_kwargs: {min_lr: 1e-6, name: no, text: '1'}\nlearning_rate: 2e-5\n"
    )
    options = read_options(str(path))
    assert options["strategy"] == "1:2" and options["class_names"] == ["no", "yes", "010", "1.50", "NaN"]
    assert options["lr_scheduler_kwargs"] == '{"min_lr": 1e-06, "name": "no", "text": "1"}'

    words = ["--config", str(path), "--use_cpu", "--train_file", "a", "--validation_file", "b"]
    (run,) = parse(PatientKDConfig, words)
    assert run.config.strategy == "1:2" and run.config.bf16 and run.config.learning_rate == 2e-5
    assert run.data.class_names == ["no", "yes", "010", "1.50", "NaN"] and run.data.max_eval_samples == 10


def test_a_mapping_of_yaml_may_be_merged_into_the_options(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("<<: {alpha: 0.3}\ntemperature: 4\n")
    assert read_options(str(tmp_path / "mine.yaml")) == {"alpha": "0.3", "temperature": "4"}


def test_a_negative_number_with_an_exponent_is_a_value(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        parse(DistillationConfig, ["--use_cpu", "--learning_rate", "-1e-5"])
    assert "--learning_rate must be at least 0, not -1e-05" in capsys.readouterr().err
