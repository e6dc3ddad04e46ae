"""Which models can run flow attention: what does not call the attention interface is refused when it is built.

transformers hands `attn_implementation="flow"` to any model. One that computes its attention itself would go on doing
so under a configuration that says flow, or lose its causality because the mask is a padding mask. So `PreTrainedModel`
asks here, once when the attention is chosen and once when all modules are there; both questions cost nothing to models
under another attention.
"""

import functools
import inspect
import sys

import torch
from torch import Tensor, nn
from transformers.modeling_utils import AttentionInterface, PreTrainedModel
from transformers.utils import logging

from .flow_tracing import has_values

logger = logging.get_logger(__name__)

OWN_ATTENTION = {"softmax", "Softmax", "scaled_dot_product_attention"}
PACKED_ERROR = (
    "{name} cannot keep packed documents apart under flow attention, whose flows sum over the whole row: `{found}` "
    "marks several documents in a row. Pad them to rows of their own (DataCollatorWithPadding), use a Flowformer, "
    "which restarts its state at each document, or use another `attn_implementation`."
)


# methods of transformers that are wrapped, and the arguments they are called with beside the model
WRAPPED = {"get_correct_attn_implementation": ("requested_attention", "is_init_check"), "post_init": ()}


def guard_flow_attention() -> None:
    """Make every `PreTrainedModel` ask before it takes "flow"; calling it again changes nothing.

    The methods that ask are private to transformers: a version where they have another form is left as it is.
    """
    if getattr(PreTrainedModel, "_asks_before_flow_attention", False):
        return
    changed = [name for name, arguments in WRAPPED.items() if _arguments_of(name) != arguments]
    if changed:
        logger.warning_once(
            f"This version of transformers has another {' and '.join(changed)}: a model that does not call the "
            "attention interface is not refused under `attn_implementation='flow'`. Flowformer itself is not affected."
        )
        return
    PreTrainedModel._asks_before_flow_attention = True
    choose, finish = PreTrainedModel.get_correct_attn_implementation, PreTrainedModel.post_init

    @functools.wraps(choose)
    def get_correct_attn_implementation(self, requested_attention, is_init_check=False):
        chosen = choose(self, requested_attention, is_init_check)
        if chosen == "flow":
            refuse_class(type(self))
            if not is_init_check:
                refuse_modules(self)
        return chosen

    @functools.wraps(finish)
    def post_init(self):
        if self.config._attn_implementation == "flow":
            refuse_modules(self)
        finish(self)

    PreTrainedModel.get_correct_attn_implementation = get_correct_attn_implementation
    PreTrainedModel.post_init = post_init


def _arguments_of(name: str) -> tuple[str, ...] | None:
    method = getattr(PreTrainedModel, name, None)
    return None if method is None else tuple(inspect.signature(method).parameters)[1:]


def refuse_class(model_class: type) -> None:
    """Before anything is built.

    Raises:
        ValueError: the files of the class and its bases define attention and none of them has the interface or
            other models, or they choose among classes of attention by name.
    """
    bases = [base for base in model_class.__mro__ if issubclass(base, PreTrainedModel) and base is not PreTrainedModel]
    files = {name for name in (base.__module__ for base in bases) if name in sys.modules}
    own, by_name, builds_others = [], False, False
    for file in files:
        values = vars(sys.modules[file]).values()
        classes = {value for value in values if isinstance(value, type) and value is not PreTrainedModel}
        own += [cls.__name__ for cls in classes if _is_attention(cls, file)]
        # a model made of others is asked again when they are there
        builds_others |= any(issubclass(cls, PreTrainedModel) and cls.__module__ not in files for cls in classes)
        # a table of classes by implementation, as before there was an interface: it knows no "flow"
        by_name |= any(isinstance(value, dict) and isinstance(value.get("eager"), type) for value in values)
    if by_name or (own and not builds_others and not any(_has_interface(file) for file in files)):
        raise ValueError(_refusal(model_class, sorted(set(own))))


def refuse_modules(model: PreTrainedModel) -> None:
    """When all modules are there, and before their weights are; from then on packed input is refused too.

    Raises:
        ValueError: a module computes attention itself, or no module can call the interface.
    """
    classes = {type(module) for module in model.modules()}
    own = sorted(cls.__name__ for cls in classes if _is_attention(cls) and _computes_its_own(cls))
    if own or not any(_has_interface(cls.__module__) for cls in classes):
        raise ValueError(_refusal(type(model), own))
    if not getattr(model, "_refuses_flow_calls", False) and model.config.model_type != "flowformer":
        model._refuses_flow_calls = True
        model.register_forward_pre_hook(_refuse_calls, with_kwargs=True)


def _is_attention(cls: type, file: str | None = None) -> bool:
    """A module called an attention, of `file` if that is given."""
    is_module = issubclass(cls, nn.Module) and not issubclass(cls, PreTrainedModel)
    return is_module and "Attention" in cls.__name__ and file in (None, cls.__module__)


def _has_interface(file: str) -> bool:
    """The table of attention functions is among the names of that file: to call it, a file must import it."""
    return any(isinstance(value, AttentionInterface) for value in vars(sys.modules.get(file, sys)).values())


def _computes_its_own(cls: type) -> bool:
    """One of its methods names a softmax and none the interface; PyTorch's own modules are left alone."""
    if cls.__module__.startswith("torch."):
        return False
    methods = [inspect.unwrap(value) for value in vars(cls).values() if inspect.isfunction(value)]
    names = {name for method in methods for name in method.__code__.co_names}
    return bool(names & OWN_ATTENTION) and "ALL_ATTENTION_FUNCTIONS" not in names


def _refusal(model_class: type, own: list[str]) -> str:
    found = f"it has its own ({', '.join(own)})" if own else "no part of it calls the attention interface"
    return (
        f"`attn_implementation='flow'` has no effect, or a wrong one, on {model_class.__name__}: {found}. Leave "
        "`attn_implementation` out, or choose a model whose attention goes through transformers' AttentionInterface, "
        "such as BERT, RoBERTa, GPT-2, Llama, ViT or Flowformer."
    )


def restarts(position_ids: Tensor, padding_mask: Tensor | None = None) -> Tensor:
    """Where a new document begins inside a row: positions [B, L] that do not go on rising between real tokens."""
    # every tensor has L columns: an exported graph would else ask for rows of three tokens
    begins = (position_ids <= position_ids.roll(1, 1)) & (
        torch.arange(position_ids.shape[1], device=position_ids.device) > 0
    )
    return begins if padding_mask is None else begins & padding_mask & padding_mask.roll(1, 1)


def _refuse_calls(model: PreTrainedModel, args: tuple, kwargs: dict) -> None:
    """Before a forward of a model that is not a Flowformer: what its attention function may never get to see."""
    if model.config._attn_implementation != "flow":
        return
    if kwargs.get("output_attentions"):
        tell_of_no_weights(type(model).__name__)
    position_ids, mask = kwargs.get("position_ids"), kwargs.get("attention_mask")
    if mask is not None or not torch.is_tensor(position_ids) or position_ids.dim() != 2:
        return
    if has_values(position_ids) and restarts(position_ids).any():
        raise ValueError(PACKED_ERROR.format(name=type(model).__name__, found="position_ids"))


def tell_of_no_weights(name: str) -> None:
    """A warning, as transformers gives for sdpa: a tuple of attention weights stays empty."""
    logger.warning_once(
        f"{name} has no attention weights to give under flow attention, which makes no product per pair of tokens: "
        "`attentions` stays empty. Use `attn_implementation='eager'` on a model trained with softmax to see them."
    )
