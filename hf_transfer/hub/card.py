"""Write the model card from the facts of a run, so that nothing on it was typed by hand.

The metadata block carries the results as a real `model-index`; the text says what the model was trained on, by which
methods and papers, how well it does, how it was chosen, and how to load it. The template is package data beside this
file, because a card must be written wherever the package is installed, not only in a checkout of its repository.
"""

import json
import math
import os
import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_transfer.hub.adapter import is_hub_id

CARD_NAME = "README.md"
FACTS_FILE = "card.json"
"""The facts of a card for programs: `hf-transfer compare` and `hf-transfer card` read them."""
MARK = "hf_transfer"
"""The tag of every card that is written here."""
SIGNATURE = "This card was written from the run itself."
"""In the text of the template."""
_LOADING = re.compile(r'(\.from_pretrained\()"[^"\n]*"')
_ARXIV_ID = re.compile(r"\d{4}\.\d{4,5}(v\d+)?|[a-z-]+/\d{7}")
_VERSIONED = ("hf-transferability", "torch", "transformers", "peft", "accelerate", "datasets", "huggingface-hub")


@dataclass(frozen=True)
class DatasetFact:
    """A dataset that took part, and as what."""

    name: str
    role: str  # "source", "target", "pre-training", ...
    num_examples: int | None = None
    hub_id: str | None = None  # only what can be loaded from the Hub goes into the metadata
    note: str = ""  # split, licence, preprocessing


@dataclass(frozen=True)
class MethodFact:
    """A method, its paper (arXiv id, DOI or address) and the hyper-parameters it ran with."""

    name: str
    paper: str = ""
    hyper_parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MetricFact:
    """One measured number."""

    name: str  # "accuracy"
    value: float
    dataset: str  # what it was measured on, for example "UCI optical digits"
    split: str = "test"
    standard_deviation: float | None = None  # over runs, if there was more than one
    dataset_id: str | None = None  # Hub id


@dataclass(frozen=True)
class TableFact:
    """A table of the run, for example the ranking the base model was chosen by."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""


@dataclass(frozen=True)
class PlotFact:
    """A picture of the run. It is copied into `plots/` of the model folder."""

    path: str | os.PathLike
    caption: str


@dataclass(frozen=True)
class RunFacts:
    """Everything a card says about one run, as plain data.

    `model_id` is what users will pass to `from_pretrained`: ORG/NAME on the Hub, or the folder.
    """

    model_name: str
    task: str  # pipeline tag: "image-classification", "text-classification", ...
    auto_class: str  # "AutoModelForImageClassification"
    summary: str = ""
    model_id: str = ""
    loads_with: str = "transformers"  # or "peft" for an adapter
    imports_from: str = ""  # module of `auto_class`, where that is not the library in `loads_with`
    load_options: Mapping[str, Any] = field(default_factory=dict)  # keywords of `from_pretrained`
    base_class: str = ""  # the Auto class of an adapter's base, where that of PEFT cannot load it
    needs_hf_transfer: str = ""  # what the package registers without which loading fails; empty where nothing does
    base_model: str | None = None
    license: str | None = None
    language: str | Sequence[str] | None = None
    datasets: Sequence[DatasetFact] = ()
    methods: Sequence[MethodFact] = ()
    hyper_parameters: Mapping[str, Any] = field(default_factory=dict)  # of the training as a whole
    metrics: Sequence[MetricFact] = ()
    ranking: TableFact | None = None
    tables: Sequence[TableFact] = ()
    plots: Sequence[PlotFact] = ()
    limitations: str = ""
    tags: Sequence[str] = ()
    software: Mapping[str, str] = field(default_factory=lambda: software_versions())

    def __post_init__(self) -> None:
        for name in ("model_name", "task", "auto_class"):
            if not getattr(self, name):
                raise ValueError(f"`{name}` should not be empty: a card needs it.")
        if self.loads_with not in ("transformers", "peft"):
            raise ValueError(f"`loads_with` should be 'transformers' or 'peft', got {self.loads_with!r}.")
        for metric in self.metrics:
            if not math.isfinite(metric.value):
                raise ValueError(f"The metric {metric.name!r} on {metric.dataset!r} is {metric.value}, not a number.")
        for table in (*self.tables, *filter(None, [self.ranking])):
            if any(len(row) != len(table.columns) for row in table.rows):
                raise ValueError(f"Each row of the table {table.title!r} should have {len(table.columns)} cells.")


_PARTS = {
    "datasets": DatasetFact,
    "methods": MethodFact,
    "metrics": MetricFact,
    "tables": TableFact,
    "plots": PlotFact,
}


def software_versions() -> dict[str, str]:
    """The versions that matter for running the model again, of this process."""
    versions = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def write_card(folder: str | os.PathLike, facts: RunFacts) -> Path:
    """Write `README.md` and its facts as `card.json` into a model folder, and copy the plots beside them.

    Returns:
        The path of the card.

    Raises:
        FileNotFoundError: the folder, or a plot, does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; save the model there before its card.")
    plots = [_copy_plot(folder, plot) for plot in facts.plots]
    template = resources.files(__package__).joinpath("card_template.md").read_text(encoding="utf-8")
    card = ModelCard.from_template(
        card_metadata(facts),
        template_str=template,
        facts=facts,
        model_id=facts.model_id or facts.model_name,
        methods=[(method, _paper_link(method.paper)) for method in facts.methods],
        tables=[(table, _markdown_table(table)) for table in (*filter(None, [facts.ranking]), *facts.tables)],
        plots=plots,
    )
    path = folder / CARD_NAME
    card.save(path)
    kept = replace(facts, plots=[PlotFact(place, caption) for place, caption in plots])
    (folder / FACTS_FILE).write_text(json.dumps(asdict(kept), indent=2, default=str) + "\n", encoding="utf-8")
    return path


