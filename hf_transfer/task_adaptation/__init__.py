"""Task adaptation: objectives and schedules for fine-tuning a pre-trained model on a labelled task."""

OBJECTIVES = {
    "bi_tuning": "hf_transfer.task_adaptation.bi_tuning:BiTuning",
    "bss": "hf_transfer.task_adaptation.bss:BSS",
    "co_tuning": "hf_transfer.task_adaptation.co_tuning:CoTuning",
    "delta": "hf_transfer.task_adaptation.delta:DELTA",
    "ewc": "hf_transfer.task_adaptation.ewc:EWC",
    "l2_sp": "hf_transfer.task_adaptation.l2_sp:L2SP",
    "lwf": "hf_transfer.task_adaptation.lwf:LwF",
    "siatl": "hf_transfer.task_adaptation.siatl:SiATL",
}
"""Name -> "module:class", imported when asked for."""

SCHEDULES = {
    "bit_hyper_rule": "hf_transfer.task_adaptation.bit_hyper_rule:BiTHyperRule",
    "sequential_unfreezing": "hf_transfer.task_adaptation.siatl:SequentialUnfreezing",
    "ulmfit": "hf_transfer.task_adaptation.ulmfit:ULMFiT",
}
"""Schedules of learning rates and frozen layers, by name."""

CONVERTERS = {
    "coop": "hf_transfer.task_adaptation.coop:convert",
    "stoch_norm": "hf_transfer.task_adaptation.stoch_norm:convert",
}
"""Changes of the model, by name as "module:function"; see hf_transfer/training/converters.py."""
