"""Examine this installation and say what to mend: `hf-transfer doctor`, or `python -m hf_transfer.cli.doctor`.

Only the standard library is imported at the top, and every check imports what it looks at: an installation with a
broken package is what this is for.
"""

import importlib
import os
import platform
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from hf_transfer import collision

LOWEST_PYTHON = (3, 11)
FEW_GIGABYTES = 5
LAUNCH_TWO = "accelerate launch --multi_gpu --num_processes 2 SCRIPT --use_cpu"
MODULES = {"scikit-learn": "sklearn", "pillow": "PIL", "pyyaml": "yaml"}
"""Requirement -> what it is imported as, where that is not its name with underscores."""
_MARKS = {"ok": "[ ok ]", "warning": "[warn]", "error": "[FAIL]"}


@dataclass(frozen=True)
class Finding:
    """One line of the report: "ok", "warning" (works, but read it) or "error" (mend it first)."""

    level: str
    subject: str
    message: str
    fix: str = ""


def run_doctor(only: Sequence[str] = ()) -> list[Finding]:
    """Run the checks.

    Args:
        only: names of checks, keys of `CHECKS`; default all.

    Returns:
        Findings in the order of the checks. A check that itself fails is a finding, too.

    Raises:
        ValueError: there is no check of that name.
    """
    if unknown := [name for name in only if name not in CHECKS]:
        raise ValueError(f"There is no check {unknown[0]!r}; there are {', '.join(CHECKS)}.")
    findings = []
    for subject in only or CHECKS:
        try:
            findings.extend(CHECKS[subject]())
        except Exception as error:  # a doctor that dies of the disease is of no use
            fix = f"pip install {error.name}" if isinstance(error, ModuleNotFoundError) and error.name else ""
            findings.append(Finding("error", subject, f"could not be checked ({type(error).__name__}: {error})", fix))
    return findings


def format_findings(findings: Sequence[Finding]) -> str:
    """The report as plain text, ending with a line that counts what is wrong."""
    lines = []
    for finding in findings:
        lines.append(f"{_MARKS[finding.level]} {finding.subject}: {finding.message}")
        if finding.fix:
            lines.append(f"       -> {finding.fix}")
    errors, warnings = (sum(finding.level == level for finding in findings) for level in ("error", "warning"))
    lines.append(f"{errors} to mend, {warnings} to read, {len(findings) - errors - warnings} fine.")
    return "\n".join(lines)


def main(only: Sequence[str] = ()) -> int:
    """Print the report of the named checks, or of all. Returns 1 if something has to be mended, else 0."""
    findings = run_doctor(only)
    print(format_findings(findings))
    return int(any(finding.level == "error" for finding in findings))


def failed_import(error: BaseException) -> str | None:
    """Which package could not be imported and why, in a sentence without its full stop; None for any other error.

    An ImportError says so itself. Whatever else is raised while a module is executed has a frame of that module in its
    traceback; the program's own is `__main__`.
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    for link in reversed(chain):
        frames = [frame for frame, _ in traceback.walk_tb(link.__traceback__) if frame.f_code.co_name == "<module>"]
        modules = [name for frame in frames if (name := frame.f_globals.get("__name__", "")) != "__main__"]
        if modules and not isinstance(link, ImportError):
            why = f"{type(link).__name__}: {' '.join(str(link).split())}"
            return f"{modules[-1].partition('.')[0]} cannot be imported ({why})"
    return " ".join(str(error).split()).rstrip(".") if isinstance(error, ImportError) else None


def stand_in(words: Sequence[str], trouble: str) -> int:
    """What `hf-transfer WORDS` does when the program itself cannot be imported: the report, or how to get it.

    Args:
        words: the command line without the program's name.
        trouble: why not, as `failed_import` has it.

    Returns:
        The exit status.
    """
    if list(words[:1]) == ["doctor"]:
        return main([word for word in words[1:] if word in CHECKS])
    print(f"hf-transfer: {trouble}. `hf-transfer doctor` says what to mend.", file=sys.stderr)
    return 2


def check_python() -> list[Finding]:
    version = platform.python_version()
    if sys.version_info < LOWEST_PYTHON:
        return [Finding("error", "python", f"{version} is too old", "Install Python 3.11 or newer.")]
    return [Finding("ok", "python", f"{version} on {platform.system()} {platform.machine()}")]


def check_packages() -> list[Finding]:
    """Every requirement of our own metadata against what is installed, and whether it can be imported."""
    from packaging.requirements import Requirement

    try:
        requirements = metadata.requires(collision.OURS) or []
    except metadata.PackageNotFoundError:
        return [Finding("error", "packages", f"{collision.OURS} is not installed", f"pip install {collision.OURS}")]
    wrong, right = [], []
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = None
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            fix = f'pip install "{requirement.name}{requirement.specifier}"'
            found = f"{version or 'nothing'} is installed, {requirement.specifier} is needed"
            wrong.append(Finding("error", requirement.name, found, fix))
        elif trouble := import_trouble(MODULES.get(requirement.name.lower(), requirement.name.replace("-", "_"))):
            fix = f'pip install --force-reinstall "{requirement.name}{requirement.specifier}"'
            message = f"{version} is installed and cannot be imported ({trouble})"
            wrong.append(Finding("error", requirement.name, message, fix))
        else:
            right.append(f"{requirement.name} {version}")
    ours = f"{collision.OURS} {metadata.version(collision.OURS)}"
    return [*wrong, Finding("ok", "packages", ", ".join([ours, *right]))]


def import_trouble(module: str) -> str | None:
    """What importing a module raises, or None where it can be imported."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a package can break in any way
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None


