"""Configuration of Flowformer: one architecture for text, images, time series and trajectories.

Paper: Wu et al., ICML 2022, https://huggingface.co/papers/2202.06258
"""

from huggingface_hub.dataclasses import strict
from transformers.backbone_utils import BackboneConfigMixin
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, RopeParameters
from transformers.utils import logging

from .flow_kernels import KERNELS
from .flow_options import FlowOptions

logger = logging.get_logger(__name__)

SIZES = {
    "tiny": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512},
    "small": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 1536},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
}

CHOICES = {
    "attn_kernel": KERNELS,
    "modality": ("text", "image", "time_series", "trajectory"),
    "norm_type": ("layer_norm", "batch_norm"),
    "norm_position": ("pre", "post"),
    "position_embedding_type": ("learned", "sinusoidal", "rotary", "none"),
    "stem": ("patch", "conv"),
    "pooling": ("mean", "first", "last", "flatten"),
}

POSITIVE = (
    "vocab_size",
    "max_position_embeddings",
    "hidden_size",
    "num_hidden_layers",
    "image_size",
    "patch_size",
    "num_channels",
    "num_input_channels",
    "state_dim",
    "act_dim",
    "max_episode_length",
    "prediction_length",
    "decoder_hidden_size",
    "decoder_num_hidden_layers",
    "decoder_num_attention_heads",
    "decoder_intermediate_size",
)

LAYER_TYPES = ("flow_attention", "full_attention", "sliding_attention")

PROBABILITIES = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "drop_path_rate",
    "classifier_dropout",
    "mask_ratio",
)

# those of which `FlowformerBackbone` gives maps: a token has a place of its own there
MAPPED_MODALITIES = ("image", "time_series")

# what only these modalities read: a saved configuration has the fields of its own
MODALITY_FIELDS = {
    **dict.fromkeys(("vocab_size", "type_vocab_size", "pad_token_id", "bos_token_id", "eos_token_id"), ("text",)),
    **dict.fromkeys(("tie_word_embeddings", "class_token", "classifier_hidden_size", "use_cache"), ("text",)),
    **dict.fromkeys(("max_position_embeddings", "is_causal"), ("text", "time_series", "trajectory")),
    "sliding_window": ("text", "time_series", "trajectory"),
    "scale_embeddings": ("text", "time_series"),
    **dict.fromkeys(("image_size", "patch_size", "num_channels", "stem", "mask_ratio", "norm_pix_loss"), ("image",)),
    **dict.fromkeys(("hidden_sizes", "depths", "downsample_norm"), ("image",)),
    **dict.fromkeys(("out_features", "out_indices"), MAPPED_MODALITIES),
    **dict.fromkeys(("decoder_hidden_size", "decoder_num_hidden_layers"), ("image",)),
    **dict.fromkeys(("decoder_num_attention_heads", "decoder_intermediate_size"), ("image",)),
    **dict.fromkeys(("num_input_channels", "prediction_length", "scale_inputs"), ("time_series",)),
    **dict.fromkeys(("state_dim", "act_dim", "max_episode_length", "action_tanh"), ("trajectory",)),
    "discrete_actions": ("trajectory",),
}

# fields of other architectures that change the computation: kept as attributes here, they would change nothing
FOREIGN = {
    "head_dim": "the width of a head follows from `attention_size` or `hidden_size`, and `num_attention_heads`",
    "partial_rotary_factor": "rotary positions turn whole heads",
    "attention_bias": "biases are `qkv_bias` and `out_bias`",
    "mlp_bias": "the MLP has biases",
    "attention_dropout": "it is called `attention_probs_dropout_prob`",
    "dropout": "it is called `hidden_dropout_prob`",
    "hidden_dropout": "it is called `hidden_dropout_prob`",
    "activation_function": "it is called `hidden_act`",
    "num_layers": "it is called `num_hidden_layers`",
    "num_heads": "it is called `num_attention_heads`",
    "embed_dim": "it is called `hidden_size`",
    "d_model": "it is called `hidden_size`",
    "add_cross_attention": "it reads no encoder",
}


