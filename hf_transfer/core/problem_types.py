"""Names of the problem types, and of classes without any, as transformers has them.

What follows from the problem types is in `core.task_loss`.
"""

SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"
PROBLEM_TYPES = (SINGLE_LABEL, MULTI_LABEL, REGRESSION)
ANY_PROBLEM = frozenset(PROBLEM_TYPES)


def are_made_up(names: list[str]) -> bool:
    """Whether these are the names that transformers gives to classes without any: LABEL_0, LABEL_1, ..."""
    return list(names) == [f"LABEL_{index}" for index in range(len(names))]
