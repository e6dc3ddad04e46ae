"""Choose a pre-trained model by how well its frozen features explain the labels, without fine-tuning any."""

from hf_transfer.ranking.budget import BudgetedChoice, budgeted_choice
from hf_transfer.ranking.candidates import find_models
from hf_transfer.ranking.features import FeatureExtractor
from hf_transfer.ranking.rank import rank_models
from hf_transfer.ranking.ranking import Ranking, RankingRow
from hf_transfer.ranking.score import Score, TransferabilityScore, probability_of_beating
from hf_transfer.ranking.scores.gbc import GBC, gbc
from hf_transfer.ranking.scores.h_score import HScore, ShrunkHScore, h_score
from hf_transfer.ranking.scores.knn import KNN
from hf_transfer.ranking.scores.leep import LEEP, leep
from hf_transfer.ranking.scores.linear_probe import LinearProbe
from hf_transfer.ranking.scores.logme import LogME, logme
from hf_transfer.ranking.scores.nce import NCE, nce
from hf_transfer.ranking.scores.trans_rate import TransRate, trans_rate
from hf_transfer.ranking.taskonomy import Transfer, TransferPlan, choose_sources, task_affinities

SCORES = {
    "gbc": "hf_transfer.ranking.scores.gbc:GBC",
    "h_score": "hf_transfer.ranking.scores.h_score:HScore",
    "knn": "hf_transfer.ranking.scores.knn:KNN",
    "leep": "hf_transfer.ranking.scores.leep:LEEP",
    "linear_probe": "hf_transfer.ranking.scores.linear_probe:LinearProbe",
    "logme": "hf_transfer.ranking.scores.logme:LogME",
    "nce": "hf_transfer.ranking.scores.nce:NCE",
    "shrunk_h_score": "hf_transfer.ranking.scores.h_score:ShrunkHScore",
    "trans_rate": "hf_transfer.ranking.scores.trans_rate:TransRate",
}

__all__ = [
    "GBC",
    "KNN",
    "LEEP",
    "NCE",
    "SCORES",
    "BudgetedChoice",
    "FeatureExtractor",
    "HScore",
    "LinearProbe",
    "LogME",
    "Ranking",
    "RankingRow",
    "Score",
    "ShrunkHScore",
    "TransRate",
    "Transfer",
    "TransferPlan",
    "TransferabilityScore",
    "budgeted_choice",
    "choose_sources",
    "find_models",
    "gbc",
    "h_score",
    "leep",
    "logme",
    "nce",
    "probability_of_beating",
    "rank_models",
    "task_affinities",
    "trans_rate",
]
