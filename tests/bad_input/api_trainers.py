"""Calls of the trainers and their configs that could not do what they say."""

import bertkd
from bad_input.cases import ApiCase

CASES = [
    ApiCase(
        "numbers",
        "a temperature of zero",
        lambda place: bertkd.PatientKDConfig(output_dir=str(place.dir), temperature=0.0, use_cpu=True),
        "temperature",
    ),
]
