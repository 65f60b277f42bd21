"""Uploads a finished folder to the Hugging Face hub."""

from pathlib import Path

from huggingface_hub import HfApi

from bertkd.distillation import DistillationConfig

__all__ = ["upload"]

# What belongs to this machine's training, and not to the model.
LOCAL_FILES = ["checkpoint-*", "checkpoint-*/**", "settings.json", "bertkd-error.log", "augmented/**", ".*"]


def upload(folder: Path, config: DistillationConfig) -> str | None:
    """Uploads a folder, with its generated card, where `push_to_hub` asks for it.

    Args:
        folder: a finished training's.
        config: `hub_model_id` names the repository (default: the folder's name), `hub_private_repo` makes it private
            and `hub_revision` chooses a branch. The token is `hub_token`, or the one that `hf auth login` or
            the variable HF_TOKEN has set; it is never written anywhere.

    Returns:
        The address of the repository; None where no upload was asked for.
    """
    if not config.push_to_hub:
        return None

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
    return str(repository)
