"""Lines with options that do not exist, do not fit each other, or would have no effect."""

from bad_input.cases import CommandCase

TASK = "--task_name sst2 --glue_dir {glue} --output_dir {dir}/out --use_cpu"
KD = f"kd --teacher_model_name_or_path {{teacher}} --init_from teacher {TASK}"
FINETUNE = f"finetune --model_name_or_path {{model}} {TASK}"
TINYBERT = f"tinybert --teacher_model_name_or_path {{teacher}} {TASK}"
DYNABERT = f"dynabert --teacher_model_name_or_path {{teacher}} {TASK}"
EXPORT = f"export --model_name_or_path {{teacher}} {TASK}"
MLM = "mlm --model_name_or_path {model} --corpus_files {dir}/a.txt --output_dir {dir}/out --use_cpu"
WITH_FILE = f"kd --config {{dir}}/mine.yaml --teacher_model_name_or_path {{teacher}} --init_from teacher {TASK}"


def option(name: str, line: str, says: str) -> CommandCase:
    """An option that cannot be what the user means."""
    return CommandCase("options and settings", name, line, says)


def number(name: str, line: str, says: str) -> CommandCase:
    """A number that makes no sense."""
    return CommandCase("numbers", name, line, says)


def settings(name: str, text: str | bytes, says: str) -> CommandCase:
    """A settings file that cannot be what the user means."""
    return CommandCase("options and settings", f"a settings file with {name}", WITH_FILE, says, {"mine.yaml": text})


UNKNOWN = [
    option("an option that does not exist", f"{KD} --temprature 3", "there is no option --temprature.*--temperature"),
    option("a word too many", f"{KD} true sst2", "'sst2' belongs to no option"),
    option("an option without its value", f"{FINETUNE} --learning_rate", "--learning_rate.*expected one argument"),
    option("a word where a number is meant", f"{KD} --alpha much", "--alpha.*invalid float value: 'much'"),
    option("a fraction where rows are counted", f"{KD} --max_train_samples 1.5", "--max_train_samples.*'1.5'"),
    option("a switch that is neither on nor off", f"{KD} --bf16 maybe", "--bf16.*true/false"),
    option("a choice that there is not", f"{KD} --init_from techer", "--init_from.*invalid choice: 'techer'"),
    option("a task with another spelling", f"kd --task_name SST-2 {TASK[17:]}", "no task 'SST-2', did you mean sst2"),
    option("a task without training rows", f"kd --task_name ax {TASK[17:]}", "ax: this task has no training rows"),
    option("a command with a typing error", "patient_dk --task_name sst2", "no command patient_dk.*patient-kd"),
    option("a plain command's unknown option", "env --jsno", "there is no option --jsno, did you mean --json"),
    option("settings that nobody ships", f"{KD} --config kd/sst3", "kd/sst3.*bertkd configs"),
    option("an empty output folder", "kd --output_dir '' --task_name sst2", "--output_dir is given an empty value"),
    option("an empty name of a model", "finetune --model_name_or_path ''", "--model_name_or_path is given an empty"),
    option("an empty folder of results", "report --results_dir ''", "--results_dir is given an empty value"),
    option("options that are not JSON", f"{KD} --lr_scheduler_kwargs x=1", "--lr_scheduler_kwargs must be a mapping"),
    option(
        "JSON that is cut short", f"{KD} --lr_scheduler_kwargs '{{\"a\": '", "--lr_scheduler_kwargs must be a mapp"
    ),
    option("a tracker that is not installed", f"{KD} --report_to comet_ml", "--report_to comet_ml.*not installed"),
    option("trackers without any", f"{KD} --report_to all", "--report_to all finds no tracker"),
    option(
        "a figure that the task has not", f"{FINETUNE} --metric_for_best_model f1", "no such figure, only loss, acc"
    ),
    option("one epoch saved and none evaluated", f"{FINETUNE} --eval_strategy no", "save and eval strategy to match"),
    option("two ways to say the data", f"{FINETUNE} --train_file x.csv", "either --task_name or --train_file"),
    option("an evaluation file alone", "finetune --validation_file x.csv --output_dir out", "go with --train_file"),
    option("resuming by hand", f"{KD} --resume_from_checkpoint x", "--resume_from_checkpoint is not used"),
    option("a seed twice", f"{KD} --seed 1 1", "--seed: 1 is given twice"),
    option("a seed twice in two spellings", f"{KD} --seed 7 07", "--seed: 07 is given twice"),
    option("a seed that is a word", f"{KD} --seed one", "--seed: 'one' is not a whole number"),
    option("a seed below zero", f"{KD} --seed -1", "--seed: '-1' is not a whole number"),
    option("a seed that is too large", f"{KD} --seed 99999999999", "--seed: 99999999999 is too large"),
    option("several seeds for one upload", f"{KD} --seed 1 2 --push_to_hub", "--push_to_hub uploads one model"),
    option("several seeds for one export", f"{EXPORT} --seed 1 2", "Give one --seed"),
]

