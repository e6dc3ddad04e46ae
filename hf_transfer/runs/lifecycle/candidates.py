"""The candidates of a plan: names and queries to the Hub as models with revision and size, and their ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from huggingface_hub import HfApi

from hf_transfer.data.wide_tables import with_series_to_rank
from hf_transfer.hub import HubError, is_commit, local_model_folder
from hf_transfer.hub.errors import may_pass, readable_hub_errors
from hf_transfer.hub.retry import with_retries
from hf_transfer.modeling.loading import WEIGHTS, revision_of
from hf_transfer.models.revisions import pinned, split_revision
from hf_transfer.models.short_names import model_folder, packaged_name
from hf_transfer.ranking import Ranking, find_models, rank_models
from hf_transfer.ranking.candidates import read_models
from hf_transfer.runs.lifecycle.plan import ARCHITECTURE, Plan
from hf_transfer.runs.lifecycle.store import Store, from_main
from hf_transfer.runs.named_models import may_move, names_in
from hf_transfer.runs.rank import windows_to_rank

QUERY, CANDIDATE, RANKING = "query", "candidate", "ranking"
TROUBLE = "trouble"
"""Of a candidate: why the Hub said nothing of it."""
RANKING_ROWS = 2000
"""Training rows that are ranked on at most, where the plan says nothing."""


def find_candidates(plan: Plan, store: Store, tolerant: bool = False) -> list[dict[str, Any]]:
    """Every candidate with `name`, `shown` (in tables), `revision`, and `bytes` of its weights where they are known;
    of random weights the `architecture`.

    What a query to the Hub found is kept, so that the answer is the same when the plan is gone on with.

    Args:
        plan: of the lifecycle.
        store: of finished pieces.
        tolerant: where the Hub does not answer, tell so in `trouble` of a candidate or query in place of raising.

    Raises:
        ValueError: a query finds nothing.
        HubError: the Hub could not be asked.
    """
    names: list[str] = []
    unanswered: list[dict[str, Any]] = []
    for one in plan.candidates:
        if isinstance(one, str):
            names += read_models(one)
        elif ARCHITECTURE not in one:
            try:
                names += queried(one, store)
            except HubError as error:
                if not tolerant:
                    raise
                facts = {"name": None, "shown": f"query {dict(one)}", "revision": None, "bytes": None}
                unanswered.append({**facts, TROUBLE: str(error)})
    named = [described(name, store, tolerant) for name in dict.fromkeys(model_folder(name) for name in names)]
    built = [one[ARCHITECTURE] for one in plan.candidates if not isinstance(one, str) and ARCHITECTURE in one]
    return named + [random_weights(one, number) for number, one in enumerate(built)] + unanswered


def random_weights(architecture: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A candidate that starts from random weights; it is not ranked, and always takes part."""
    shown = f"random {architecture['model_type']}" + (f" {number + 1}" if number else "")
    return {"name": shown, "shown": shown, "revision": None, "bytes": None, ARCHITECTURE: dict(architecture)}


def queried(query: Mapping[str, Any], store: Store) -> list[str]:
    """The names that the Hub gave to a query when it was first asked."""
    found = store.find(QUERY, query)
    if found is None:
        found = from_main(find_models(**query) if PartialState().is_main_process else None)
        if not found:
            raise ValueError(f"the Hub has no model that matches {dict(query)}; name models, or ask for less.")
        store.keep(QUERY, query, found)
    return found


def described(name: str, store: Store, tolerant: bool = False) -> dict[str, Any]:
    """What is known of a candidate without loading it; of a model on the Hub, what was known when it was first asked.

    Args:
        name: of the model.
        store: of finished pieces.
        tolerant: tell in `trouble` that the Hub could not be asked, in place of raising.

    Raises:
        HubError: the Hub could not be asked now, and may be later.
    """
    facts: dict[str, Any] = {"name": name, "shown": packaged_name(name), "revision": None, "bytes": None}
    local = local_model_folder(name)
    if local is not None:
        return {**facts, "revision": revision_of(local), "bytes": sum(weights(local).values())}
    asked = {"name": name}
    found = store.find(CANDIDATE, asked)
    if found is None:
        found = from_main(on_hub(name, facts, tolerant) if PartialState().is_main_process else None)
        if found["revision"] is not None:
            found = store.keep(CANDIDATE, asked, found)
    return found


