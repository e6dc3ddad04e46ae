"""PublishingTrainer: what it saves and pushes has a true card, and a push nothing that only resuming needs."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import CommitInfo, HfApi, ModelCard
from peft import PeftModel
from transformers import Trainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy, TrainOutput
from transformers.utils import logging
from transformers.utils.hub import PushInProgress

from hf_transfer.hub import check_base_is_public, push_folder, removed_on_failure, write_card
from hf_transfer.hub.card import CARD_NAME, is_written_here
from hf_transfer.training.card_facts import card_of, keywords_of
from hf_transfer.training.checkpoints import record_of, write_record
from hf_transfer.training.constant_copies import constant_names, write_constants

logger = logging.get_logger(__name__)

CHECKPOINTS_GO_ALONE = (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS)
"""Checkpoints are pushed without what stands beside them."""
DRAFTS = ("Model Card for Model ID", "has been generated automatically")
"""Words of the drafts that PEFT and the Trainer write, which a true card replaces."""


class PublishingTrainer(Trainer):
    """`transformers.Trainer` with the saving and publishing of this package.

    A subclass has `adapted_model`, the model that is saved, and `transfer_model`, which knows the objectives.
    """

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model, its processor and, outside checkpoints, its card; push it when the config says so."""
        super().save_model(output_dir, _internal_call=True)
        if _internal_call:
            return
        self.write_model_card(output_dir or self.args.output_dir)
        if self.args.push_to_hub:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the card of the model as it is now into `args.output_dir`; one written by hand is kept.

        Args:
            language, license, tags: for the metadata; nothing else knows them.
            model_name: default is the name of the folder.
            finetuned_from: the base model, where the model itself does not know its Hub id.
            kwargs: what the Trainer takes beside these (tasks, datasets): the card says what the trainer has seen.
        """
        tags = [tags] if isinstance(tags, str) else tags
        facts = {"language": language, "license": license, "tags": tags, "model_name": model_name}
        self.write_model_card(self.args.output_dir, base_model=finetuned_from, **facts)

    def write_model_card(self, folder: str | Path, **facts: Any) -> None:
        """As `create_model_card`, into any folder of a saved model.

        Args:
            folder: where the model is.
            facts: fields of `hf_transfer.hub.RunFacts` that are known better; None leaves one as it is.
        """
        if self.is_world_process_zero() and not is_by_hand(Path(folder)):
            write_card(folder, card_of(self, folder, **facts))

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> CommitInfo | Any:
        """Save the model with a true card into `args.output_dir` and publish it, without what only resuming needs.

        Args:
            commit_message, blocking, token, revision, private: as the Trainer's.
            kwargs: of `create_model_card`.

        Returns:
            The commit, or a future of it when `blocking` is False; None on processes other than the first.

        Raises:
            ValueError: the model is an adapter whose base is a local folder.
            HubError: the Hub refused or could not be reached.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.check_publishable()
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**kwargs)
        self._finish_current_push()
        keywords = {
            "private": self.args.hub_private_repo if private is None else private,
            "token": token or self.args.hub_token,
            "commit_message": commit_message,
            "revision": revision or self.args.hub_revision,
        }
        folder, name = self.args.output_dir, self.repository
        if blocking:
            return push_folder(folder, name, **keywords)
        return HfApi().run_as_future(push_folder, folder, name, **keywords)

    @property
    def repository(self) -> str:
        """The repository that this trainer pushes to."""
        return self.args.hub_model_id or Path(self.args.output_dir).resolve().name

    def check_publishable(self) -> None:
        """Refuse to publish an adapter whose base nobody else has.

        Raises:
            ValueError: the base is a local folder or was never saved.
        """
        if isinstance(self.adapted_model, PeftModel):
            check_base_is_public(self.adapted_model.active_peft_config.base_model_name_or_path, "this model")

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """The model of a checkpoint with its card; whole checkpoints only where `hub_strategy` asks for them."""
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        if self.args.hub_strategy != HubStrategy.EVERY_SAVE:
            super()._push_from_checkpoint(checkpoint_folder)
            return
        is_busy = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if is_busy and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.write_model_card(checkpoint_folder)
        job = HfApi().run_as_future(
            push_folder,
            checkpoint_folder,
            self.repository,
            private=self.args.hub_private_repo,
            token=self.args.hub_token,
            commit_message=f"Training in progress, step {self.state.global_step}",
            revision=self.args.hub_revision,
        )
        if is_busy:
            self.push_in_progress.jobs.append(job)
        else:
            self.push_in_progress = PushInProgress([job])

    def _finished(self, checkpoint: str) -> TrainOutput:
        """The end of a training that has no step left; the Trainer itself would take one more."""
        logger.warning(f"{checkpoint} is the end of this training: no step is left.")
        self.state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        self._load_from_checkpoint(checkpoint)
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            self._load_best_model()
        losses = [entry["loss"] for entry in self.state.log_history if "loss" in entry]
        return TrainOutput(self.state.global_step, float(np.mean(losses)) if losses else math.nan, {})

    @cached_property
    def record(self) -> dict[str, Any]:
        """What a resumed training has to have in common with this one."""
        rows = {"training": self.known_rows}
        rows |= {"evaluation": self.eval_dataset} if self.args.load_best_model_at_end else {}
        objectives = {name: keywords_of(one) for name, one in self.transfer_model.objectives.items()}
        return record_of(self.args, objectives, rows)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        if folder.name.startswith(PREFIX_CHECKPOINT_DIR):
            # A checkpoint that is written anew is incomplete until its state, the last file, is there again.
            (folder / TRAINER_STATE_NAME).unlink(missing_ok=True)
        self.transfer_model.save_pretrained(folder, state_dict=state_dict)
        processor = self.processing_class or getattr(self.data_collator, "tokenizer", None)
        if processor is not None:
            processor.save_pretrained(folder)
        torch.save(self.args, folder / TRAINING_ARGS_NAME)
        if folder.name.startswith(PREFIX_CHECKPOINT_DIR):
            write_record(folder, self.record)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As the Trainer's; what cannot be written whole is removed, and a full disk says what to do."""
        folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        advice = (
            "Make room and go on from the newest checkpoint (--resume true, or "
            "`trainer.train(resume_from_checkpoint=True)`); `save_total_limit: 1` keeps fewer checkpoints."
        )
        with removed_on_failure(folder, advice):
            self._keep_constants(folder.parent)
            super()._save_checkpoint(model, trial)

    def _keep_constants(self, folder: Path) -> None:
        """Write what objectives keep of the start beside the checkpoints, before the first of them."""
        is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        goes_alone = self.args.push_to_hub and self.args.hub_strategy in CHECKPOINTS_GO_ALONE
        model = self.transfer_model
        names = constant_names(model)
        if self.args.should_save and names and not (model.constants_checksum or is_sharded or goes_alone):
            folder.mkdir(parents=True, exist_ok=True)
            state = model.state_dict()
            model.constants_checksum = write_constants({name: state[name] for name in names}, folder)


def is_by_hand(folder: Path) -> bool:
    """Whether a folder has a card that no program wrote."""
    path = folder / CARD_NAME
    if not path.is_file():
        return False
    text = path.read_text(encoding="utf-8")
    return not is_written_here(ModelCard(text)) and not any(words in text for words in DRAFTS)
