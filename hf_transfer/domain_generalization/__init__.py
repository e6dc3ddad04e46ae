"""Domain generalisation: objectives over several labelled environments, for a domain that no training has seen."""

OBJECTIVES = {
    "domain_coral": "hf_transfer.domain_generalization.domain_coral:DomainCORAL",
    "groupdro": "hf_transfer.domain_generalization.groupdro:GroupDRO",
    "irm": "hf_transfer.domain_generalization.irm:IRM",
    "mldg": "hf_transfer.domain_generalization.mldg:MLDG",
    "vrex": "hf_transfer.domain_generalization.vrex:VREx",
}
"""Name -> "module:class", imported when asked for."""

CONVERTERS = {
    "mix_style": "hf_transfer.domain_generalization.mix_style:convert",
}
"""Changes of the model, by name as "module:function"; see hf_transfer/training/converters.py."""
