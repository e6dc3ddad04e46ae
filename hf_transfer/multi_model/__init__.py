"""Many pre-trained models: objectives, converters and models that make one of several."""

OBJECTIVES = {
    "b_tuning": "hf_transfer.multi_model.b_tuning:BTuning",
    "distillation": "hf_transfer.multi_model.distillation:Distillation",
    "feature_distillation": "hf_transfer.multi_model.feature_distillation:FeatureDistillation",
}
"""Name -> "module:class", imported when asked for."""