def on_hub(name: str, facts: Mapping[str, Any], tolerant: bool = False) -> dict[str, Any]:
    """Revision and size of a model on the Hub; neither where it is not there, which is said when it is fetched.

    Args:
        name: of the model.
        facts: that are known.
        tolerant: as of `described`.
    """
    try:
        with readable_hub_errors("Asking for", name):
            repo_id, asked = split_revision(name)
            api = HfApi(library_name="hf_transfer")
            info = with_retries(lambda: api.model_info(repo_id, revision=asked, files_metadata=True))
    except HubError as error:
        if may_pass(str(error)) and not tolerant:
            raise
        return {**facts, TROUBLE: str(error)}
    sizes = [file.size or 0 for file in info.siblings or () if Path(file.rfilename).suffix in WEIGHTS]
    return {**facts, "revision": info.sha, "bytes": sum(sizes) or None}


def revision_of_hub(candidate: Mapping[str, Any]) -> dict[str, str]:
    """The argument `revision` of a training from a candidate that is on the Hub; nothing for any other."""
    is_hub = ARCHITECTURE not in candidate and local_model_folder(candidate["name"]) is None
    return {"revision": candidate["revision"]} if is_hub and is_commit(candidate["revision"]) else {}


def ranked_name(candidate: Mapping[str, Any]) -> str:
    """The name by which a candidate is ranked: that of a model on the Hub says its commit."""
    return pinned(candidate["name"], revision_of_hub(candidate).get("revision"))


def by_name(candidates: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    """A fact of every candidate, by its name and by that in a ranking."""
    return {name: one[key] for one in candidates for name in (one["name"], ranked_name(one))}


def pinned_member(name: str, store: Store) -> str:
    """A model that a method draws on, with the commit that it had when the plan first asked; folders as they are.

    Raises:
        HubError: the Hub could not be asked now, and may be later.
    """
    if not may_move(name):
        return name
    found = described(name, store)["revision"]
    return pinned(name, found) if is_commit(found) else name


def pin_members(plan: Plan, store: Store) -> None:
    """Ask for the commits of all models that the methods of a plan draw on. Raises as `pinned_member`."""
    given = [plan.training, *(one.arguments for one in plan.pretrain)]
    for stage in (plan.task, plan.domain, plan.combine):
        given += [] if stage is None else [stage.training, *(method.arguments for method in stage.methods)]
    for name in [name for arguments in given for name in names_in(arguments)]:
        pinned_member(name, store)


def weights(folder: Path) -> dict[str, int]:
    """Files of weights in a folder with their bytes."""
    return {path.name: path.stat().st_size for path in Path(folder).iterdir() if path.suffix in WEIGHTS}


def rank_candidates(
    plan: Plan, store: Store, rows: Mapping[str, Any], dataset: Any, found: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Path | None]:
    """The candidates that go on, all that are ranked, best first, and the folder of the ranking.

    Where there is one alone and no `rank`, they are as they are, and none is ranked.

    Args:
        plan: of the lifecycle.
        store: of finished pieces.
        rows: facts of the data.
        dataset: its training rows.
        found: of `find_candidates`.

    Raises:
        ValueError: no model could be scored.
    """
    named = [one for one in found if ARCHITECTURE not in one]
    if not named or (len(named) == 1 and "rank" not in plan.given):
        return found, [], None
    options = {"max_samples": min(RANKING_ROWS, rows["rows"]["train"]), **plan.rank}
    if rows.get("task") is None:
        options = {"problem_type": rows["kind"], **options}
    if columns := plan.data_arguments().text_columns:
        options["input_columns"] = columns
    if plan.data_arguments().max_length is not None:
        options["max_length"] = plan.data_arguments().max_length
    revisions = {one["name"]: one["revision"] for one in named}
    depends = {"rows": rows["fingerprints"]["train"], "models": revisions, **options}
    folder = store.folder(RANKING, depends)
    if store.find(RANKING, depends) is None:
        if (forecasting := plan.data_arguments().forecasting) is not None:
            dataset = windows_to_rank(dataset, forecasting)
        elif rows.get("task") is None:
            dataset = with_series_to_rank(dataset, plan.data_arguments().series_columns)
        # its own journal keeps the models that are scored when it is cut short
        ranking = rank_models(
            [ranked_name(one) for one in named], dataset, output_dir=folder, progress=False, **options
        )
        refuse_where_hub_failed(ranking)
        store.keep(RANKING, depends, {"best": ranking.best.model})
    known = {name: one for one in named for name in (one["name"], ranked_name(one))}
    best = [known[row.model] for row in Ranking.load(folder).candidates]
    return best[: plan.top] + [one for one in found if ARCHITECTURE in one], best, folder


def refuse_where_hub_failed(ranking: Ranking) -> None:
    """Raises HubError where the Hub may give later what it did not give: the ranking would lack that model."""
    for row in ranking.rows:
        if row.reason is not None and may_pass(row.reason):
            raise HubError(f"{row.model} could not be ranked: {row.reason} The models that are ranked are kept.")
