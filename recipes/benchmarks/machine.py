"""What a benchmark asks of the machine it runs on: the processor's name, and how much memory this process holds."""

import platform
from pathlib import Path


def processor_names() -> list[str]:
    """The name of every logical core; one name where Linux does not list them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names or [platform.processor()]


def processors_of(earlier: str) -> str:
    """This machine's processor beside those that a report which is added to names before its first comma."""
    return " or ".join(sorted({*filter(None, earlier.partition(", ")[0].split(" or ")), processor_names()[0]}))


def resident_mib(field: str) -> float:
    """MiB of this process: "VmRSS" now, "VmHWM" at the highest since `restart_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**10


def growth_mib(before: float) -> float:
    """MiB of this process at its highest since `restart_peak` above what it held before; the kernel's two counts may
    differ by a page, so that without any growth one would be below the other.
    """
    return max(0.0, resident_mib("VmHWM") - before)


def restart_peak() -> None:
    """Let the kernel's high-water mark start again from the present size."""
    Path("/proc/self/clear_refs").write_text("5")
