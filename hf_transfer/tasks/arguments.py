"""What a run starts from and what it reads: the arguments that a task needs to make model inputs and batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hf_transfer.models.revisions import split_revision
from hf_transfer.models.short_names import model_folder

TOKENIZER_KEYS = frozenset({"vocab_size", "mask_token", "sentinels"})
"""Keywords of `hf_transfer.data.bpe.train_bpe`."""


@dataclass
class ModelArguments:
    """Which model to start from.

    Raises:
        ValueError: neither `model` nor `architecture` is given, or both are; or an adapter on random weights.
    """

    model: str | None = field(
        default=None,
        metadata={
            "help": "Folder, bare name, Hub id or packaged name (all-minilm, efficientnet-lite0) of the model to "
            "start from."
        },
    )
    architecture: dict | None = field(
        default=None,
        metadata={
            "help": "Start from random weights of this configuration: "
            '{"model_type": "flowformer", "modality": "image"}; '
            "`attn_implementation: sdpa` in it makes the softmax twin. A part may be a model, whose weights it "
            "has: the towers of a vision-text-dual-encoder, {vision_config: FOLDER, text_config: all-minilm}, and the "
            "backbone of a head for parts of pictures, {model_type: rt_detr, backbone_config: ORG/NAME}."
        },
    )
    task: str | None = field(
        default=None,
        metadata={
            "help": "Kind of head: a key of hf_transfer.tasks.TASKS; left out, the one that model and data say."
        },
    )
    peft: dict | None = field(
        default=None,
        metadata={"help": 'PEFT adapter: {"peft_type": "LORA", "r": 8, "target_modules": "all-linear"}.'},
    )
    converters: dict | None = field(
        default=None,
        metadata={"help": 'Changes of the model by name with their keywords: {"stoch_norm": {"p": 0.5}}.'},
    )
    tokenizer: dict | str | None = field(
        default=None,
        metadata={
            "help": "In place of the model's: a folder or Hub id, or {vocab_size: 4000} to train a byte-level BPE on "
            "the training texts; beside it `mask_token: true` and `sentinels: 100` for pre-training that needs them."
        },
    )
    channels_last: bool = field(
        default=False,
        metadata={
            "help": "Keep the weights of 2-d convolutions in torch's channels_last layout, in which some nets "
            "(MobileNet, EfficientNet-Lite) train faster on a CPU and others do not. Results differ by rounding; what "
            "is saved is as always."
        },
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with the model."})
    revision: str | None = field(
        default=None,
        metadata={
            "help": "Branch, tag or commit of a `model` on the Hub; main when left out. The commit that it means is "
            "recorded, and a resumed run starts from the same one."
        },
    )

    @property
    def stored(self) -> dict[str, Any]:
        """Keywords of every `from_pretrained` of `model`."""
        return {"trust_remote_code": self.trust_remote_code, "revision": self.revision or "main"}

    def __post_init__(self):
        if (self.model is None) == (self.architecture is None):
            raise ValueError(
                "give either `model` (start from its weights) or `architecture` (start from random weights)."
            )
        if self.model is not None:
            self._split_model()
        elif self.revision is not None:
            raise ValueError("`revision` is of a `model` on the Hub, and an `architecture` has none: leave it out.")
        if self.peft is not None and self.architecture is not None:
            raise ValueError(
                "`peft` saves an adapter alone, and the random weights of `architecture` under it would be lost: "
                "start from a saved `model`."
            )
        if isinstance(self.tokenizer, dict) and (
            self.model is not None or "vocab_size" not in self.tokenizer or set(self.tokenizer) - TOKENIZER_KEYS
        ):
            raise ValueError(
                "`tokenizer` as a mapping trains a new one, {vocab_size: 4000}, for the random weights of an "
                f"`architecture`, and may say {sorted(TOKENIZER_KEYS)}; got {self.tokenizer}."
            )

    def _split_model(self) -> None:
        """The packaged folder of a short name; and of ORG/NAME@REVISION its parts."""
        self.model, named = split_revision(model_folder(self.model))
        if named is not None and self.revision not in (None, named):
            raise ValueError(
                f"`model` names the revision {named} of `{self.model}`, and `revision` is {self.revision}: give one."
            )
        self.revision = named or self.revision


@dataclass
class DataArguments:
    """Which data to read: bundled names, Hub ids, folders or files, as `hf_transfer.data.bundled.load` takes them.

    Raises:
        ValueError: a number of rows or tokens is too small.
    """

    dataset: str = field(metadata={"help": "Training data; the labelled source in domain adaptation."})
    split: str | None = field(default=None, metadata={"help": "Its split; train when it has one."})
    dataset_config: str | None = field(
        default=None, metadata={"help": "Its configuration, for a Hub dataset with several: wikitext-103-raw-v1."}
    )
    dataset_options: dict | None = field(
        default=None, metadata={"help": "Keywords of a bundled dataset: {min_length: 500, max_length: 1000}."}
    )
    dataset_names: dict | None = field(
        default=None,
        metadata={"help": "What the card calls a dataset in place of its path: {FOLDER: reviews.csv}."},
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read training rows as they come: of a Hub dataset, or shards of text, json lines, parquet or "
            "webdataset (corpus.txt, shards/*.tar). Needs max_steps; test_rows are the first rows."
        },
    )
    shuffle_buffer: int | None = field(
        default=None,
        metadata={"help": "With streaming: the next row is drawn of so many, 1000 when left out; 0 keeps the order."},
    )
    target_dataset: str | None = field(
        default=None,
        metadata={
            "help": "Unlabelled target: makes the run a domain adaptation. Its labels are not read. Every batch is "
            "half source and half target: a batch size of 16 is 8 + 8."
        },
    )
    target_split: str | None = field(default=None, metadata={"help": "Its split."})
    target_options: dict | None = field(
        default=None, metadata={"help": "Its keywords, where it is bundled: {known_digits: 8}."}
    )
    test_dataset: str | None = field(default=None, metadata={"help": "Labelled rows to evaluate on."})
    test_split: str | None = field(
        default=None, metadata={"help": "Its split, test when it has one; given alone, a split of `dataset`."}
    )
    test_rows: int | None = field(
        default=None,
        metadata={"help": "Without a test set: hold out this many rows of the target, or else of the dataset."},
    )
    labels_per_class: int | None = field(default=None, metadata={"help": "Train on only so many rows of each class."})
    label_column: list[str] | str | None = field(
        default=None,
        metadata={
            "help": "Which column holds the labels, where it is not label, labels or label_ids. Several, as [toxic, "
            "insult], of 0 and 1 (or False and True) are labels that may hold at once; of other numbers all are "
            "predicted."
        },
    )
    id2label: dict | str | None = field(
        default=None,
        metadata={
            "help": "Names of the numbers in masks, or of key points, {0: road, 1: car}, or the path of a JSON file "
            "with them."
        },
    )
    ignore_index: int | None = field(
        default=None, metadata={"help": "The number in masks that means no class; 255 when left out."}
    )
    problem_type: str | None = field(
        default=None,
        metadata={
            "help": "What the labels are, where whole numbers leave a doubt: regression, single_label_classification "
            "or multi_label_classification."
        },
    )
    max_samples: int | None = field(
        default=None, metadata={"help": "Train on at most so many random rows of the dataset, and of the target."}
    )
    text_columns: list[str] | None = field(default=None, metadata={"help": "Which one or two columns hold the text."})
    series_columns: list[str] | None = field(
        default=None,
        metadata={
            "help": "Which columns of numbers are the steps of one series, in their order; all of a table that has no "
            "column `past_values` when left out."
        },
    )
    max_length: int | None = field(default=None, metadata={"help": "Cut text after so many tokens."})
    block_size: int | None = field(
        default=None,
        metadata={
            "help": "For pre-training on text: join the texts and cut them into rows of so many tokens as the model "
            "reads them."
        },
    )
    pretraining: dict | None = field(
        default=None,
        metadata={
            "help": "For pre-training on text, a key of hf_transfer.data.TEXT_PRETRAINING and its keywords: "
            "{span_corruption: {noise_density: 0.15}}. Left out: masked_language for fill-mask, span_corruption for "
            "text2text-generation, and the next token for text-generation. Of series: {masked_steps: {share: 0.15}}."
        },
    )
    pixels: dict | None = field(
        default=None,
        metadata={
            "help": "For causal-image-modeling and masked-pixel-modeling: how many colours pixels become, and how "
            "large images are: {clusters: 512, size: 32, seed: 0}."
        },
    )
    transfer_probes: dict | None = field(
        default=None,
        metadata={
            "help": "Pre-training without labels: small labelled data sets on which LogME, kNN and a linear probe of "
            "the present features are logged at every evaluation: {digits: optical_digits}, or {digits: {dataset: "
            "optical_digits, split: test, max_samples: 500}}; `scores: [logme]` measures fewer. "
            "`metric_for_best_model: eval_digits_logme` chooses the checkpoint by one, and "
            "`early_stopping_patience` ends the training by it."
        },
    )
    prompts: list[str] | None = field(
        default=None,
        metadata={
            "help": "For zero-shot-image-classification: texts with {} for the name of a class, whose embeddings are "
            'averaged; "a photo of a {}." when left out.'
        },
    )
    dat: dict | None = field(
        default=None,
        metadata={
            "help": "Domain adaptive transfer: draw training rows as often as their class is in a target, whose "
            "labels are not read: {classifier: FOLDER of a model of the same classes, target: DATASET, split, "
            "options, max_weight}."
        },
    )
    trajectories: dict | None = field(
        default=None,
        metadata={
            "help": "For offline-reinforcement-learning: context_length, return_scale, conditions_on_return, "
            "environment, target_return, references (returns of a random and a reference policy), episodes."
        },
    )

    forecasting: dict | None = field(
        default=None,
        metadata={
            "help": "For time-series-forecasting of a table whose rows are steps: {context_length: 96, "
            "prediction_length: 24}, and possibly stride (1), columns (all of numbers), id_column (of several "
            "series), time_column (false to read none) and standardise (true: each channel by its training mean and "
            "deviation)."
        },
    )

    def __post_init__(self):
        if isinstance(self.label_column, list) and len(self.label_column) == 1:
            (self.label_column,) = self.label_column
        for name, least in (
            ("test_rows", 0),
            ("labels_per_class", 1),
            ("max_length", 1),
            ("max_samples", 2),
            ("shuffle_buffer", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"`{name}` should be at least {least}, got {value}.")
