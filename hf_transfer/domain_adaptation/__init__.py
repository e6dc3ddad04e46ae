"""Domain adaptation: objectives that make a model trained on a labelled source work on an unlabelled target."""

OBJECTIVES = {
    "afn": "hf_transfer.domain_adaptation.afn:AFN",
    "bsp": "hf_transfer.domain_adaptation.bsp:BSP",
    "cdan": "hf_transfer.domain_adaptation.cdan:CDAN",
    "coral": "hf_transfer.domain_adaptation.coral:CORAL",
    "dan": "hf_transfer.domain_adaptation.dan:DAN",
    "dann": "hf_transfer.domain_adaptation.dann:DANN",
    "dd": "hf_transfer.domain_adaptation.dd:DD",
    "fixmatch": "hf_transfer.domain_adaptation.fixmatch:FixMatch",
    "flexmatch": "hf_transfer.domain_adaptation.flexmatch:FlexMatch",
    "groupdro": "hf_transfer.domain_adaptation.groupdro:GroupDRO",
    "iwan": "hf_transfer.domain_adaptation.iwan:IWAN",
    "jan": "hf_transfer.domain_adaptation.jan:JAN",
    "localized_dd": "hf_transfer.domain_adaptation.localized_dd:LocalizedDD",
    "mcc": "hf_transfer.domain_adaptation.mcc:MCC",
    "mdd": "hf_transfer.domain_adaptation.mdd:MDD",
    "mean_teacher": "hf_transfer.domain_adaptation.mean_teacher:MeanTeacher",
    "osbp": "hf_transfer.domain_adaptation.osbp:OSBP",
    "pada": "hf_transfer.domain_adaptation.pada:PADA",
    "pseudo_label": "hf_transfer.domain_adaptation.pseudo_label:PseudoLabel",
    "rsd": "hf_transfer.domain_adaptation.rsd:RSD",
    "vrex": "hf_transfer.domain_adaptation.vrex:VREx",
}
"""Name -> "module:class", imported when asked for."""
