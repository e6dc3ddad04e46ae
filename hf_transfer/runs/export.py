"""A saved model in another form: `hf-transfer export FOLDER`.

    W' = W + scale B A      (LoRA and every other adapter that PEFT can merge)

The merged model is an ordinary folder that loads without PEFT. What converters change is folded when a run saves its
model, so that such folders are ordinary already. For ONNX files see `hf_transfer.runs.onnx_files`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from peft import PeftModel
from transformers import PreTrainedModel

from hf_transfer.hub import RunFacts, atomic_folder, check_can_write, loadable_adapter, read_facts, write_card
from hf_transfer.hub.adapter import adapter_outputs, find_base, is_adapter_folder
from hf_transfer.runs.arguments import ModelArguments
from hf_transfer.runs.models import adapter_labels, base_revision, load_model, load_processor, without_loading_report
from hf_transfer.runs.onnx_files import onnx_tools, write_onnx
from hf_transfer.runs.task import find_evaluation_task
from hf_transfer.tasks import task_named
from hf_transfer.training.card_facts import loading_facts_of


def adapted_model(arguments: ModelArguments) -> PeftModel:
    """The base of a saved adapter under that adapter.

    Args:
        arguments: with the folder of the adapter and its task.

    Raises:
        ValueError: the base is not found.
    """
    folder = Path(str(arguments.model))
    loader = task_named(str(arguments.task)).model_class()
    with loadable_adapter(folder) as place, without_loading_report():
        stored = {"revision": base_revision(folder), **adapter_labels(folder)}
        base = loader.from_pretrained(find_base(folder), ignore_mismatched_sizes=True, **stored)
        base.config.update(adapter_outputs(folder))
        return PeftModel.from_pretrained(base, str(place))


def merged(adapted: PeftModel, folder: str | Path) -> PreTrainedModel:
    """The base model with the adapter's change in its weights.

    Raises:
        ValueError: the adapter's change is none of the weights.
    """
    kind = adapted.active_peft_config.peft_type
    try:
        return adapted.merge_and_unload().eval()
    except (AttributeError, NotImplementedError, ValueError, TypeError) as error:
        raise ValueError(
            f"the {getattr(kind, 'value', kind)} adapter `{folder}` cannot be merged into its base: {error} Load it "
            "with PEFT, as its card says."
        ) from error


def export_folder(
    folder: str | Path, output_dir: str | Path, onnx: bool = False, task: str | None = None, overwrite: bool = False
) -> Path:
    """Write the merged model of an adapter, or an ONNX file of any model.

    Args:
        folder: of the saved model.
        output_dir: where to.
        onnx: write ONNX files instead of weights.
        task: of the model, where its configuration leaves a doubt.
        overwrite: replace what is in `output_dir`.

    Returns:
        The folder that was written.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder is ordinary already, its adapter cannot be merged, or there is no ONNX form of it.
        FileExistsError: something is in `output_dir`.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder `{folder}`; `hf-transfer pull ORG/NAME` fetches one.")
    adapter = is_adapter_folder(folder)
    if not adapter and not onnx:
        raise ValueError(
            f"`{folder}` is an ordinary model folder, which loads as it is: there is no adapter in it to merge. "
            "`--onnx` writes an ONNX file."
        )
    check_can_write(output_dir, overwrite=overwrite)
    if onnx:
        onnx_tools()
    arguments = with_known_task(folder, task)
    model = merged(adapted_model(arguments), folder) if adapter else load_model(arguments, allow_new_weights=False)
    with atomic_folder(output_dir, overwrite=overwrite) as staging:
        if onnx:
            write_onnx(model, str(arguments.task), load_processor(arguments, model.config), staging)
        else:
            save_merged(model, arguments, staging, loading_facts_of(model), str(output_dir))
    return Path(output_dir)


def save_merged(
    model: PreTrainedModel, arguments: ModelArguments, folder: Path, loading: dict[str, Any], name: str
) -> None:
    """Weights, processor and card of a merged model.

    Args:
        model: merged.
        arguments: that the adapter was loaded by.
        folder: where to.
        loading: how it is loaded, of `loading_facts_of`.
        name: what the card calls the folder.
    """
    model.save_pretrained(folder)
    if (processor := load_processor(arguments, model.config)) is not None:
        processor.save_pretrained(folder)
    loading = {"loads_with": "transformers", "imports_from": "", **loading, "model_id": name}
    told = read_facts(arguments.model)
    if told is None:
        told = RunFacts(Path(name).resolve().name, loading["task"], loading["auto_class"])
    write_card(folder, replace(told, **loading, model_name=Path(name).resolve().name))
    for record in ("results.json", "training_log.json", "held_out.json"):
        if (source := Path(arguments.model) / record).is_file():
            (folder / record).write_bytes(source.read_bytes())


def with_known_task(folder: str | Path, task: str | None = None) -> ModelArguments:
    """The arguments that load a folder: with the task that is given, or that its configuration says.

    Raises:
        ValueError: the configuration leaves the task open.
    """

    def in_doubt() -> NoReturn:
        raise ValueError(
            f"the configuration of `{folder}` does not say its task: give it, such as text-classification."
        )

    arguments = ModelArguments(model=str(folder))
    return replace(arguments, task=task or find_evaluation_task(arguments, in_doubt))
