"""Labels in files that are no labels, or not those of the task."""

from bad_input.cases import CommandCase, Ending

LINE = (
    "finetune --model_name_or_path {model} --train_file {dir}/train.FORM --validation_file {dir}/dev.FORM "
    "--output_dir {dir}/out --use_cpu --dry_run"
)
DEV = "text,label\nother words,neg\nmore of them,pos\n"
JSON_DEV = '{"text": "other words", "label": 0}\n{"text": "more of them", "label": 1}\n'


def csv(name: str, rows: str, says: str, more: str = "", dev: str = DEV, ends: Ending = "refused") -> CommandCase:
    """Labels in a csv file, under the header text,label."""
    files = {"train.csv": f"text,label\n{rows}", "dev.csv": dev}
    return CommandCase("labels", name, f"{LINE.replace('FORM', 'csv')} {more}", says, files, ends=ends)


def json(name: str, labels: str, says: str, more: str = "") -> CommandCase:
    """Labels in a json file, one for each row."""
    rows = [f'{{"text": "text {row}", "label": {label}}}' for row, label in enumerate(labels.split(";"))]
    files = {"train.json": "\n".join(rows), "dev.json": JSON_DEV}
    return CommandCase("labels", name, f"{LINE.replace('FORM', 'json')} {more}", says, files)


MANY = "".join(f"text {row},number {row}\n" for row in range(300))

