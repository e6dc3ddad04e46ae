"""Part (b) of the ranking benchmark: one ranking by one library, in this process; prints seconds, score and memory.

    python ranking_peer.py hf_transfer MODEL DATASET
    python ranking_peer.py transformer_ranker MODEL DATASET    # by an interpreter that has transformer-ranker

LogME of every layer's mean-pooled features, of which the best counts. Time runs from the names to the result, imports
apart; memory is what that adds to the process at its peak.
"""

import json
import sys
import time

from datasets import load_from_disk
from machine import growth_mib, resident_mib, restart_peak

BATCH = 32


def by_hf_transfer(model, rows):
    from hf_transfer.ranking import rank_models

    def run():
        row = rank_models([model], rows, score="logme", layers="best", batch_size=BATCH, progress=False).best
        facts = {"score": row.score, "layer": row.layer, "standard_error": row.standard_error}
        return {**facts, "seconds_features": row.seconds_features, "seconds_score": row.seconds_score}

    return run


def by_transformer_ranker(model, rows):
    from transformer_ranker import TransformerRanker

    def run():
        ranker = TransformerRanker(rows, text_column="text", label_column="label")
        result = ranker.run([model], estimator="logme", layer_aggregator="bestlayer", batch_size=BATCH)
        return {"score": next(iter(result.scores.values()))}

    return run


LIBRARIES = {"hf_transfer": by_hf_transfer, "transformer_ranker": by_transformer_ranker}

if __name__ == "__main__":
    library, model, folder = sys.argv[1:]
    rank = LIBRARIES[library](model, load_from_disk(folder))
    before = resident_mib("VmRSS")
    restart_peak()
    start, processor_start = time.perf_counter(), time.process_time()
    found = rank()
    found["seconds"] = time.perf_counter() - start
    found["processor_seconds"] = time.process_time() - processor_start
    found["added_mib"] = growth_mib(before)
    found["peak_mib"] = resident_mib("VmHWM")
    print(json.dumps(found))
