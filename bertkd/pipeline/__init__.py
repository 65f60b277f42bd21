"""Runs whole trainings: a task's data and models, train and evaluate, resume, and everything that builds on these.

Functions here take objects (a task with its data, models, a trainer's config) and know nothing of command lines.
"""

from bertkd.pipeline.evaluation import check_teacher, evaluate
from bertkd.pipeline.experiment import Experiment
from bertkd.pipeline.models import load_language_model, load_model, load_teacher, resolve_model_name
from bertkd.pipeline.task_data import TaskData, limit_rows
from bertkd.pipeline.text import train_on_text
from bertkd.pipeline.training import distill, train_on_task

__all__ = [
    "Experiment",
    "TaskData",
    "check_teacher",
    "distill",
    "evaluate",
    "limit_rows",
    "load_language_model",
    "load_model",
    "load_teacher",
    "resolve_model_name",
    "train_on_task",
    "train_on_text",
]
