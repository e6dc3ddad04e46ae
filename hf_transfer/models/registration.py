"""Tells transformers about our architectures; called once transformers is imported beside `hf_transfer`."""

from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForKeypointDetection,
    AutoModelForMaskedImageModeling,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTimeSeriesPrediction,
    AutoModelForTokenClassification,
    ViTImageProcessorPil,
    VitPoseConfig,
    VitPoseForPoseEstimation,
)
from transformers.utils import is_torchvision_available

from hf_transfer.models.feature_maps import FeatureMapsBackbone, FeatureMapsConfig
from hf_transfer.models.flowformer import (
    DecisionFlowformer,
    FlowformerBackbone,
    FlowformerConfig,
    FlowformerForCausalLM,
    FlowformerForImageClassification,
    FlowformerForMaskedImageModeling,
    FlowformerForMaskedLM,
    FlowformerForMultipleChoice,
    FlowformerForQuestionAnswering,
    FlowformerForSequenceClassification,
    FlowformerForTimeSeriesClassification,
    FlowformerForTimeSeriesPrediction,
    FlowformerForTimeSeriesPretraining,
    FlowformerForTokenClassification,
    FlowformerForTrajectoryPretraining,
    FlowformerModel,
    register_flow_attention,
)
from hf_transfer.models.group_normed import MODEL_TYPE as GROUP_NORMED
from hf_transfer.models.group_normed import GroupNormedConfig
from hf_transfer.models.heatmap_keypoints import HeatmapKeypointsConfig, HeatmapKeypointsForKeypointDetection
from hf_transfer.models.lenet import LeNetConfig, LeNetForImageClassification, LeNetModel

AUTO_CLASSES = {
    AutoModel: FlowformerModel,
    AutoModelForCausalLM: FlowformerForCausalLM,
    AutoModelForImageClassification: FlowformerForImageClassification,
    AutoModelForMaskedImageModeling: FlowformerForMaskedImageModeling,
    AutoModelForMaskedLM: FlowformerForMaskedLM,
    AutoModelForMultipleChoice: FlowformerForMultipleChoice,
    AutoModelForQuestionAnswering: FlowformerForQuestionAnswering,
    AutoModelForSequenceClassification: FlowformerForSequenceClassification,
    AutoModelForTimeSeriesPrediction: FlowformerForTimeSeriesPrediction,
    AutoModelForTokenClassification: FlowformerForTokenClassification,
}
# apart from the heads: AutoBackbone.from_pretrained asks the Hub first, and so reads no local folder
BACKBONES = {AutoBackbone: FlowformerBackbone}
# transformers has no Auto class for these tasks
HEADS_WITHOUT_AUTO_CLASS = (
    FlowformerForTimeSeriesClassification,
    FlowformerForTimeSeriesPretraining,
    FlowformerForTrajectoryPretraining,
    DecisionFlowformer,
)


def register() -> None:
    """Register the configuration, every head and the "flow" attention; calling it again changes nothing."""
    register_flow_attention()
    AutoConfig.register(FlowformerConfig.model_type, FlowformerConfig, exist_ok=True)
    for auto_class, model_class in {**AUTO_CLASSES, **BACKBONES}.items():
        auto_class.register(FlowformerConfig, model_class, exist_ok=True)
    AutoImageProcessor.register(FlowformerConfig, image_processor_classes=_image_processors(), exist_ok=True)
    AutoConfig.register(LeNetConfig.model_type, LeNetConfig, exist_ok=True)
    AutoModel.register(LeNetConfig, LeNetModel, exist_ok=True)
    AutoModelForImageClassification.register(LeNetConfig, LeNetForImageClassification, exist_ok=True)
    AutoConfig.register(FeatureMapsConfig.model_type, FeatureMapsConfig, exist_ok=True)
    AutoBackbone.register(FeatureMapsConfig, FeatureMapsBackbone, exist_ok=True)
    AutoConfig.register(HeatmapKeypointsConfig.model_type, HeatmapKeypointsConfig, exist_ok=True)
    AutoModelForKeypointDetection.register(HeatmapKeypointsConfig, HeatmapKeypointsForKeypointDetection, exist_ok=True)
    # which transformers has under AutoModelForPoseEstimation alone
    AutoModelForKeypointDetection.register(VitPoseConfig, VitPoseForPoseEstimation, exist_ok=True)
    AutoConfig.register(GROUP_NORMED, GroupNormedConfig, exist_ok=True)


def _image_processors() -> dict[str, type]:
    """ViT's by backend: resizing, scaling and normalising, all that an image Flowformer needs."""
    processors = {"pil": ViTImageProcessorPil}
    if is_torchvision_available():
        from transformers import ViTImageProcessor

        processors["torchvision"] = ViTImageProcessor
    return processors