WITHOUT_EFFECT = [
    option(
        "two ways to start",
        f"{KD} --model_name_or_path {{model}}",
        "--init_from teacher and --model_name_or_path are two ways",
    ),
    option(
        "a projection's start without projection",
        f"{TINYBERT} --augment false --model_name_or_path {{model}} --projection none --projection_from {{model}}",
        "projection_from has no effect.*none",
    ),
    option("a stage that the command sets", f"{DYNABERT} --stage depth", "does not use --stage"),
    option(
        "a cache's numbers without a cache", f"{KD} --teacher_cache_dtype float16", "teacher_cache_dtype has no effect"
    ),
    option(
        "a name on the hub without uploading",
        f"{KD} --hub_model_id me/mine",
        "--hub_model_id has no effect unless --push_to_hub is true",
    ),
    option("steps beside epochs", f"{KD} --eval_steps 5", "--eval_steps has no effect where --eval_strategy is epoch"),
    option(
        "a part of torch.compile alone",
        f"{KD} --torch_compile_mode default --torch_compile false",
        "has no effect unless --torch_compile is true",
    ),
    option(
        "columns of a GLUE task",
        f"{KD} --text_column_names a b",
        "--text_column_names has no effect unless --train_file",
    ),
    option("classes of a GLUE task", f"{KD} --class_names a b", "--class_names has no effect unless --train_file"),
    option(
        "a draw of all rows", f"{KD} --sample_seed 3", "--sample_seed has no effect without --max_train_samples or"
    ),
    option(
        "a folder of GLUE without a task",
        "finetune --train_file a.csv --validation_file b.csv --glue_dir x",
        "--glue_dir has no effect unless --task_name",
    ),
    option(
        "a prediction without a test file",
        "finetune --train_file a.csv --validation_file b.csv --do_predict",
        "--do_predict has no effect without --task_name or --test_file",
    ),
    option(
        "a teacher's temperature in fine-tuning", f"{FINETUNE} --temperature 5", "finetune` does not use --temperature"
    ),
    option("a cache in fine-tuning", f"{FINETUNE} --teacher_cache_dir cache", "does not use --teacher_cache_dir"),
    option("a student of an export", f"{EXPORT} --num_student_layers 2", "export` does not use --num_student_layers"),
    option(
        "calibration of float32",
        f"{EXPORT} --precision float32 --calibration_rows 9",
        "--calibration_rows has no effect where --precision is float32",
    ),
    option(
        "a count of tokens that stay",
        "shrink --model_name_or_path {teacher} " + TASK + " --ffn_rank 4 --min_count 2",
        "--min_count 2 goes with --prune_vocabulary",
    ),
    option(
        "a mean of layers that are not shared",
        "shrink --model_name_or_path {teacher} " + TASK + " --ffn_rank 4 --share_weights mean",
        "--share_weights mean goes with --share_layers",
    ),
    option(
        "a teacher of a language model",
        f"{MLM} --teacher_model_name_or_path {{teacher}}",
        "mlm` does not use --teacher_model",
    ),
    option(
        "another tokenizer of a language model",
        f"{MLM} --tokenizer_name {{teacher}}",
        "mlm` does not use --tokenizer_name",
    ),
    option("a split of a file", f"{MLM} --corpus_split test", "--corpus_split has no effect unless --corpus_name"),
    option(
        "layers of a checkpoint that DistilBERT goes on with",
        "distilbert --teacher_model_name_or_path {model} --model_name_or_path {model} --num_student_layers 1 "
        "--corpus_files {dir}/a.txt --output_dir {dir}/out --use_cpu",
        "--num_student_layers has no effect beside --model_name_or_path",
    ),
    option(
        "layers of a checkpoint that TinyBERT goes on with",
        "tinybert-general --teacher_model_name_or_path {model} --model_name_or_path {model} --student_layers last "
        "--corpus_files {dir}/a.txt --output_dir {dir}/out --use_cpu",
        "--student_layers has no effect beside --model_name_or_path",
    ),
    option(
        "a dry run of a stream",
        f"{MLM} --corpus_streaming --max_steps 9 --dry_run",
        "--dry_run counts rows, and a streamed corpus has no known number",
    ),
    option("the switch of another script", f"{FINETUNE} --do_eval", "--do_train and --do_eval are not used"),
    option(
        "TinyBERT's student out of the teacher's layers, for a budget",
        f"compress --method tinybert --init_from teacher --budget 50% --teacher_model_name_or_path {{teacher}} {TASK}",
        "--method tinybert has a start of its own .*leave --init_from teacher out",
    ),
    option(
        "a fine-tuned student out of the teacher's layers, for a budget",
        f"compress --method finetuned --init_from teacher --budget 9 {TASK} --teacher_model_name_or_path {{teacher}}",
        "--method finetuned has a start of its own .*leave --init_from teacher out",
    ),
    option(
        "DistilBERT's student out of a checkpoint, for a budget",
        f"compress --method distilbert --model_name_or_path {{model}} --budget 50% --teacher_model_name_or_path "
        f"{{teacher}} {TASK}",
        "--method distilbert has a start of its own .*leave --model_name_or_path out",
    ),
    option(
        "an upload of rows", f"augment {TASK} --augment_model {{model}} --push_to_hub", "does not use --push_to_hub"
    ),
    option(
        "layers of a student whose size is chosen",
        f"compress --method kd --student_layers 0,1 --budget 9 {TASK} --teacher_model_name_or_path {{teacher}}",
        "--method kd has a start of its own .*leave --student_layers 0,1 out",
    ),
    option(
        "layers of DistilBERT's student, for a budget",
        f"compress --method distilbert --student_layers last --budget 9 {TASK} --teacher_model_name_or_path "
        "{teacher}",
        "--method distilbert has a start of its own .*leave --student_layers last out",
    ),
    option(
        "stages of a training that compress needs whole",
        f"compress --method dynabert --stages width --budget 9 {TASK} --teacher_model_name_or_path {{teacher}}",
        "compress` does not use --stages",
    ),
    option(
        "a student's size in compress",
        f"compress --budget 5 --teacher_model_name_or_path {{teacher}} {TASK} --num_student_layers 2",
        "compress` does not use --num_student_layers",
    ),
    option(
        "a corpus of Patient-KD",
        f"compress --method pkd-skip --budget 5 --teacher_model_name_or_path {{teacher}} {TASK} --corpus_files a.txt",
        "--corpus_files has no effect where --method is pkd-skip",
    ),
    option("no model to augment with", f"{TINYBERT} --student_shape TinyBERT4", "--augment_model.*--augment false"),
    option(
        "a model to augment with that is not there",
        f"{TINYBERT} --augment_model {{dir}}",
        "--augment_model.*--augment false",
    ),
    option(
        "a model to augment with that predicts no words",
        f"{TINYBERT} --augment_model {{model}} --student_shape TinyBERT4 --ignore_weak_teacher",
        "cannot be augmented.*no head.*--augment false",
    ),
    option(
        "vectors to augment with that are not there",
        f"{TINYBERT} --augment_model {{model}} --augment_vectors x --student_shape TinyBERT4 --ignore_weak_teacher",
        "word vectors x.*--augment false",
    ),
]

