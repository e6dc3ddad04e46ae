import sys, torch, json, traceback
from pathlib import Path
import torch.distributed as dist
from accelerate import PartialState
from tests.test_unit_matrix import METHODS, UNITS
from tests.test_methods import keywords_for
from tests.test_units import setting
from tests.distributed_runs import config
from hf_transfer.training.trainer import TransferTrainer
from datasets import concatenate_datasets
torch.set_num_threads(1)
folder = Path(sys.argv[1]); batch=int(sys.argv[2])
ends={}
for units in UNITS:
    for name in METHODS:
        torch.manual_seed(0)
        model, rows, more = setting(units, None)
        for m in model.modules():
            if isinstance(m, torch.nn.Dropout): m.p=0.0
        rows = concatenate_datasets([rows]*(2 if units=="tokens" else 4)).with_format(rows.format["type"])
        kw = keywords_for(name, None)
        if "source_head" in kw:
            head = next(m for m in model.modules() if hasattr(m,"classifier"))
            kw["source_head"] = torch.nn.Linear(head.classifier.weight.shape[1], 7)
        if "teacher" in kw: kw["teacher"]=type(model)(model.config)
        args = config(folder/f"{units}_{name}", batch)
        args.save_strategy="no"; args.max_steps=3
        try:
            t = TransferTrainer(model, args, objectives={name: kw}, train_dataset=rows, **more)
            t.train()
            ends[f"{units}_{name}"]={k:v.clone() for k,v in t.transfer_model.state_dict().items()}
        except Exception as e:
            ends[f"{units}_{name}"]=repr(e)[:300]
rank = dist.get_rank() if dist.is_initialized() else 0
torch.save(ends, folder/f"ends_{batch}_{rank}.pt")
