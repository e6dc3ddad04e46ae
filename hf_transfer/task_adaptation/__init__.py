"""Task adaptation: objectives for fine-tuning a pre-trained model on a labelled task."""

OBJECTIVES = {
    "bss": "hf_transfer.task_adaptation.bss:BSS",
    "l2_sp": "hf_transfer.task_adaptation.l2_sp:L2SP",
}
"""Name -> "module:class", imported when asked for."""