CASES = [
    csv(
        "classes that differ in a space",
        "a b, positive\nc d,positive\ne f,neg\n",
        "row 1: the labels ' positive' and 'positive' .*differ only in spaces",
    ),
    csv("classes that differ in a space behind", "a b,pos\nc d,neg\ne f,pos \n", "row 3: .*differ only in spaces"),
    csv(
        "a class that the training rows have not",
        "a b,pos\nc d,neg\n",
        "dev.csv, row 2: unknown label 'neutral' in column 'label', expected neg, pos",
        dev="text,label\ne f,pos\ng h,neutral\n",
    ),
    csv(
        "NaN as a class in one file only",
        "a b,pos\nc d,neg\n",
        "dev.csv, row 2: unknown label 'NaN'",
        dev="text,label\ne f,pos\ng h,NaN\n",
    ),
    csv(
        "None as a class in one file only",
        "a b,pos\nc d,neg\n",
        "dev.csv, row 1: unknown label 'None'",
        dev="text,label\ne f,None\ng h,pos\n",
    ),
    csv(
        "a class in another spelling",
        "a b,pos\nc d,neg\n",
        "dev.csv, row 1: unknown label 'Pos'",
        dev="text,label\ne f,Pos\ng h,neg\n",
    ),
    csv(
        "a row without a label",
        "a b,pos\nc d,\ne f,neg\n",
        "train.csv, row 2: no label in column 'label', expected neg, pos",
    ),
    csv("a row with a label of spaces", "a b,pos\nc d,  \ne f,neg\n", "train.csv, row 2: no label in column 'label'"),
    csv("a row that ends before its label", "a b,pos\nc d\ne f,neg\n", "train.csv, row 2: no label in column 'label'"),
    csv("no labels", "a b,\nc d,\n", "train.csv has no labels in column 'label'; name the classes with --class_names"),
    csv(
        "one label for all rows",
        "a b,pos\nc d,pos\n",
        "Every row of --train_file has the label 'pos'",
        dev="text,label\ne,pos\nf,pos\n",
    ),
    csv(
        "one score for all rows",
        "a b,0.5\nc d,0.5\n",
        "Every row of --train_file has the label 0.5",
        dev="text,label\ne,0.5\nf,1.5\n",
    ),
    csv("a label for each row", MANY, "300 different labels in 300 rows.*these are hardly classes"),
    csv(
        "a word among scores",
        "a b,1.5\nc d,nan\ne f,2.5\n",
        "row 2: 'nan' in column 'label' is no number, as most other",
    ),
    csv("an infinite score", "a b,1.5\nc d,inf\ne f,2.5\n", "row 2: 'inf' in column 'label' is no number"),
    csv("a score with a comma", 'a b,1.5\nc d,"2,5"\ne f,2.5\n', "row 2: '2,5' in column 'label' is no number"),
    csv(
        "names where the other file has scores",
        "a b,0.5\nc d,1.5\n",
        "dev.csv, row 1: unknown label 'neg'.*expected a number",
    ),
    csv(
        "scores where the other file has names",
        "a b,neg\nc d,pos\n",
        "dev.csv, row 1: unknown label 0.5",
        dev="text,label\ne f,0.5\ng h,1.5\n",
    ),
    csv(
        "an id that is no class",
        "a b,0\nc d,1\n",
        "dev.csv, row 2: unknown label 2 in column 'label', expected 0, 1",
        dev="text,label\ne f,0\ng h,2\n",
    ),
    csv(
        "an id beyond the named classes",
        "a b,0\nc d,2\n",
        "train.csv, row 2: unknown label 2.*expected neg, pos",
        "--class_names neg pos",
    ),
    csv(
        "an id below zero",
        "a b,-1\nc d,1\n",
        "train.csv, row 1: unknown label -1.*expected neg, pos",
        "--class_names neg pos",
    ),
    csv(
        "a label that is not named",
        "a b,pos\nc d,mixed\n",
        "train.csv, row 2: unknown label 'mixed', *|row 2: unknown label 'mixed'",
        "--class_names neg pos",
    ),
    csv(
        "names for scores",
        "a b,0.5\nc d,1.5\n",
        "column 'label' holds floats, which means regression; leave out --class_names",
        "--class_names neg pos",
    ),
    csv("a single named class", "a b,pos\nc d,pos\n", "--class_names names only pos", "--class_names pos"),
    csv(
        "a class named twice",
        "a b,pos\nc d,neg\n",
        "--class_names has the name 'pos' twice",
        "--class_names pos neg pos",
    ),
    csv("a class without a name", "a b,pos\nc d,neg\n", "--class_names has the name ' '", "--class_names pos ' '"),
    csv(
        "another label column",
        "a b,pos\nc d,neg\n",
        "train.csv has no column 'stars', only text, label",
        "--label_column_name stars",
    ),
    csv(
        "the text as the label",
        "a b,pos\nc d,neg\n",
        "no column besides|no column 'text'|hardly classes|cannot be both",
        "--text_column_names text --label_column_name text",
    ),
    json(
        "a word among ids",
        '0;1;"x"',
        "train.json, row 3: the label 'x' in column 'label' is a word, but the one before is a number",
    ),
    json(
        "a number among words",
        '"x";"y";1',
        "train.json, row 3: the label 1 in column 'label' is a number, but the one before is a word",
    ),
    json("a list of labels", "[1, 0];[0, 1]", "train.json: column 'label' holds lists, but a row has a single label"),
    json(
        "an object as a label",
        '{"id": 1};{"id": 0}',
        "train.json: column 'label' holds objects, but a row has a single label",
    ),
    json(
        "a list among ids",
        "0;1;[1]",
        "train.json, row 3: the label .1. in column 'label' is neither a word nor a number",
    ),
    json("a null among ids", "0;null;1", "train.json, row 2: no label in column 'label', expected 0, 1"),
    json("a null among scores", "0.5;null;1.5", "train.json, row 2: no label in column 'label', expected a number"),
    json("a score of NaN", "0.5;NaN;1.5", "train.json, row 2: no label in column 'label', expected a number"),
    json(
        "true and false against ids",
        "true;false",
        "dev.json, row 1: unknown label 0 in column 'label', expected False, True",
    ),
    json(
        "words against ids", '"bad";"good"', "dev.json, row 1: unknown label 0 in column 'label', expected bad, good"
    ),
]
