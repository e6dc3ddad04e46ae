"""What holds for any input, found by hypothesis: each test draws its cases, the same ones in every run."""

from hypothesis import HealthCheck, settings

drawn = settings(
    derandomize=True, deadline=None, max_examples=25, database=None, suppress_health_check=[HealthCheck.too_slow]
)
"""Of a test: cases that do not change from run to run, and no limit of time on a busy machine."""
