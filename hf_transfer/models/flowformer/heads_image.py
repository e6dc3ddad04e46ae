"""Flowformer for images: classification, and masked image modelling in the manner of MAE."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_flowformer import FlowformerConfig
from .layers_flowformer import FlowformerLayer, make_norm, normalize
from .modeling_flowformer import FlowformerModel, FlowformerPreTrainedModel
from .pooling_flowformer import classifier_dropout
from .positions_flowformer import grid_coordinates, sinusoidal_embedding


class FlowformerForImageClassification(FlowformerPreTrainedModel):
    """Mean of the normed patches, dropout and one linear layer, `classifier`."""

    required_modality = "image"
    main_input_name = "pixel_values"
    accepts_loss_kwargs = False

    def __init__(self, config: FlowformerConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.flowformer = FlowformerModel(config)
        self.dropout = classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,  # [B, C, height, width]
        labels: Tensor | None = None,  # [B]
        interpolate_pos_encoding: bool | None = None,
        **kwargs,
    ) -> ImageClassifierOutput:
        outputs = self.flowformer(
            pixel_values=pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, **kwargs
        )
        logits = self.classifier(self.dropout(outputs.last_hidden_state.mean(1)))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


@dataclass
class FlowformerMaskedImageModelingOutput(ModelOutput):
    """Loss, patch predictions and which patches were hidden.

    Args:
        loss: mean squared error over hidden patches (a scalar).
        logits: [B, N, patch_size^2 * channels], pixels of each patch (normalised a patch if `norm_pix_loss`).
        mask: [B, N], 1 = hidden.
        ids_restore: [B, N], position of each patch in the shuffled order (visible ones first).
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    mask: Tensor | None = None
    ids_restore: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class FlowformerMaskedImageDecoder(nn.Module):
    """Puts a learned token where patches are hidden and predicts the pixels of all patches with light layers."""

    def __init__(self, config: FlowformerConfig):
        super().__init__()
        size = config.decoder_hidden_size
        self.embed = nn.Linear(config.hidden_size, size)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, size))
        self.layers = nn.ModuleList(
            FlowformerLayer(config, index, size, config.decoder_num_attention_heads, config.decoder_intermediate_size)
            for index in range(config.decoder_num_hidden_layers)
        )
        self.norm = make_norm(config, size)
        self.predict = nn.Linear(size, config.patch_size**2 * config.num_channels)

    def forward(self, hidden_states: Tensor, ids_restore: Tensor, grid: tuple[int, int]) -> Tensor:
        """Visible patches [B, N', D] and their place -> [B, N, pixels of a patch]."""
        visible = self.embed(hidden_states)
        num_hidden = ids_restore.shape[1] - visible.shape[1]
        hidden = self.mask_token.to(visible.dtype).expand(visible.shape[0], num_hidden, -1)
        index = ids_restore[..., None].expand(-1, -1, visible.shape[-1])
        states = torch.cat((visible, hidden), dim=1).gather(1, index)
        coordinates = grid_coordinates(*grid, device=states.device)
        states = states + sinusoidal_embedding(coordinates, states.shape[-1]).to(states.dtype)
        for layer in self.layers:
            states = layer(states)
        return self.predict(normalize(self.norm, states))


