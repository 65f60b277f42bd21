"""Lines that prune to a budget: budgets that are none, or that nothing meets, and teachers that cannot be pruned."""

from pathlib import Path

from transformers import AutoModelForMaskedLM, AutoModelForTokenClassification

from bad_input.cases import CommandCase, Kind
from bad_input.commands_models import Change, config, copied, low_rank, spoiled, with_head
from bertkd.students import prune, share_layers

TASK = "--task_name sst2 --glue_dir {glue} --max_train_samples 64 --max_eval_samples 16 --use_cpu --output_dir out"
QUICK = "--max_steps 1 --sequence_length 16 --repeats 1 --ignore_weak_teacher"
OF_BAD = f"--teacher_model_name_or_path bad {TASK} {QUICK}"
OF_TEACHER = f"--teacher_model_name_or_path {{teacher}} {TASK} {QUICK}"
PRUNE = f"prune {OF_TEACHER}"
COMPRESS = f"compress {OF_TEACHER} --engine pytorch --precision float32 --max_drop 1"
HALF = "--budget 50% --unit gflops"

OPTIONS: Kind = "options and settings"
NUMBERS: Kind = "numbers"
MODELS: Kind = "models and checkpoints"


def budget(name: str, text: str, says: str, command: str = PRUNE, unit: str = "gflops") -> CommandCase:
    """A line whose budget is wrong."""
    return CommandCase(
        NUMBERS, name, f"{command} --budget{'' if text.startswith('=') else ' '}{text} --unit {unit}", says
    )


def teacher(name: str, change: Change, says: str, command: str = "prune", source: str = "teacher") -> CommandCase:
    """A line with a teacher that was changed."""
    return CommandCase(MODELS, name, f"{command} {OF_BAD} {HALF}", says, prepare=copied(change, source))


def with_pruned_layers(folder: Path) -> None:
    from bertkd.pipeline import load_model

    prune(load_model(str(folder)), [2, 2, 1, 0], [24, 12, 24, 24]).save_pretrained(folder)


def with_shared_layers(folder: Path) -> None:
    from bertkd.pipeline import load_model

    share_layers(load_model(str(folder)), 2).save_pretrained(folder)


NO_AMOUNT = "give a positive number of gflops, or a share of what the whole model costs such as 50%"

