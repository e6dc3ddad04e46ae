"""The benchmarks that run.py runs: options of a quick trial and of the committed results, and what they need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

MEAN = "mean ± standard deviation over the seeds"
BARS = f"{MEAN}; a bar is the mean, a point a seed"
MEDIAN = "median over rounds in turn; no spread"
SUITES = ("quick", "full")


def without_gpu() -> str | None:
    """Why a benchmark of kernels cannot run here; None where it can."""
    return None if torch.cuda.is_available() else "it needs a CUDA device, and there is none."


def two_checkouts() -> str:
    """What has to be told by hand for a comparison of two states of the library."""
    return (
        "it compares two checkouts: `git worktree add ../before COMMIT`, then "
        "`python recipes/benchmarks/step_costs.py --before ../before`."
    )


@dataclass(frozen=True)
class Benchmark:
    """One script of this folder, which is named as the benchmark is.

    Args:
        says: what it measures, in a line.
        spread: what ± in its table and a bar in its picture mean.
        quick: options of a trial of the smallest size, one seed.
        full: options of the committed results.
        folders: further options of both, in which {runs} is the folder of all trainings.
        threads: OMP_NUM_THREADS of its process.
        hindrance: why it cannot run here, or None.
    """

    says: str
    spread: str
    quick: str = ""
    full: str = ""
    folders: str = ""
    threads: int = 1
    hindrance: Callable[[], str | None] = lambda: None

    def options(self, suite: str) -> str:
        """Those that decide what is measured."""
        return {"quick": self.quick, "full": self.full}[suite]


SEEDS = "--seeds 0 1 2"
BENCHMARKS: Mapping[str, Benchmark] = {
    "flow_packing": Benchmark("flow attention: packed beside padded documents", MEDIAN, "--rounds 1"),
    "flow_decoding": Benchmark(
        "time of one generated token by context",
        MEDIAN,
        "--contexts 256 --batch_sizes 1 --rounds 10",
        "--contexts 256 4096 16384 --batch_sizes 1 8 64 --compile",
    ),
    "flow_attention": Benchmark(
        "speed and memory of flow attention", MEDIAN, "--max_length 1024 --seconds 1", threads=2
    ),
    "flow_attention_gpu": Benchmark("causal flow attention on a GPU", MEDIAN, hindrance=without_gpu),
    "flow_hybrid": Benchmark(
        "stacks of flow and softmax layers as language models",
        MEAN,
        "--seeds 0 --steps 10",
        SEEDS,
        "--runs_dir {runs}/flow_hybrid",
    ),
    "flowformer_tasks": Benchmark(
        "Flowformer beside its softmax twin",
        BARS,
        "--tasks basic_motions --seeds 0",
        SEEDS,
        "--runs_dir {runs}/flowformer_tasks",
    ),
    "channels_last": Benchmark(
        "a step of convolutional nets in either layout", MEDIAN, "--nets mobilenet_v2 --rounds 1"
    ),
    "adaptation_overhead": Benchmark(
        "a step of each domain-adaptation method over source only",
        "ratio: median over pairs of neighbouring steps",
        "--methods source_only dann mcc --rounds 2",
    ),
    "task_adaptation_overhead": Benchmark(
        "a step of each task-adaptation objective over fine-tuning",
        "ratio: median over rounds in turn",
        "--seconds 2",
    ),
    "peers": Benchmark(
        "losses beside those of other libraries, each in an environment of its own",
        "median over turns; no spread",
        "--rounds 1",
        folders="--runs_dir {runs}/peers",
    ),
    "peers_training": Benchmark(
        "whole trainings beside those of other libraries",
        "mean ± standard deviation over the seeds",
        "--methods dann --seeds 0",
        folders="--runs_dir {runs}/peers",
    ),
    "peers_adapters": Benchmark(
        "few parameters beside other libraries",
        "mean ± standard deviation over the seeds",
        "--only hf_transfer peft --methods lora --seeds 0",
        folders="--runs_dir {runs}/peers",
    ),
    "step_costs": Benchmark("a training step of two checkouts", MEDIAN, hindrance=two_checkouts),
    "ranking": Benchmark(
        "ranking beside other implementations",
        "medians of times; no spread",
        "--parts a --rounds 1",
        "--parts a c",  # part b needs the interpreter of an environment with transformer-ranker
        "--work_dir {runs}/ranking",
        threads=2,
    ),
    "ranking_truth": Benchmark(
        "scores beside fine-tuning that has settled",
        "weighted tau with an interval over candidates drawn with replacement",
        "--targets italy_power_demand --candidates flow_gun_point flow_series_random flow_pickup_gesture --seeds 0",
        SEEDS,
        "--runs_dir {runs}/ranking_truth",
    ),
    "pretraining": Benchmark(
        "every pre-training by what it is good for",
        BARS,
        "--quick --only sinusoids --seeds 0",
        SEEDS,
        "--runs_dir {runs}/pretraining",
    ),
    "task_adaptation": Benchmark(
        "every strategy of task adaptation",
        BARS,
        "--targets vowels --strategies fine_tuning l2_sp --seeds 0",
        SEEDS,
        "--runs_dir {runs}/task_adaptation",
    ),
    "domain_adaptation": Benchmark(
        "every method of domain adaptation",
        BARS,
        "--pairs mnist_to_photos vowel_a_to_e --methods source_only dann mcc --seeds 0 --steps 40",
        SEEDS,
        "--runs_dir {runs}/domain_adaptation",
    ),
    "emoji": Benchmark(
        "domain adaptation between vendors of emoji",
        BARS,
        "--pairs emoji_google_to_twitter --methods source_only dann --seeds 0 --steps 5",
        SEEDS,
        "--runs_dir {runs}/emoji",
    ),
    "label_shift": Benchmark(
        "class shares that differ between the domains, ignored and estimated",
        MEAN,
        "--variants low --methods dann --seeds 0 --steps 40",
        SEEDS,
        "--runs_dir {runs}/label_shift",
    ),
    "domain_generalization": Benchmark(
        "two columns of DomainBed under its three rules of choosing",
        MEAN,
        "--columns ColoredMNIST --methods erm --seeds 0 --steps 5",
        SEEDS,
        "--runs_dir {runs}/domain_generalization",
    ),
    "photos_by_brightness": Benchmark(
        "MNIST on photographs by brightness, of the models of domain_adaptation",
        "mean over the seeds",
        folders="--runs_dir {runs}/domain_adaptation",
    ),
    "recipe_figures": Benchmark(
        "every recipe as it is, and how long it takes",
        MEAN,
        "--only mnist_digits --seeds 0",
        SEEDS,
        "--runs_dir {runs}/recipe_figures",
    ),
    "tasks": Benchmark(
        "methods on taggers and sounds",
        MEAN,
        "--settings spoken_us_to_scotland --methods source_only --seeds 0",
        SEEDS,
        "--runs_dir {runs}/tasks",
    ),
    "multi_model": Benchmark(
        "methods that draw on several models",
        BARS,
        "--pairs zoo-digits --methods 'alone: flow_masked' 'alone: flow_digits' b_tuning --seeds 0 --steps 5",
        SEEDS,
        "--runs_dir {runs}/multi_model",
    ),
}
"""Script -> how it is run, the cheapest first; what reads the models of another stands after it."""
