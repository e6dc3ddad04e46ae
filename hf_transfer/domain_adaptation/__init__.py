"""Domain adaptation: objectives that make a model trained on a labelled source work on an unlabelled target."""

OBJECTIVES = {
    "adda": "hf_transfer.domain_adaptation.adda:ADDA",
    "advent": "hf_transfer.domain_adaptation.advent:ADVENT",
    "afn": "hf_transfer.domain_adaptation.afn:AFN",
    "bsp": "hf_transfer.domain_adaptation.bsp:BSP",
    "cdan": "hf_transfer.domain_adaptation.cdan:CDAN",
    "cluster_contrast": "hf_transfer.domain_adaptation.cluster_contrast:ClusterContrast",
    "coral": "hf_transfer.domain_adaptation.coral:CORAL",
    "cycada": "hf_transfer.domain_adaptation.cycada:CyCADA",
    "cyclegan": "hf_transfer.domain_adaptation.cyclegan:CycleGAN",
    "dacs": "hf_transfer.domain_adaptation.dacs:DACS",
    "dan": "hf_transfer.domain_adaptation.dan:DAN",
    "dann": "hf_transfer.domain_adaptation.dann:DANN",
    "dd": "hf_transfer.domain_adaptation.dd:DD",
    "fixmatch": "hf_transfer.domain_adaptation.fixmatch:FixMatch",
    "flexmatch": "hf_transfer.domain_adaptation.flexmatch:FlexMatch",
    "iwan": "hf_transfer.domain_adaptation.iwan:IWAN",
    "jan": "hf_transfer.domain_adaptation.jan:JAN",
    "localized_dd": "hf_transfer.domain_adaptation.localized_dd:LocalizedDD",
    "mcc": "hf_transfer.domain_adaptation.mcc:MCC",
    "mcd": "hf_transfer.domain_adaptation.mcd:MCD",
    "mdd": "hf_transfer.domain_adaptation.mdd:MDD",
    "mean_teacher": "hf_transfer.domain_adaptation.mean_teacher:MeanTeacher",
    "noisy_student": "hf_transfer.domain_adaptation.noisy_student:NoisyStudent",
    "osbp": "hf_transfer.domain_adaptation.osbp:OSBP",
    "pada": "hf_transfer.domain_adaptation.pada:PADA",
    "pseudo_label": "hf_transfer.domain_adaptation.pseudo_label:PseudoLabel",
    "regda": "hf_transfer.domain_adaptation.regda:RegDA",
    "rsd": "hf_transfer.domain_adaptation.rsd:RSD",
    "self_ensembling": "hf_transfer.domain_adaptation.self_ensembling:SelfEnsembling",
    "unbiased_teacher": "hf_transfer.domain_adaptation.unbiased_teacher:UnbiasedTeacher",
}
"""Name -> "module:class", imported when asked for."""

CONVERTERS = {
    "dsbn": "hf_transfer.domain_adaptation.dsbn:convert",
    "tent": "hf_transfer.domain_adaptation.tent:convert",
}
"""Changes of the model, by name as "module:function"; see hf_transfer/training/converters.py."""
