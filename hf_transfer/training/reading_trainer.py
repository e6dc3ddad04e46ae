"""ReadingTrainer: in which order rows come, what is made of them, and how evaluation reads them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

from datasets import Dataset
from torch.utils.data import DataLoader, Sampler

from hf_transfer.data.checks import LABEL_COLUMNS, column_values
from hf_transfer.data.episodes import episodes_for
from hf_transfer.data.fourier import FourierCollator, TargetLight
from hf_transfer.data.label_sets import LabelSetCollator, label_tables
from hf_transfer.data.masked_patches import with_patch_masks
from hf_transfer.data.masking import repeatable
from hf_transfer.data.samplers import WEIGHT_COLUMN, DomainBalancedSampler, ShuffleSampler, WeightedSampler
from hf_transfer.data.streams import RowStream
from hf_transfer.data.text_collator import TextCollator
from hf_transfer.data.views import ViewCollator, augmenting_collator
from hf_transfer.data.visits import VISIT_COLUMN, NumberingCollator, VisitedRows, VisitSampler, is_repeatable
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.training.objectives import label_sets_of
from hf_transfer.training.publishing_trainer import PublishingTrainer

OF_TRAINING = {"dataloader_drop_last": False, "dataloader_in_order": True}
"""Settings of loaders that are of training alone -> their value where rows are measured."""


class ReadingTrainer(PublishingTrainer):
    """`transformers.Trainer` with the samplers and collators of this package.

    A subclass has `known_rows`, the training set or the first rows of a stream, and `train_collator`, of its rows.
    """

    known_rows: Dataset | None
    train_collator: Callable
    train_sampler: Any
    left_out_domains: Collection[int] = ()
    """Domains whose rows no batch has, as nothing reads them."""

    @property
    def data_seed(self) -> int:
        """Of the order of the rows and of their augmentation."""
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    def _set_signature_columns_if_needed(self) -> None:
        if self._signature_columns is None:
            accepted = inspect.signature(unwrap_peft(self.adapted_model).forward).parameters
            self._signature_columns = [*accepted, "domain", *LABEL_COLUMNS, VISIT_COLUMN]

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "random":
            return super()._get_train_sampler(dataset)
        seed = self.data_seed
        if "episodes" in self.transfer_model.needs:
            asking = self.transfer_model.objectives.values()
            sampler = episodes_for(asking, dataset, self._train_batch_size, seed, self.args.world_size)
        elif "domain" in dataset.column_names:
            domains = column_values(dataset, "domain")
            sampler = DomainBalancedSampler(
                domains, self._train_batch_size, seed, self.args.world_size, self.left_out_domains
            )
        elif WEIGHT_COLUMN in self.train_dataset.column_names:  # the model does not read it, so `dataset` lacks it
            sampler = WeightedSampler(column_values(self.train_dataset, WEIGHT_COLUMN), seed)
        else:
            sampler = ShuffleSampler(len(dataset), seed)
        self.train_sampler = sampler
        return sampler

    def _choose_train_collator(self) -> Callable:
        """The collator of the training rows; evaluation reads its rows as they are."""
        given = self.data_collator
        if self.args.train_sampling_strategy != "batch_rebalance":
            vocabulary = getattr(unwrap_peft(self.adapted_model).config.get_text_config(), "vocab_size", None)
            given = repeatable(given, vocabulary, self.data_seed)
            given = self.data_collator = with_patch_masks(given, unwrap_peft(self.adapted_model), self.data_seed)
        if isinstance(given, ViewCollator):
            self.data_collator = given.collator
        if isinstance(self.data_collator, TextCollator):
            self._check_texts(self.data_collator)
        comparing = sorted(name for name, one in self.transfer_model.objectives.items() if "views" in one.needs)
        if self.train_dataset is not None and self.args.fourier_adaptation is not None:
            given = self._with_target_light(given)
        if self.train_dataset is None or not (comparing or self.args.augmentation is not None):
            return self._numbering(given)
        if self.args.train_sampling_strategy == "batch_rebalance":
            raise ValueError("rows are augmented one by one: `train_sampling_strategy` should not be batch_rebalance.")
        rows = self._remove_unused_columns(self.known_rows)
        presets = [self.transfer_model.objectives[name].usual_views for name in comparing]
        usual = presets[0] if presets and all(presets) else None
        parts = self.transfer_model.readout.own_task_loss is not None
        return augmenting_collator(
            given, rows, self.args.augmentation, comparing, self.processing_class, self.data_seed, usual, parts
        )

    def _with_target_light(self, collator: Callable | None) -> Callable:
        """The collator, whose source pictures get low frequencies of target pictures."""
        beta = self.args.fourier_adaptation
        return FourierCollator(collator, TargetLight.of(self.known_rows, beta), beta, self.data_seed)

    def _with_label_sets(self, collator: Callable) -> Callable:
        """The collator, with the further labels that objectives read."""
        sets = label_sets_of(self.transfer_model.objectives)
        if not sets or self.train_dataset is None:
            return collator
        if isinstance(self.train_dataset, RowStream):
            raise ValueError("`label_sets` find further labels by the number of a row, which a stream has not.")
        if self.args.train_sampling_strategy == "batch_rebalance":
            raise ValueError("`label_sets` read rows one by one: leave `train_sampling_strategy` out.")
        return LabelSetCollator(collator, label_tables(self.known_rows, sets))

    def _numbering(self, collator: Callable) -> Callable:
        """The collator, with the numbers of the rows where an objective asks for them and no row ever changes."""
        if "row_numbers" not in self.transfer_model.needs or self.train_dataset is None:
            return collator
        is_sampled = self.args.train_sampling_strategy != "batch_rebalance"
        rows = self._remove_unused_columns(self.train_dataset)
        return NumberingCollator(collator) if is_sampled and is_repeatable(collator, rows) else collator

    def _check_texts(self, collator: TextCollator) -> None:
        """Refuse rows that the collator can make nothing of."""
        for role, rows in (("training", self.known_rows), ("evaluation", self.eval_dataset)):
            if isinstance(rows, Dataset) and "input_ids" in rows.column_names:
                collator.check_rows(self._remove_unused_columns(rows), role)

    def get_train_dataloader(self) -> DataLoader:
        """As the Trainer's, with the collator of the training rows."""
        plain, self.data_collator = self.data_collator, self.train_collator
        reads_visits = getattr(self.train_collator, "reads_visits", False)
        try:
            if isinstance(self.train_dataset, RowStream):
                self.train_dataset.with_visits = reads_visits
            if isinstance(self.train_dataset, RowStream) or not reads_visits:
                return super().get_train_dataloader()
            rows = VisitedRows(self._remove_unused_columns(self.train_dataset, description="Training"))
            return self._get_dataloader(rows, "Training", self._train_batch_size, self._visits, is_training=True)
        finally:
            self.data_collator = plain

    def _get_dataloader(self, *args: Any, is_training: bool = False, **kwargs: Any) -> DataLoader:
        """As the Trainer's, but a measure is of all rows in their order, whatever `OF_TRAINING` says of training."""
        changed = {} if is_training else OF_TRAINING
        kept = {name: getattr(self.args, name) for name in changed}
        try:
            for name, value in changed.items():
                setattr(self.args, name, value)
            return super()._get_dataloader(*args, is_training=is_training, **kwargs)
        finally:
            for name, value in kept.items():
                setattr(self.args, name, value)

    def _visits(self, rows: VisitedRows) -> VisitSampler:
        self.train_sampler = VisitSampler(self._get_train_sampler(self.train_dataset))
        return self.train_sampler
