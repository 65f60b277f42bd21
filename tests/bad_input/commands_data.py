"""Files of tasks and corpora that are broken, or that are not what they seem."""

import gzip

from bad_input.cases import CommandCase, Ending

OUTPUT = "--output_dir {dir}/out --use_cpu --dry_run"
FILES = "--train_file {dir}/train.csv --validation_file {dir}/dev.csv"
FINETUNE = f"finetune --model_name_or_path {{model}} {FILES} {OUTPUT}"
GLUE = f"finetune --model_name_or_path {{model}} --glue_dir {{dir}} {OUTPUT}"
MLM = f"mlm --model_name_or_path {{model}} --corpus_files {{dir}}/texts.txt {OUTPUT}"
DEV = "text,label\nother words,neg\nmore of them,pos\n"
LINES = "the acting was good\nthis film was bad\nthe screen was reliable\n"


def table(
    name: str, train: str | bytes, says: str, more: str = "", dev: str = DEV, ends: Ending = "refused"
) -> CommandCase:
    """A csv to train on."""
    files = {"train.csv": train, "dev.csv": dev}
    return CommandCase("data files", name, f"{FINETUNE} {more}", says, files, ends=ends)


def json_table(name: str, train: str, says: str, more: str = "") -> CommandCase:
    """A json file to train on."""
    line = FINETUNE.replace("train.csv", "train.json")
    return CommandCase("data files", name, f"{line} {more}", says, {"train.json": train, "dev.csv": DEV})


def glue(name: str, task: str, files: dict[str, str | bytes], says: str) -> CommandCase:
    """Files in the layout of GLUE."""
    return CommandCase("data files", name, f"{GLUE} --task_name {task}", says, files)


def corpus(name: str, text: str | bytes, says: str, file: str = "texts.txt", more: str = "") -> CommandCase:
    """A file of plain text to train on."""
    line = MLM.replace("texts.txt", file)
    return CommandCase("data files", name, f"{line} {more}", says, {file: text})


SST2 = "sentence\tlabel\n"
PAIRS = "index\tsentence1\tsentence2\tlabel\n"
STSB = "index\tsentence1\tsentence2\tscore\n"
GOOD = f"{SST2}a fine film\t1\na bad film\t0\n"

