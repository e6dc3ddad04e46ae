"""Pre-train a model from one YAML: masked images, what `pretraining` makes of texts, or with labels.

    accelerate launch recipes/pretrain.py recipes/pretraining/mnist_masked_images.yaml
    accelerate launch recipes/pretrain.py recipes/pretraining/bible_span_corruption.yaml

Any key of the YAML can be given on the command line; `hf-transfer pretrain --explain` lists them.
"""

from hf_transfer.runs.adapt import run_pretraining
from hf_transfer.runs.recipe import run_recipe

if __name__ == "__main__":
    run_recipe(run_pretraining)