def read_facts(folder: str | os.PathLike) -> RunFacts | None:
    """The facts that the card of a folder was written from; None where it has none.

    Raises:
        ValueError: the file cannot be read.
    """
    path = Path(folder) / FACTS_FILE
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        options = stored["load_options"]
        if "id2label" in options:  # JSON has no numbers as keys
            options["id2label"] = {int(place): name for place, name in options["id2label"].items()}
        for name, kind in _PARTS.items():
            stored[name] = [kind(**one) for one in stored[name]]
        stored["plots"] = [replace(plot, path=Path(folder) / plot.path) for plot in stored["plots"]]
        stored["ranking"] = None if stored["ranking"] is None else TableFact(**stored["ranking"])
        return RunFacts(**stored)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): it is not as `write_card` writes it.") from error


def card_metadata(facts: RunFacts) -> ModelCardData:
    """The metadata block of the card: what the Hub's search, widgets and leaderboards read."""
    return ModelCardData(
        model_name=facts.model_name,
        pipeline_tag=facts.task,
        library_name=facts.loads_with,
        base_model=facts.base_model if is_hub_id(facts.base_model) else None,
        license=facts.license,
        language=facts.language if isinstance(facts.language, str) or facts.language is None else list(facts.language),
        datasets=[data.hub_id for data in facts.datasets if data.hub_id] or None,
        metrics=list(dict.fromkeys(metric.name for metric in facts.metrics)) or None,
        tags=[MARK, "transfer-learning", *(_slug(method.name) for method in facts.methods), *facts.tags],
        eval_results=[_eval_result(facts.task, metric) for metric in facts.metrics] or None,
    )


def card_on_hub(folder: str | os.PathLike, repo_id: str) -> str | None:
    """The card of a model folder as it has to read on the Hub: named, and loaded, by the repository.

    Args:
        folder: with a card.
        repo_id: what users will pass to `from_pretrained`.

    Returns:
        The text; None for a card that was not written here, which stays as it is.
    """
    card = check_card(folder)
    if not is_written_here(card):
        return None
    name = repo_id.split("/")[-1]
    card.text = re.sub(r"^# .*$", f"# {name}", card.text, count=1, flags=re.MULTILINE)
    card.text = _LOADING.sub(lambda found: f'{found[1]}"{repo_id}"', card.text, count=1)
    if card.data.model_name is not None:
        card.data.model_name = name
    return str(card)


def is_written_here(card: ModelCard) -> bool:
    """Whether `write_card` wrote a card. PEFT replaces the tags of every card that it finds, and leaves the text."""
    return MARK in (card.data.tags or ()) or SIGNATURE in card.text


def check_card(folder: str | os.PathLike) -> ModelCard:
    """Read the card of a model folder and return it.

    Raises:
        ValueError: there is none, it has no metadata, or its `model-index` cannot be read.
    """
    path = Path(folder) / CARD_NAME
    if not path.is_file():
        raise ValueError(f"{folder} has no model card ({CARD_NAME}). Write one with `write_card(folder, facts)`.")
    try:
        card = ModelCard.load(path)
    except Exception as error:  # YAML, types and keys: whatever is wrong, the file is what has to be mended
        raise ValueError(f"The metadata at the top of {path} cannot be read: {error}") from error
    if not card.data.to_dict():
        raise ValueError(f"{path} has no metadata block (the lines between two `---` at its top).")
    return card


def _eval_result(task: str, metric: MetricFact) -> EvalResult:
    return EvalResult(
        task_type=task,
        dataset_type=metric.dataset_id or _slug(metric.dataset),
        dataset_name=metric.dataset,
        dataset_split=metric.split,
        metric_type=metric.name,
        # NumPy and torch scalars do not belong into YAML.
        metric_value=round(float(metric.value), 6),
    )


def _copy_plot(folder: Path, plot: PlotFact) -> tuple[str, str]:
    source = Path(plot.path)
    if not source.is_file():
        raise FileNotFoundError(f"The plot {source} does not exist.")
    target = folder / "plots" / source.name
    target.parent.mkdir(exist_ok=True)
    if source.resolve() != target.resolve():
        shutil.copyfile(source, target)
    return target.relative_to(folder).as_posix(), plot.caption


def _paper_link(paper: str) -> str:
    if not paper or paper.startswith("http"):
        return paper
    arxiv = paper.removeprefix("arXiv:").removeprefix("arxiv:")
    if _ARXIV_ID.fullmatch(arxiv):
        # The Hub turns this address into an `arxiv:` tag of the model.
        return f"[arXiv:{arxiv}](https://huggingface.co/papers/{arxiv})"
    return f"[{paper}](https://doi.org/{paper})" if paper.startswith("10.") else paper


def _markdown_table(table: TableFact) -> str:
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in row) + " |" for row in rows)


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