TABLES = [
    table(
        "an empty text", "text,label\ngood film,pos\n,neg\n", r"train.csv, row 2: no text in column 'text'; fill it in"
    ),
    table("a text of spaces", 'text,label\ngood film,pos\n" \t",neg\n', r"train.csv, row 2: no text in column 'text'"),
    table(
        "an empty second text",
        "sentence1,sentence2,label\na b,c,x\nd e,,y\n",
        "row 2: no text in column 'sentence2'",
        dev="sentence1,sentence2,label\nq,r,x\ns,t,y\n",
    ),
    table("an empty file", "", "train.csv is empty; it needs a text and a label column"),
    table("a header alone", "text,label\n", "train.csv has no rows or cannot be read as csv"),
    table(
        "no header",
        "a good film,pos\na bad film,neg\n",
        "no column 'label', only a good film, pos.*first line must be a header",
    ),
    table("semicolons", "text;label\ngood film;pos\n", "no column 'label', only text;label.*separated by semicolons"),
    table("tabs in a csv", "text\tlabel\ngood film\tpos\n", "separated by tabs"),
    table("a column twice", "text,text,label\na b,c d,pos\n", "train.csv has 2 columns called 'text'"),
    table("rows longer than the header", "text,label\na,b,pos\n", "its rows have more columns than its header names"),
    table(
        "a row with a comma too many below a header of two words",
        "review text,label\nwell done,pos\nwell, done,neg\n",
        r"saw 3\.(?! Its first line)",
    ),
    table(
        "a row with a comma too many",
        "text,label\nwell done,pos\nwell, done,neg\n",
        "train.csv has no rows or cannot be read as csv.*line 3",
    ),
    table(
        "a quotation mark that is not closed",
        'text,label\n"good film,pos\nbad film,neg\n',
        "train.csv.*a quotation mark is not closed",
    ),
    table("another encoding", "text,label\ncafé,pos\n".encode("latin-1"), "train.csv.*can't decode byte 0xe9"),
    table("UTF-16", "text,label\na film,pos\n".encode("utf-16"), "train.csv.*can't decode byte 0xff"),
    table("zero bytes", b"\0\0\0\n\0\0\n", "train.csv is no text file: its header has zero bytes"),
    table(
        "numbers in the place of texts",
        "x,label\n1,pos\n2,neg\n",
        "train.csv has no text column besides the label 'label'",
    ),
    table(
        "a missing text column",
        "sentence,label\na film,pos\n",
        "train.csv has no column 'text', only sentence, label",
        "--text_column_names text",
    ),
    table(
        "three text columns",
        "a,b,c,label\nx y,y z,z x,pos\n",
        "A model reads one or two texts",
        "--text_column_names a b c",
    ),
    table(
        "a text column twice",
        "text,label\nx y,pos\n",
        "--text_column_names names text twice",
        "--text_column_names text text",
    ),
    table(
        "the label as a text",
        "text,label\nx y,pos\n",
        "Column 'label' cannot be both a text and the label",
        "--text_column_names text label",
    ),
    table("the training file as the validation file", DEV, "All 2 rows of --validation_file are in --train_file too"),
    table(
        "validation rows among the training rows",
        DEV + "a third one,pos\n" * 3,
        "All 2 rows of --validation_file are in",
    ),
    table(
        "a file name that leaves its folder",
        DEV,
        "'../../up' cannot name a task .--files_name.",
        "--files_name ../../up",
    ),
    table("a very long name", DEV, "at most 100 in all", f"--files_name {'a' * 101}"),
    table("a hidden file's name", DEV, "'.mine' cannot name a task", "--files_name .mine"),
    table(
        "a GLUE task's name",
        "text,label\na film,pos\nbad,neg\n",
        "--files_name sst2 is a GLUE task's",
        "--files_name sst2",
    ),
    table(
        "rows that all have one label after a cut",
        "text,label\na b,pos\nc d,pos\ne f,neg\n",
        "first 2 rows of 'train' all have one label.*--sample_seed",
        "--max_train_samples 2",
    ),
    table(
        "a length without room",
        "text,label\na film,pos\nbad,neg\n",
        "max_seq_length=2 leaves no room for text",
        "--max_seq_length 2",
    ),
    CommandCase("data files", "a file that is not there", FINETUNE, "train.csv does not exist"),
    CommandCase(
        "data files",
        "a folder in the place of a file",
        FINETUNE.replace("/train.csv", ""),
        "no extension is not supported",
    ),
    CommandCase(
        "data files", "a spreadsheet", FINETUNE.replace("train.csv", "train.xlsx"), ".xlsx is not supported; use .csv"
    ),
    CommandCase(
        "data files",
        "no file to evaluate on",
        f"finetune --model_name_or_path {{model}} --train_file x.csv {OUTPUT}",
        "--validation_file",
    ),
    CommandCase(
        "data files", "no data", f"finetune --model_name_or_path {{model}} {OUTPUT}", "Name a task with --task_name"
    ),
    CommandCase(
        "data files",
        "a broken parquet file",
        FINETUNE.replace("train.csv", "train.parquet"),
        "train.parquet.*cannot be read as parquet",
        {"train.parquet": "x", "dev.csv": DEV},
    ),
    json_table(
        "a null text",
        '{"text": null, "label": "pos"}\n{"text": "a", "label": "neg"}\n',
        "train.json, row 1: no text in column 'text'",
    ),
    json_table(
        "a text that is left out",
        '{"text": "a", "label": "pos"}\n{"label": "neg"}\n',
        "train.json, row 2: no text in column 'text'",
    ),
    json_table(
        "tokens in the place of a text",
        '{"text": ["a", "b"], "label": "pos"}\n',
        "column 'text' holds lists and not text",
        "--text_column_names text",
    ),
    json_table(
        "an object in the place of a text",
        '{"text": {"en": "a"}, "label": "pos"}\n',
        "column 'text' holds objects and not text",
        "--text_column_names text",
    ),
    json_table("json that is cut short", '{"text": "a", \n', "train.json has no rows or cannot be read as json"),
    json_table(
        "rows inside another object",
        '{"data": [{"text": "a", "label": "pos"}]}',
        "train.json has no text column besides the label 'label', only data",
    ),
    json_table("a key twice", '{"text": "a", "text": "b", "label": "pos"}\n', "train.json.*specified twice"),
]

