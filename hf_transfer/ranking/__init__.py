"""Choose a pre-trained model by how well its frozen features explain the labels, without fine-tuning any."""

from hf_transfer.ranking.features import FeatureExtractor
from hf_transfer.ranking.logme import LogME, logme
from hf_transfer.ranking.rank import rank_models
from hf_transfer.ranking.ranking import Ranking, RankingRow
from hf_transfer.ranking.score import Score, TransferabilityScore, probability_of_beating

SCORES = {
    "logme": "hf_transfer.ranking.logme:LogME",
}

__all__ = [
    "SCORES",
    "FeatureExtractor",
    "LogME",
    "Ranking",
    "RankingRow",
    "Score",
    "TransferabilityScore",
    "logme",
    "probability_of_beating",
    "rank_models",
]
