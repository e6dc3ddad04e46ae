"""Domain adaptation: objectives that make a model trained on a labelled source work on an unlabelled target."""

OBJECTIVES = {
    "cdan": "hf_transfer.domain_adaptation.cdan:CDAN",
    "dann": "hf_transfer.domain_adaptation.dann:DANN",
    "mcc": "hf_transfer.domain_adaptation.mcc:MCC",
    "mdd": "hf_transfer.domain_adaptation.mdd:MDD",
}
"""Name -> "module:class", imported when asked for."""
