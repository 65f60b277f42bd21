"""Lines with options that do not exist, do not fit each other, or would have no effect."""

from bad_input.cases import CommandCase

CASES = [
    CommandCase(
        "options and settings",
        "an option that does not exist",
        "kd --teacher_model_name_or_path {teacher} --task_name sst2 --glue_dir {glue} --temprature 3 --output_dir out",
        "there is no option --temprature.*--temperature",
    ),
]