GLUE_FILES = [
    glue("no such folder", "sst2", {}, r"SST-2/train.tsv \(split train\).*--glue_dir"),
    glue("no validation rows", "sst2", {"SST-2/train.tsv": GOOD}, "No file for sst2: .*dev.tsv"),
    glue(
        "an unknown label of GLUE",
        "sst2",
        {"SST-2/train.tsv": GOOD, "SST-2/dev.tsv": f"{SST2}a film\t2\n"},
        "dev.tsv, line 2: unknown label '2'",
    ),
    glue(
        "a row of GLUE that is cut short",
        "sst2",
        {"SST-2/train.tsv": f"{GOOD}cut\n", "SST-2/dev.tsv": GOOD},
        "train.tsv, line 4: expected 2 tab-separated columns",
    ),
    glue(
        "commas in the place of tabs",
        "sst2",
        {"SST-2/train.tsv": "sentence,label\na,1\n", "SST-2/dev.tsv": GOOD},
        "train.tsv .*has no column 'sentence'",
    ),
    glue(
        "a csv in a folder of GLUE",
        "sst2",
        {"SST-2/train.csv": "sentence,label\na,1\n", "SST-2/dev.tsv": GOOD},
        "No file for sst2: .*train.tsv",
    ),
    glue(
        "another encoding of GLUE",
        "sst2",
        {"SST-2/train.tsv": "sentence\tlabel\ncafé\t1\n".encode("latin-1"), "SST-2/dev.tsv": GOOD},
        "train.tsv, line 2: not UTF-8",
    ),
    glue(
        "a score out of range",
        "stsb",
        {"STS-B/train.tsv": f"{STSB}0\ta\tb\t7.5\n", "STS-B/dev.tsv": f"{STSB}0\ta\tb\t1\n"},
        "train.tsv, line 2: expected a score from 0 to 5, found 7.5",
    ),
    glue(
        "a score that is no number",
        "stsb",
        {"STS-B/train.tsv": f"{STSB}0\ta\tb\tnan\n", "STS-B/dev.tsv": f"{STSB}0\ta\tb\t1\n"},
        "train.tsv, line 2: expected a number as score, found 'nan'",
    ),
    glue(
        "numbers where GLUE has names",
        "rte",
        {"RTE/train.tsv": f"{PAIRS}0\ta\tb\t1\n", "RTE/dev.tsv": f"{PAIRS}0\ta\tb\t1\n"},
        "unknown label '1'; expected one of entailment, not_entailment",
    ),
]

CORPORA = [
    corpus("an empty corpus", "", "texts.txt is empty"),
    corpus("a corpus of blank lines", "\n \n\n", "The corpus has no usable line"),
    corpus("a corpus in another encoding", "café\n".encode("latin-1"), "texts.txt, line 1: not UTF-8"),
    corpus("a corpus with zero bytes", b"ab\0c\n", "texts.txt, line 1: a zero byte, so this is no text"),
    corpus("fewer texts than are held out", LINES, "1 rows, of which 500 cannot be held out.*--eval_rows"),
    corpus("a corpus that is not there", LINES, "nowhere.txt does not exist", more="--corpus_files {dir}/nowhere.txt"),
    corpus("a corpus twice", LINES, "texts.txt is given twice", more="--corpus_files {dir}/texts.txt {dir}/texts.txt"),
    corpus("a column of a text file", LINES, "no columns, so the column 'body'", more="--corpus_text_column body"),
    corpus("a corpus without its column", "body\na text\n", "no column 'text', only body", "texts.csv"),
    corpus("a corpus of lists", '{"text": ["a", "b"]}\n', "no text in the column 'text', but lists", "texts.json"),
    corpus(
        "a corpus of texts and lists",
        '{"text": "a"}\n{"text": ["b"]}\n',
        "no text in the column 'text'",
        "texts.jsonl",
    ),
    corpus("a broken json corpus", '{"text": \n', "texts.json cannot be read as json", "texts.json"),
    corpus("a broken parquet corpus", "x", "texts.parquet cannot be read as parquet", "texts.parquet"),
    corpus("a csv corpus with a comma too many", "text\na, b\n", "more columns than its header", "texts.csv"),
    corpus("a text called gz", LINES, "texts.txt.gz is not compressed as its name says", "texts.txt.gz"),
    corpus(
        "a gz that is cut short",
        gzip.compress(LINES.encode() * 99)[:-9],
        "texts.txt.gz is not compressed.*cut short",
        "texts.txt.gz",
    ),
    corpus(
        "texts that are all too short",
        LINES,
        "no usable line.*too short",
        more="--corpus_mode sentence --corpus_min_tokens 99",
    ),
    corpus("a stream without an end", LINES, "say how long to train with --max_steps", more="--corpus_streaming"),
    corpus(
        "a corpus from two places", LINES, "either text or parquet files, or the name", more="--corpus_name wikitext"
    ),
]

CASES = [*TABLES, *GLUE_FILES, *CORPORA]