NUMBERS = [
    number("a learning rate that is not a number", f"{KD} --learning_rate nan", "learning_rate must be.*nan"),
    number("a negative learning rate", f"{KD} --learning_rate -1e-5", "learning_rate must be at least 0"),
    number("an infinite temperature", f"{KD} --temperature inf", "temperature must be a finite number, not inf"),
    number("a negative weight decay", f"{KD} --weight_decay -0.1", "weight_decay must be at least 0"),
    number("no step", f"{KD} --max_steps 0", "max_steps must be at least 1"),
    number(
        "a batch without rows",
        f"{KD} --per_device_train_batch_size 0",
        "per_device_train_batch_size must be at least 1",
    ),
    number(
        "a negative batch to evaluate",
        f"{KD} --per_device_eval_batch_size -8",
        "per_device_eval_batch_size must be at",
    ),
    number(
        "no micro-batch", f"{KD} --gradient_accumulation_steps 0", "gradient_accumulation_steps must be at least 1"
    ),
    number("batches of no tokens", f"{KD} --max_tokens_per_batch 0", "max_tokens_per_batch must be at least 1"),
    number("a negative number of epochs", f"{KD} --num_train_epochs -3", "num_train_epochs must be at least 0"),
    number("a warm-up below zero", f"{KD} --warmup_steps -5", "warmup_steps must be at least 0"),
    number("no row to train on", f"{KD} --max_train_samples 0", "--max_train_samples must be at least 1"),
    number(
        "fewer than no rows to evaluate on", f"{KD} --max_eval_samples -5", "--max_eval_samples must be at least 1"
    ),
    number("no checkpoint to keep", f"{KD} --save_total_limit 0", "--save_total_limit must be at least 1"),
    number(
        "a log every zero steps",
        f"{KD} --logging_strategy steps --logging_steps 0",
        "--logging_steps must be greater than 0",
    ),
    number("a decay of moments above 1", f"{KD} --adam_beta1 1.5", "--adam_beta1 must be at least 0 and at most 1"),
    number("a length of no tokens", f"{KD} --max_seq_length 0", "--max_seq_length must be at least 1"),
    number("a student without layers", f"{KD} --num_student_layers 0", "--num_student_layers must be at least 1"),
    number("a hidden size below zero", f"{TINYBERT} --hidden_size -8", "--hidden_size must be at least 1"),
    number("no copy of a row", f"{TINYBERT} --augment_copies 0", "--augment_copies must be at least 1"),
    number(
        "a probability above 1",
        f"{TINYBERT} --augment_probability 1.5",
        "--augment_probability must be at least 0 and at most 1",
    ),
    number("no candidate", f"{TINYBERT} --augment_candidates 0", "--augment_candidates must be at least 1"),
    number("no row of importance", f"{DYNABERT} --importance_rows 0", "--importance_rows must be at least 1"),
    number("no calibration", f"{EXPORT} --calibration_rows 0", "--calibration_rows must be at least 1"),
    number("a negative drop", f"{EXPORT} --max_drop -0.1", "--max_drop must be at least 0"),
    number("no held-out row", f"{MLM} --eval_rows 0", "--eval_rows must be at least 1"),
    number("no row of a corpus", f"{MLM} --max_corpus_rows 0", "--max_corpus_rows must be at least 1"),
    number(
        "rows that are all unknown", f"{MLM} --corpus_max_unknown 0", "--corpus_max_unknown must be greater than 0"
    ),
    number(
        "a rank of zero",
        "shrink --model_name_or_path {teacher} " + TASK + " --ffn_rank 0",
        "--ffn_rank must be at least 1",
    ),
    number(
        "a budget that is not a number",
        f"compress --teacher_model_name_or_path {{teacher}} {TASK} --budget nan",
        "--budget nan: give a positive number of ms, or a share of what the whole model costs such as 50%",
    ),
    number("a demo of no epochs", "demo --epochs 0", "--epochs must be greater than 0"),
    number("a benchmark of no rows", "bench bert3 --batch_size 0", "--batch_size must be at least 1"),
    number("a benchmark with no thread", "bench bert3 --threads 0", "--threads must be at least 1"),
    number(
        "a sub-network without width",
        "extract --model_name_or_path {supernet} --width 0 --output_dir {dir}/out",
        "--width must be greater than 0 and at most 1",
    ),
    number(
        "a sub-network of no known depth",
        "extract --model_name_or_path {supernet} --depth nan --output_dir {dir}/out",
        "--depth must be greater than 0 and at most 1, not nan",
    ),
    number(
        "a submission in batches of none",
        "submit --models sst2={teacher} --batch_size 0 --output_dir {dir}/out",
        "--batch_size must be at least 1",
    ),
]