def check_collision() -> list[Finding]:
    if broken := collision.what_is_broken():
        return [Finding("error", "hf_transfer", f"the package is broken: {broken}", collision.FIX)]
    old = f"the old download accelerator hf_transfer {collision.old_version()}"
    if collision.old_folder() == Path(__file__).resolve().parents[1]:
        message = f"{old} owns the same folder; removing it breaks this package"
        return [Finding("warning", "hf_transfer", message, collision.FIX)]
    if folder := collision.old_folder():
        message = f"{old} is in {folder}, and programs that are not started here import that one"
        return [Finding("error", "hf_transfer", message, f"pip uninstall -y {collision.OLD}")]
    return [Finding("ok", "hf_transfer", "no other distribution owns the package")]


def check_cache() -> list[Finding]:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).expanduser()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        fix = "Set HF_HOME to a folder you may write."
        return [Finding("error", "cache", f"{cache} cannot be written ({error})", fix)]
    free = shutil.disk_usage(cache).free / 1e9
    if free < FEW_GIGABYTES:
        return [Finding("warning", "cache", f"{cache} has {free:.1f} GB left", "Free some, or set HF_HOME elsewhere.")]
    return [Finding("ok", "cache", f"{cache}, {free:.0f} GB free")]


def check_hub() -> list[Finding]:
    """Does the Hub answer, and whose token is this?"""
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError, HTTPError
    from huggingface_hub.utils import get_session

    token = get_token()
    have = "a token is set" if token else "no token: public models only, no pushing"
    fix = "" if token else f"hf auth login, or HF_TOKEN (from {constants.ENDPOINT}/settings/tokens)"
    if constants.is_offline_mode():
        message = "offline mode is on (HF_HUB_OFFLINE): only cached models"
        return [Finding("warning", "hub", message), _token(have, fix)]
    try:
        get_session().get(f"{constants.ENDPOINT}/api/models", params={"limit": 1}, timeout=5).raise_for_status()
    except HTTPError as error:
        advice = "Check the network, the proxy and HF_ENDPOINT; offline, set HF_HUB_OFFLINE=1 to save the waiting."
        message = f"{constants.ENDPOINT} does not answer ({type(error).__name__}: {error})"
        return [Finding("warning", "hub", message, advice), _token(have, fix)]
    hub = Finding("ok", "hub", f"{constants.ENDPOINT} answers")
    if token is None:
        return [hub, _token(have, fix)]
    try:
        account = HfApi().whoami()
    except HfHubHTTPError as error:
        refused = f"the Hub refuses the token ({error.response.status_code})"
        return [hub, Finding("error", "token", refused, "hf auth login, or a new HF_TOKEN")]
    role = account.get("auth", {}).get("accessToken", {}).get("role", "unknown")
    return [hub, Finding("ok", "token", f"of {account['name']}, role {role}")]


def _token(message: str, fix: str) -> Finding:
    return Finding("warning" if fix else "ok", "token", message, fix)


def check_devices() -> list[Finding]:
    import torch

    cores = os.cpu_count() or 1
    threads = f"{cores} CPU cores, {torch.get_num_threads()} torch threads"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        numbers = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        return [Finding("ok", "devices", f"{', '.join(names)} ({numbers}); {threads}")]
    if torch.backends.mps.is_available():
        return [Finding("ok", "devices", f"Apple GPU (mps); {threads}")]
    built = f"; torch {torch.__version__} is built for CUDA {torch.version.cuda}" if torch.version.cuda else ""
    return [Finding("ok", "devices", f"{threads}, no GPU{built}")]


def check_accelerate() -> list[Finding]:
    """The default configuration of `accelerate launch`, and whether it starts as many processes as it says."""
    from accelerate.commands.config import config_args

    path = Path(os.environ.get("ACCELERATE_CONFIG_FILE", config_args.default_config_file))
    if not path.is_file():
        message = f"no default configuration; two processes on CPU are started by `{LAUNCH_TWO}`"
        return [Finding("ok", "accelerate", message)]
    config = config_args.load_config_from_file(str(path))
    kind = str(getattr(config.distributed_type, "value", config.distributed_type))
    message = f"{path}: {kind}, {config.num_processes} process(es), {config.mixed_precision}"
    if (config.num_processes or 1) > 1 and (kind in ("NO", "MULTI_CPU")):
        # accelerate 1.15 silently starts a single process for these (also for `--cpu --num_processes 2`).
        return [Finding("warning", "accelerate", f"{message}; but ONE process is started for {kind}", LAUNCH_TWO)]
    return [Finding("ok", "accelerate", message)]


CHECKS: dict[str, Callable[[], list[Finding]]] = {
    "python": check_python,
    "collision": check_collision,
    "packages": check_packages,
    "cache": check_cache,
    "hub": check_hub,
    "devices": check_devices,
    "accelerate": check_accelerate,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