class FlowformerForMaskedImageModeling(FlowformerPreTrainedModel):
    """Masked autoencoder: the encoder sees the visible patches only, a light decoder predicts the hidden pixels.

        loss = mean over hidden patches of |prediction - pixels|^2, pixels normalised a patch if `norm_pix_loss`

    Paper: He et al., CVPR 2022, https://huggingface.co/papers/2111.06377
    """

    required_modality = "image"
    main_input_name = "pixel_values"
    accepts_loss_kwargs = False

    def __init__(self, config: FlowformerConfig):
        super().__init__(config)
        if config.is_pyramid:
            raise ValueError(
                "Masked image modelling drops patches, and a pyramid needs the full grid: use `hidden_sizes=None`."
            )
        self.flowformer = FlowformerModel(config)
        self.decoder = FlowformerMaskedImageDecoder(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, FlowformerMaskedImageDecoder):
            init.normal_(module.mask_token, std=self.config.initializer_range)

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,  # [B, C, height, width]
        noise: Tensor | None = None,  # [B, N]; the patches with the smallest values stay visible
        bool_masked_pos: Tensor | None = None,  # [B, N], True = hidden; the same number in each row
        interpolate_pos_encoding: bool | None = None,
        **kwargs,
    ) -> FlowformerMaskedImageModelingOutput:
        if pixel_values is None:
            raise ValueError("Masked image modelling needs `pixel_values`.")
        grid = self.flowformer.embeddings.grid_of(pixel_values, interpolate_pos_encoding)
        ids_shuffle, num_keep = self._shuffle((pixel_values.shape[0], grid[0] * grid[1]), noise, bool_masked_pos)
        ids_restore = ids_shuffle.argsort(1)
        mask = (ids_restore >= num_keep).to(torch.float32)
        outputs = self.flowformer(
            pixel_values=pixel_values,
            ids_keep=ids_shuffle[:, :num_keep],
            interpolate_pos_encoding=interpolate_pos_encoding,
            **kwargs,
        )
        logits = self.decoder(outputs.last_hidden_state, ids_restore, grid)
        return FlowformerMaskedImageModelingOutput(
            loss=self._loss(pixel_values, logits, mask),
            logits=logits,
            mask=mask,
            ids_restore=ids_restore,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _shuffle(self, shape: tuple[int, int], noise, bool_masked_pos) -> tuple[Tensor, int]:
        """An order of patches [B, N] with the visible ones first, and their number."""
        for name, tensor in (("noise", noise), ("bool_masked_pos", bool_masked_pos)):
            if tensor is not None and tuple(tensor.shape) != shape:
                raise ValueError(f"`{name}` should be of shape {shape}, got {tuple(tensor.shape)}.")
        num_keep = max(1, int(shape[1] * (1 - self.config.mask_ratio)))
        if bool_masked_pos is not None:
            counts = (~bool_masked_pos.bool()).sum(1)
            num_keep = int(counts[0])
            if num_keep == 0 or (counts != num_keep).any():
                raise ValueError(
                    "`bool_masked_pos` should leave the same number of patches visible in each row, at least one; got "
                    f"{counts.tolist()}."
                )
            noise = bool_masked_pos.float()
        elif noise is None:
            noise = torch.rand(shape, device=self.device)
        return noise.argsort(dim=1, stable=True), num_keep

    def patchify(self, pixel_values: Tensor) -> Tensor:
        """Images [B, C, height, width] -> pixels of each patch [B, N, patch_size^2 * C]."""
        size = self.config.patch_size
        patches = pixel_values.unfold(2, size, size).unfold(3, size, size)
        return patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)

    def unpatchify(self, patches: Tensor, image_size: tuple[int, int] | None = None) -> Tensor:
        """Pixels of each patch [B, N, patch_size^2 * C] -> images [B, C, height, width].

        `image_size` is (height, width), by default the configuration's square; give that of interpolated images.

        Raises:
            ValueError: another number of patches than an image of that size has.
        """
        size, default = self.config.patch_size, self.config.image_size
        height, width = (default, default) if image_size is None else image_size
        rows, columns = height // size, width // size
        if patches.shape[1] != rows * columns:
            raise ValueError(
                f"An image of {height} x {width} has {rows * columns} patches, got {patches.shape[1]}: pass the "
                "image's own size as `image_size=(height, width)`."
            )
        patches = patches.view(patches.shape[0], rows, columns, size, size, self.config.num_channels)
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(patches.shape[0], -1, rows * size, columns * size)

    def _loss(self, pixel_values: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
        target = self.patchify(pixel_values).to(logits.dtype)
        if self.config.norm_pix_loss:
            variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
            target = (target - mean) / (variance + 1e-6).sqrt()
        error = ((logits - target) ** 2).mean(-1)
        return (error * mask).sum() / mask.sum().clamp(min=1)


__all__ = ["FlowformerForImageClassification", "FlowformerForMaskedImageModeling"]
