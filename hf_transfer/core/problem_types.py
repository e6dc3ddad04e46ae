"""Names of the problem types, as transformers has them; what follows from them is in `core.task_loss`."""

SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"
PROBLEM_TYPES = (SINGLE_LABEL, MULTI_LABEL, REGRESSION)
ANY_PROBLEM = frozenset(PROBLEM_TYPES)