SETTINGS = [
    settings("an unknown option", "temperatur: 3", "unknown option 'temperatur', did you mean temperature"),
    settings("an option of another command", "augment: false", "unknown option 'augment'"),
    settings("an option twice", "alpha: 0.3\nalpha: 0.4\n", "mine.yaml: line 2: alpha is given twice"),
    settings("an option without a value", "alpha:\n", "mine.yaml: line 1 gives alpha no value"),
    settings("an empty list", "teacher_labels: []\n", "line 1 gives teacher_labels an empty list"),
    settings("a list for a single value", "student_layers: [0, 2]\n", "gives student_layers a list"),
    settings(
        "a list in a list", "teacher_labels: [a, [b]]\n", "teacher_labels holds a list or a mapping inside a list"
    ),
    settings("a list of nothing but null", "teacher_labels: [yes, null]\n", "gives teacher_labels no value"),
    settings("a bracket that is not closed", "alpha: [\n", "mine.yaml: line 2: this is no YAML"),
    settings("a tab at the start", "\talpha: 1\n", "mine.yaml: line 1: this is no YAML"),
    settings("an alias of nothing", "alpha: *other\n", "line 1: this is no YAML .*undefined alias"),
    settings("two documents", "alpha: 0.5\n---\nalpha: 0.7\n", "line 2: this is no YAML"),
    settings("a list of options", "- alpha\n", "must hold one `option: value` per line"),
    settings("a zero byte", "alpha: 0.5\x00", "this is no YAML"),
    settings("another encoding", "paper: café\n".encode("latin-1"), "it is not UTF-8"),
    settings("an octal number", "max_eval_samples: 0o17\n", "--max_eval_samples.*invalid int value: '0o17'"),
    settings("an infinite number", "alpha: .inf\n", "--alpha.*invalid float value: '.inf'"),
    settings(
        "a time where a map is meant", "train_sampling_strategy: 1:2\n", "train_sampling_strategy must be.*'1:2'"
    ),
    settings("a seed twice", "seed: [3, 3]\n", "--seed: 3 is given twice"),
    settings("itself in it", "config: other.yaml\n", "unknown option 'config'"),
    settings("a number out of range", "weight_decay: -1\n", "weight_decay must be at least 0"),
    settings("a model beside the teacher's layers", "init_from: techer\n", "--init_from.*invalid choice: 'techer'"),
    CommandCase(
        "options and settings",
        "a layer map that YAML 1.1 reads as a time",
        f"patient-kd --config {{dir}}/mine.yaml --teacher_model_name_or_path {{teacher}} --init_from teacher {TASK}",
        "layer map must increase from pair to pair: 2:1,1:3",
        {"mine.yaml": "strategy: 2:1,1:3\n"},
    ),
    CommandCase(
        "options and settings",
        "a single pair of a layer map that YAML 1.1 reads as 62",
        f"patient-kd --config {{dir}}/mine.yaml --teacher_model_name_or_path {{teacher}} --ignore_weak_teacher {TASK}"
        " --init_from teacher --max_train_samples 8 --max_eval_samples 8",
        "layer map 1:62 is out of range",
        {"mine.yaml": "strategy: 1:62\n"},
    ),
    CommandCase(
        "options and settings",
        "options of a settings file that have no effect here",
        f"{FINETUNE} --config {{dir}}/mine.yaml --max_train_samples 8 --max_eval_samples 8 --dry_run",
        "mine.yaml: `bertkd finetune` does not use --temperature(.|\n)*--hub_model_id has no effect unless(.|\n)*"
        "--student_layers last has no effect without --num_student_layers",
        {"mine.yaml": "temperature: 5\nhub_model_id: me/mine\nstudent_layers: last\n"},
        ends="named",
    ),
    CommandCase(
        "options and settings",
        "an option that is given twice, with epochs beside steps",
        f"{FINETUNE} --max_train_samples 8 --max_eval_samples 8 --num_train_epochs 3 --max_steps 9 --max_steps 1",
        "--num_train_epochs has no effect beside --max_steps(.|\n)*--max_steps is given 2 times",
        ends="named",
    ),
]

CASES = [*UNKNOWN, *WITHOUT_EFFECT, *NUMBERS, *SETTINGS]