@strict
class FlowformerConfig(BackboneConfigMixin, PreTrainedConfig):
    r"""
    The defaults are `flowformer-base` for text; `FlowformerConfig.from_size("tiny", modality="image")` and so on.

    Args:
        modality: `"text"`, `"image"`, `"time_series"` or `"trajectory"`; chooses the embeddings.
        is_causal: a position sees itself and the past; `FlowformerForCausalLM` and `DecisionFlowformer` always do so.
        hidden_sizes, depths: a pyramid of stages for images, e.g. `[64, 128, 256, 512]` and `[2, 2, 10, 4]` (the
            ImageNet shape of the paper); a 2x2 convolution of stride 2 between stages. They then define `hidden_size`
            (the last) and `num_hidden_layers` (the sum); `num_attention_heads` and `intermediate_size` are one number
            for all stages or a list of one a stage. `intermediate_size=None` means four times the stage's width.
        out_features, out_indices: the stages whose maps `FlowformerBackbone` gives, out of `stage_names`: the stem,
            then the stages of a pyramid or the layers of a plain model; by default the last.
        downsample_norm: a norm before each convolution between stages; the released ImageNet code has none.
        layer_types: the attention of each layer, `"flow_attention"`, `"full_attention"` or `"sliding_attention"`, e.g.
            three layers of flow to one of full attention; softmax layers then compute by `attn_implementation`
            (`"sdpa"`). Without it, all layers have the attention that `attn_implementation` names.
        sliding_window: of `"sliding_attention"`, in tokens: the token and those before it if causal, else so many on
            either side.
        feature_map, competition_clamp, flow_eps: of flow attention, see `flow_attention`; the released codes have
            `"shifted_relu"` on the Long Range Arena, and clamps of their own: 10 for trajectories, 5 for language
            modelling, 1 for images, none (30 here) for time series and the Long Range Arena.
        attn_kernel: what computes causal flow attention, see `kernel` of `flow_attention`.
        num_key_value_heads: heads of keys and values, each read by a group of query heads; `None`: as many as queries.
        attention_size: width of queries, keys and values where it is not that of the layer.
        qkv_bias, out_bias: biases of the projections; the Long Range Arena's have none.
        norm_type, norm_position: `"layer_norm"` or `"batch_norm"`, before or after each branch. The UEA recipe names
            batch norm, but its released code has layer norms after each branch and one at the end (`final_norm`).
        final_norm: a norm after the last layer; `None` means where norms come before each branch.
        scale_embeddings: word embeddings, or projected time steps, times sqrt(width), as the released language model
            and UEA code have them. The latter also attends to padding, so that its outputs depend on how far a series
            was padded: ours never do.
        position_embedding_type: `"learned"`, `"sinusoidal"`, `"rotary"` or `"none"`.
        rope_parameters: of rotary positions, as in transformers: `rope_theta` (10,000 by default), `rope_type` and
            what that type needs, e.g. `{"rope_type": "linear", "factor": 2.0}`. Two axes (images) have "default"
            alone. The older `rope_theta=...` and `rope_scaling=...` are taken too.
        layer_scale_init_value, scale_attention_branch: learned scale of the MLP branch (ImageNet: 1e-3 in the paper,
            1e-5 in the released training), and of the attention branch too if asked; `None` switches it off.
        initializer_range, linear_initializer_range: deviation of the initial tables (words, positions, tokens), and of
            the matrices, where `None` means sqrt(2 / (inputs + outputs)), which small models need.
        pooling: how sequence heads read the sequence: mean of real tokens, first one (a [CLS]), last one, or (time
            series) all tokens flattened with padding zeroed.
        class_token, classifier_hidden_size: of `FlowformerForSequenceClassification`, a learned token in front of each
            row and the width of a hidden layer before its `classifier`, both as on the Long Range Arena.
        stem: `"patch"`, one strided convolution, or `"conv"`, 3x3 convolutions of stride 2 (patch_size a power of 2).
        mask_ratio, norm_pix_loss, decoder_*: masked image modelling (MAE).
        num_input_channels, prediction_length, scale_inputs: time series.
        state_dim, act_dim, max_episode_length, action_tanh, discrete_actions: trajectories.
        trained_attention: `"flow"` or `"sdpa"` (any softmax attention), written by `save_pretrained`; a model loads
            with it unless another `attn_implementation` is asked for.
    """

    model_type = "flowformer"
    keys_to_ignore_at_inference = ["past_key_values"]

    modality: str = "text"
    is_causal: bool = False
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int | list[int] = 12
    num_key_value_heads: int | None = None
    intermediate_size: int | list[int] | None = None
    hidden_sizes: list[int] | None = None
    depths: list[int] | None = None

    feature_map: str = "sigmoid"
    competition_clamp: float = 1.0
    flow_eps: float = 1e-6
    attn_kernel: str = "auto"
    qkv_bias: bool = True
    out_bias: bool = True
    attention_size: int | None = None
    sliding_window: int | None = None
    trained_attention: str | None = None

    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    classifier_dropout: float | int | None = None
    drop_path_rate: float | int = 0.0
    layer_scale_init_value: float | None = None
    scale_attention_branch: bool = False
    norm_type: str = "layer_norm"
    norm_position: str = "pre"
    final_norm: bool | None = None
    downsample_norm: bool = True
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    linear_initializer_range: float | None = None
    position_embedding_type: str = "learned"
    rope_parameters: RopeParameters | dict | None = None
    max_position_embeddings: int = 512
    scale_embeddings: bool = False
    pooling: str = "mean"
    class_token: bool = False
    classifier_hidden_size: int | None = None
    use_cache: bool = True

    vocab_size: int = 30522
    type_vocab_size: int = 0
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = True

    image_size: int = 224
    patch_size: int = 16
    num_channels: int = 3
    stem: str = "patch"
    mask_ratio: float = 0.75
    norm_pix_loss: bool = True
    decoder_hidden_size: int = 512
    decoder_num_hidden_layers: int = 8
    decoder_num_attention_heads: int = 16
    decoder_intermediate_size: int = 2048

    num_input_channels: int = 1
    prediction_length: int = 24
    scale_inputs: bool = True

    state_dim: int = 17
    act_dim: int = 4
    max_episode_length: int = 4096
    action_tanh: bool = True
    discrete_actions: bool = False

    @classmethod
    def from_size(cls, size: str = "base", **kwargs) -> "FlowformerConfig":
        """The named size `"tiny"`, `"small"`, `"base"` or `"large"`; keywords override single fields."""
        if size not in SIZES:
            raise ValueError(f"`size` should be one of {sorted(SIZES)}, got {size!r}.")
        return cls(**{**SIZES[size], **kwargs})

    def __post_init__(self, **kwargs):
        foreign = [f"`{name}`: {why}" for name, why in FOREIGN.items() if kwargs.get(name)]
        if foreign:
            raise ValueError(f"FlowformerConfig has no {'; '.join(foreign)}.")
        kwargs = {name: value for name, value in kwargs.items() if name not in FOREIGN}
        rope = kwargs.pop("rope_scaling", None) or self.rope_parameters
        rotates = self.position_embedding_type == "rotary"
        if rope and not rotates:
            raise ValueError(
                f"`rope_parameters` (`rope_scaling`) needs `position_embedding_type='rotary'`, got "
                f"{self.position_embedding_type!r}."
            )
        self.rope_parameters = dict(rope or {})
        if self.hidden_sizes is not None and self.depths is not None and self.hidden_sizes and self.depths:
            self.hidden_size = self.hidden_sizes[-1]
            self.num_hidden_layers = sum(self.depths)
        maps = {name: kwargs.pop(name, None) for name in ("out_features", "out_indices")}
        super().__post_init__(**kwargs)
        # the base class fills them in for every model that could rotate
        self.rope_parameters = self.rope_parameters if rotates else None
        if self.modality in MAPPED_MODALITIES:
            self.set_output_features_output_indices(**maps)
        elif any(maps.values()):
            raise ValueError(
                f"`out_features` and `out_indices` need `modality` 'image' or 'time_series', got {self.modality!r}."
            )
        # Raised here too, because the strict validation that follows wraps the ValueError in an error of its own.
        self.validate_architecture()

    @property
    def layer_types(self) -> list[str]:
        """What each layer computes, and keeps in a cache: the constant flow state, or keys and values."""
        if self.mixes_layers:
            return self._layer_types
        flow = self._attn_implementation in (None, "flow")
        return ["flow_attention" if flow else "full_attention"] * self.num_hidden_layers

    @layer_types.setter
    def layer_types(self, value: list[str] | None):
        self._layer_types = value

    @property
    def mixes_layers(self) -> bool:
        """The configuration itself says what each layer computes."""
        return getattr(self, "_layer_types", None) is not None

    def to_dict(self) -> dict:
        """As in transformers, with the fields of the own modality; `layer_types` only where they were given."""
        output = super().to_dict()
        mine = {name for name in output if self.modality in MODALITY_FIELDS.get(name, (self.modality,))}
        output = {name: value for name, value in output.items() if name in mine}
        for name in ("num_key_value_heads", "rope_parameters"):  # PEFT multiplies by whatever the former says
            if output.get(name) is None:
                output.pop(name, None)
        given = output.pop("_layer_types", None)
        return output if given is None else {**output, "layer_types": given}

    @property
    def head_dim(self) -> int:
        """The width of a head, of the last stage in a pyramid."""
        return (self.attention_size or self.hidden_size) // self.stages[-1]["num_heads"]

    @property
    def rope_theta(self) -> float:
        """Of `rope_parameters`, whose field it was before."""
        return (self.rope_parameters or {}).get("rope_theta", self.default_theta)

    @rope_theta.setter
    def rope_theta(self, value: float):
        self.rope_parameters = {**(self.rope_parameters or {}), "rope_theta": value}

    @property
    def stage_names(self) -> list[str]:
        """The stem, then the stages of a pyramid or the layers of a plain model."""
        stages = len(self.depths) if self.depths else self.num_hidden_layers
        return ["stem", *(f"stage{stage}" for stage in range(1, stages + 1))]

    @property
    def has_final_norm(self) -> bool:
        """A norm after the last layer."""
        return self.norm_position == "pre" if self.final_norm is None else self.final_norm

    @property
    def stages(self) -> list[dict[str, int]]:
        """Width, depth, heads and MLP width of each stage; a plain model has one stage."""
        widths = self.hidden_sizes or [self.hidden_size]
        depths = self.depths or [self.num_hidden_layers]
        heads = self._per_stage(self.num_attention_heads, len(widths))
        mlps = self._per_stage(self.intermediate_size, len(widths))
        return [
            {
                "hidden_size": width,
                "depth": depth,
                "num_heads": head,
                "intermediate_size": 4 * width if mlp is None else mlp,
            }
            for width, depth, head, mlp in zip(widths, depths, heads, mlps)
        ]

    @staticmethod
    def _per_stage(value, num_stages: int) -> list:
        return value if isinstance(value, list) else [value] * num_stages

    def validate_layer_type(self):
        """In place of transformers' check, which knows no flow attention."""
        windows = self.mixes_layers and "sliding_attention" in self._layer_types
        if self.mixes_layers:
            unknown = sorted({str(name) for name in self._layer_types if name not in LAYER_TYPES})
            if unknown:
                raise ValueError(f"`layer_types` should be of {list(LAYER_TYPES)}, got {unknown}.")
            if len(self._layer_types) != self.num_hidden_layers:
                raise ValueError(
                    f"`layer_types` should name {self.num_hidden_layers} layers (`num_hidden_layers`, or the sum of "
                    f"`depths`), got {len(self._layer_types)}."
                )
        if windows and self.modality == "image":
            raise ValueError("'sliding_attention' has no meaning for image patches: their windows have two axes.")
        if windows and (self.sliding_window is None or self.sliding_window < 1):
            raise ValueError(f"'sliding_attention' needs a `sliding_window` of tokens, got {self.sliding_window}.")
        if self.sliding_window is not None and not windows:
            unread = (
                f"`sliding_window={self.sliding_window}` needs a 'sliding_attention' in `layer_types`: flow and full "
                "attention read the whole sequence."
            )
            if self.mixes_layers:
                raise ValueError(unread)
            logger.warning_once(unread)

    def validate_architecture(self):
        """Part of `@strict` validation: every combination of fields that cannot be built names itself here."""
        for name, accepted in CHOICES.items():
            if getattr(self, name) not in accepted:
                raise ValueError(f"`{name}` should be one of {list(accepted)}, got {getattr(self, name)!r}.")
        for name in POSITIVE:
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` should be at least 1, got {getattr(self, name)}.")
        for name in ("attention_size", "classifier_hidden_size", "num_key_value_heads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"`{name}` should be at least 1 or None, got {getattr(self, name)}.")
        if self.trained_attention not in (None, "flow", "sdpa"):
            raise ValueError(f"`trained_attention` should be 'flow', 'sdpa' or None, got {self.trained_attention!r}.")
        for name in PROBABILITIES:
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise ValueError(f"`{name}` should be in [0, 1), got {getattr(self, name)}.")
        FlowOptions(self.feature_map, self.competition_clamp, self.flow_eps).check()
        self.validate_layer_type()
        self._validate_stages()
        if self.modality == "text":
            self._validate_text()
        if self.modality == "image":
            self._validate_image()
        elif self.is_pyramid:
            raise ValueError(
                f"`hidden_sizes` and `depths` (a pyramid) need `modality='image'`, got {self.modality!r}."
            )
        if self.pooling == "flatten" and self.modality != "time_series":
            raise ValueError(f"`pooling='flatten'` needs `modality='time_series'`, got {self.modality!r}.")
        if self.scale_embeddings and self.modality not in ("text", "time_series"):
            raise ValueError(
                f"`scale_embeddings=True` needs `modality` 'text' or 'time_series', got {self.modality!r}."
            )
        if self.class_token and (self.modality != "text" or self.pooling != "first"):
            raise ValueError("`class_token=True` needs `modality='text'` and `pooling='first'`, which reads it.")
        if self.pooling == "first" and self.is_causal:
            raise ValueError("`pooling='first'` needs `is_causal=False`: the first causal token sees no other.")

    @property
    def is_pyramid(self) -> bool:
        return self.hidden_sizes is not None or self.depths is not None

    def _validate_stages(self):
        if (self.hidden_sizes is None) != (self.depths is None):
            raise ValueError("`hidden_sizes` and `depths` belong together: give both for a pyramid, or neither.")
        num_stages = len(self.hidden_sizes) if self.hidden_sizes is not None else 1
        for name in ("hidden_sizes", "depths", "num_attention_heads", "intermediate_size"):
            value = getattr(self, name)
            if isinstance(value, list) and (len(value) != num_stages or not value or min(value) < 1):
                raise ValueError(f"`{name}` should list {num_stages} positive numbers, one a stage, got {value}.")
        for stage in self.stages:
            if stage["intermediate_size"] < 1:
                raise ValueError(f"`intermediate_size` should be at least 1, got {stage['intermediate_size']}.")
            name = "hidden_size" if self.attention_size is None else "attention_size"
            width = self.attention_size or stage["hidden_size"]
            if stage["num_heads"] < 1 or width % stage["num_heads"]:
                raise ValueError(
                    f"`{name}` should be a multiple of `num_attention_heads`, got {width} and {stage['num_heads']}."
                )
            if self.num_key_value_heads is not None and stage["num_heads"] % self.num_key_value_heads:
                raise ValueError(
                    f"`num_attention_heads` should be a multiple of `num_key_value_heads`, got {stage['num_heads']} "
                    f"and {self.num_key_value_heads}."
                )
        self._validate_positions()

    def _validate_positions(self):
        axes = 2 if self.modality == "image" else 1
        if self.position_embedding_type == "sinusoidal" and self.stages[0]["hidden_size"] % (2 * axes):
            raise ValueError(
                f"Sinusoidal positions need a width divisible by {2 * axes}, got {self.stages[0]['hidden_size']}."
            )
        if self.position_embedding_type == "rotary":
            if self.is_pyramid:
                raise ValueError("A pyramid has positions at its first stage only: use learned or sinusoidal ones.")
            if self.head_dim % (2 * axes):
                raise ValueError(f"Rotary positions need a head width divisible by {2 * axes}, got {self.head_dim}.")
            self._validate_rotation(["default"] if axes == 2 else ["default", *ROPE_INIT_FUNCTIONS])

    def _validate_rotation(self, types: list[str]):
        given = self.rope_parameters
        if given.get("rope_type") not in types:
            raise ValueError(f"`rope_type` should be one of {types}, got `rope_parameters={given}`.")
        if given.get("partial_rotary_factor", 1.0) != 1.0:
            raise ValueError("Rotary positions turn whole heads: leave `partial_rotary_factor` out.")
        if any(isinstance(value, dict) for value in given.values()):
            raise ValueError(f"All layers rotate alike: `rope_parameters` should be one rotation, got {given}.")
        try:
            self.validate_rope()
        except (KeyError, TypeError) as error:
            raise ValueError(f"`rope_parameters={given}` is no {given['rope_type']!r} rotation: {error}") from error

    def _validate_text(self):
        if self.type_vocab_size < 0:
            raise ValueError(f"`type_vocab_size` should be at least 0, got {self.type_vocab_size}.")
        if self.pad_token_id is not None and not -self.vocab_size <= self.pad_token_id < self.vocab_size:
            raise ValueError(
                f"`pad_token_id` should be below `vocab_size={self.vocab_size}`, got {self.pad_token_id}."
            )

    def _validate_image(self):
        if self.is_causal:
            raise ValueError("`is_causal=True` has no meaning for image patches: use `modality='text'` for pixels.")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"`image_size` should be a multiple of `patch_size`, got {self.image_size} and {self.patch_size}."
            )
        if self.stem == "conv" and (self.patch_size < 2 or self.patch_size & (self.patch_size - 1)):
            raise ValueError(f"`stem='conv'` needs a `patch_size` that is a power of two, got {self.patch_size}.")
        grid = self.image_size // self.patch_size
        shrink = 2 ** (len(self.stages) - 1)
        if grid % shrink:
            raise ValueError(
                f"A pyramid of {len(self.stages)} stages halves the {grid} x {grid} patch grid {len(self.stages) - 1} "
                f"times: `image_size / patch_size` should be a multiple of {shrink}."
            )
        if self.decoder_hidden_size % 4:
            raise ValueError(f"`decoder_hidden_size` should be divisible by 4, got {self.decoder_hidden_size}.")
        if self.decoder_hidden_size % self.decoder_num_attention_heads:
            raise ValueError(
                f"`decoder_hidden_size` should be a multiple of `decoder_num_attention_heads`, got "
                f"{self.decoder_hidden_size} and {self.decoder_num_attention_heads}."
            )


__all__ = ["FlowformerConfig"]
