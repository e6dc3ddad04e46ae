"""Adapt a model to a task, or with a `target_dataset` to a domain, from one YAML.

    accelerate launch recipes/adapt.py recipes/domain_adaptation/mnist_to_digits_cdan.yaml
    accelerate launch --config_file recipes/accelerate/ddp.yaml recipes/adapt.py CONFIG.yaml --seed 1

Any key of the YAML can be given on the command line; `hf-transfer adapt --explain` lists them.
"""

from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.recipe import run_recipe

if __name__ == "__main__":
    run_recipe(run_adaptation)