CASES = [
    # Budgets.
    CommandCase(OPTIONS, "pruning without a budget", PRUNE, "Give a --budget: a number in --unit, or a share"),
    CommandCase(OPTIONS, "compression without a budget", COMPRESS, "Give a --budget: a number in --unit, or a share"),
    budget("a budget of zero", "0", f"--budget 0: {NO_AMOUNT}"),
    budget("a budget of zero in compress", "0", f"--budget 0: {NO_AMOUNT}", COMPRESS),
    budget("a budget below zero", "-5", f"--budget -5: {NO_AMOUNT}"),
    budget("a budget that is NaN", "nan", f"--budget nan: {NO_AMOUNT}"),
    budget("a budget without an end", "inf", f"--budget inf: {NO_AMOUNT}"),
    budget("a budget in words", "abc", f"--budget abc: {NO_AMOUNT}"),
    budget("a budget in words in compress", "fast", f"--budget fast: {NO_AMOUNT}", COMPRESS),
    budget("a share of nothing", "0%", f"--budget 0%: {NO_AMOUNT}"),
    budget("all of the teacher", "100%", f"--budget 100%: {NO_AMOUNT}"),
    budget("more than the teacher", "150%", f"--budget 150%: {NO_AMOUNT}", COMPRESS),
    budget("a share below zero", "-50%", "argument --budget: expected at least one argument"),
    budget("a share below zero after an equals sign", "=-50%", f"--budget -50%: {NO_AMOUNT}"),
    budget("a percent sign alone", "%", f"--budget %: {NO_AMOUNT}"),
    budget("rungs that rise", "25% 50%", r"--budget 25% 50%: several budgets go from the largest to"),
    budget("the same rung twice", "50% 50%", r"--budget 50% 50%: several budgets go from the largest to"),
    budget("rungs of shares and numbers", "50% 0.001", r"--budget 50% 0\.001: .* all numbers or all shares"),
    budget("no rungs of a single size", "50% --rungs false", "--rungs false has no effect with a single --budget"),
    budget("several budgets in compress", "50% 25%", "'25%' belongs to no option", COMPRESS),
    budget("points without a curve", "1", "--unit points .* `bertkd compress` makes", unit="points"),
    budget("points in rungs", "2 1", "--unit points .* give one --budget there", unit="points"),
    budget("a share of points", "50%", "--budget 50%: give a positive number of points", COMPRESS, "points"),
    budget("a unit that there is not", "5", "invalid choice: 'seconds'", unit="seconds"),
    budget(
        "a budget that nothing meets",
        "10",
        r"--budget 10 parameters: no network of this teacher is as small\. One with a single head takes [\d.e+]+ "
        r"parameters and reaches [\d.]+ accuracy before it is trained; the teacher takes [\d.e+]+",
        unit="parameters",
    ),
    budget(
        "a share that nothing meets",
        "1%",
        r"--budget 1%, which is [\d.e+]+ parameters: no network .* takes [\d.e+]+ parameters",
        COMPRESS,
        "parameters",
    ),
    budget(
        "a last rung that nothing meets", "20000 10", r"--budget 10 parameters: no network .* takes", unit="parameters"
    ),
    CommandCase(
        NUMBERS,
        "a budget that the teacher meets already",
        f"{PRUNE} --budget 1e9 --unit parameters",
        "1e9 parameters: the teacher meets the budget already: nothing is pruned",
        ends="named",
    ),
    CommandCase(
        OPTIONS,
        "a share that no student of a paper's method meets",
        f"{COMPRESS} --method pkd-skip --budget 1% --unit gflops",
        r"No student of pkd-skip is within 1% of the teacher's gflops, which is .*: the smallest, .* takes [0-9.]+",
    ),
    CommandCase(
        OPTIONS,
        "points for a paper's method",
        f"{COMPRESS} --method pkd-skip --budget 1 --unit points",
        r"--unit points: --method pkd-skip needs a budget in ms, mb, parameters, gflops; leave --method out",
    ),
    CommandCase(
        OPTIONS,
        "pruning rows for a paper's method",
        f"{COMPRESS} --method pkd-skip --budget 5 --pruning_rows 99",
        r"--pruning_rows has no effect where --method is pkd-skip",
    ),
    # Rows.
    budget("a budget with its unit", "5ms", "give the number alone, .* with --unit: --budget 5 --unit ms", unit="ms"),
    budget("a budget in another unit", "5MB", "with --unit: --budget 5 --unit mb", COMPRESS, unit="ms"),
    CommandCase(
        NUMBERS,
        "a drop in points",
        f"compress {OF_TEACHER} {HALF} --engine pytorch --precision float32 --max_drop 2",
        "--max_drop is 2.0: give a fraction from 0 to 1",
    ),
    CommandCase(
        NUMBERS,
        "a longer pass than the teacher takes",
        f"compress --teacher_model_name_or_path {{teacher}} {TASK} --engine pytorch --precision float32 --budget 9 "
        "--unit mb --sequence_length 4096",
        "--sequence_length is 4096, but .* takes [0-9]+ tokens: give at most that",
    ),
    CommandCase(
        OPTIONS,
        "a device that the engine does not run on",
        f"compress {OF_TEACHER} {HALF} --device cuda",
        "openvino runs on the CPU here: leave --device out, or take --engine pytorch",
    ),
    CommandCase(
        OPTIONS,
        "pruning for a device that is not here",
        f"{PRUNE} --budget 50% --unit ms --device cuda:7",
        "There is no device cuda:7 here",
    ),
    CommandCase(
        NUMBERS, "no row to prune by", f"{PRUNE} {HALF} --pruning_rows 0", "--pruning_rows must be at least 1"
    ),
    CommandCase(
        NUMBERS,
        "one row to prune by",
        f"{PRUNE} {HALF} --pruning_rows 1",
        r"too few calibration rows, 1 calibration row in a single batch: give two batches at least",
    ),
    # Settings.
    CommandCase(NUMBERS, "a negative weight of hidden states", f"{PRUNE} {HALF} --beta -1", "must not be negative"),
    CommandCase(
        OPTIONS,
        "hidden states from a cache",
        f"{PRUNE} {HALF} --teacher_cache_dir cache",
        "teacher_cache_dir keeps no hidden states .* or set beta=0",
    ),
    CommandCase(
        OPTIONS,
        "layers of a pruned student",
        f"{PRUNE} {HALF} --num_student_layers 2",
        "`bertkd prune` does not use --num_student_layers",
    ),
    CommandCase(
        OPTIONS,
        "a checkpoint to start a pruned student from",
        f"{PRUNE} {HALF} --model_name_or_path {{model}}",
        "`bertkd prune` does not use --model_name_or_path",
        ends="named",
    ),
    CommandCase(
        OPTIONS,
        "a checkpoint to start from in compress",
        f"{COMPRESS} {HALF} --model_name_or_path {{model}}",
        r"is pruned out of the teacher, and starts from nothing else: leave --model_name_or_path, .* out",
    ),
    CommandCase(
        OPTIONS,
        "a pruned student from the teacher's layers",
        f"{COMPRESS} {HALF} --init_from teacher",
        r"is pruned out of the teacher, and starts from nothing else",
    ),
    CommandCase(
        OPTIONS,
        "layers of a pruned student in compress",
        f"{COMPRESS} {HALF} --student_layers last",
        r"is pruned out of the teacher, and starts from nothing else: leave .* --student_layers out",
    ),
    CommandCase(
        OPTIONS,
        "the teacher under another command's name in compress",
        f"compress --model_name_or_path {{teacher}} {TASK} {HALF}",
        "Name the fine-tuned teacher with --teacher_model_name_or_path",
    ),
    CommandCase(
        OPTIONS, "pruning without a teacher", f"prune {TASK} {HALF}", "Name the fine-tuned teacher with --teacher_"
    ),
    # Teachers.
    teacher(
        "a teacher that is pruned already",
        with_pruned_layers,
        r"has \[2, 2, 1, 0\] heads and \[24, 12, 24, 24\] neurons .* was pruned already\. Name the model that it was",
    ),
    teacher("a factorized teacher", low_rank, r"neither factorized nor shared, and this one has ffn_rank=4"),
    teacher("a teacher whose layers are shared", with_shared_layers, r"neither factorized nor shared, .*layer_groups"),
    teacher("a language model to prune", with_head(AutoModelForMaskedLM), r"teacher bad has no trained head"),
    teacher("a tagger of tokens to prune", with_head(AutoModelForTokenClassification), r"bad has no trained head"),
    teacher("a family that cannot be pruned", config(model_type="gpt2"), r"type 'gpt2'"),
    teacher("a teacher of NaN to prune", spoiled("layer.1.output.dense", float("nan")), r"NaN or infinite: bert"),
    teacher(
        "a pruned teacher to compress",
        with_pruned_layers,
        r"so that it was pruned already.*Name the model that it was made of",
        "compress --engine pytorch --precision float32 --max_drop 1",
    ),
]
