"""Task adaptation: objectives for fine-tuning a pre-trained model on a labelled task."""

OBJECTIVES = {
    "bss": "hf_transfer.task_adaptation.bss:BSS",
    "co_tuning": "hf_transfer.task_adaptation.co_tuning:CoTuning",
    "delta": "hf_transfer.task_adaptation.delta:DELTA",
    "ewc": "hf_transfer.task_adaptation.ewc:EWC",
    "l2_sp": "hf_transfer.task_adaptation.l2_sp:L2SP",
    "lwf": "hf_transfer.task_adaptation.lwf:LwF",
}
"""Name -> "module:class", imported when asked for."""
