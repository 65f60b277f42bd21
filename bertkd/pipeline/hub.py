"""Uploads a finished folder to the Hugging Face hub."""

from pathlib import Path

from huggingface_hub import HfApi

from bertkd.atomic import ERROR_LOG
from bertkd.distillation import DistillationConfig
from bertkd.folder_lock import LOCK_FILE

__all__ = ["check_login", "upload"]

# Files that are not uploaded, in the folder and below it: what belongs to this machine's training (checkpoints,
# settings, logs, augmented rows), and models of earlier stages.
LOCAL_NAMES = ("checkpoint-*", "settings.json", f"{ERROR_LOG}*.log", LOCK_FILE, ".*")
LOCAL_FILES = [*LOCAL_NAMES, *(f"*/{name}" for name in LOCAL_NAMES), "augmented/*", "intermediate/*", "start/*"]


def check_login(config: DistillationConfig) -> None:
    """Checks that the hub will take the folder, where `push_to_hub` asks for it, before anything is trained.

    Raises:
        ValueError: nobody is logged in, or the hub does not answer.
    """
    if not config.push_to_hub:
        return
    try:
        HfApi(token=config.hub_token).whoami()
    except Exception as error:  # each version of the client has its own
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"--push_to_hub: the Hugging Face hub does not know you, or does not answer ({reason}). Log in with `hf "
            "auth login`, set HF_TOKEN, or leave --push_to_hub out and upload the folder later."
        ) from None


def upload(folder: Path, config: DistillationConfig) -> None:
    """Uploads a folder, with its generated card, where `push_to_hub` asks for it.

    Args:
        folder: a finished training's.
        config: `hub_model_id` names the repository (default: the folder's name), `hub_private_repo` makes it private
            and `hub_revision` chooses a branch. The token is `hub_token`, or the one that `hf auth login` or
            the variable HF_TOKEN has set; it is never written anywhere.
    """
    if not config.push_to_hub:
        return

    api = HfApi(token=config.hub_token)
    name = config.hub_model_id or folder.resolve().name
    repository = api.create_repo(name, private=config.hub_private_repo, exist_ok=True)

    revision = getattr(config, "hub_revision", None)
    api.upload_folder(
        repo_id=repository.repo_id,
        folder_path=folder,
        commit_message="Upload a model that was compressed with bertkd",
        ignore_patterns=LOCAL_FILES,
        revision=revision,
    )
    print(f"Uploaded to {repository}")
