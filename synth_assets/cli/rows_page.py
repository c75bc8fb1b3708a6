"""The rows page: browse, search and review stored rows, with the text of `synth why` beside each."""

import datetime as dt
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from resources.storage import HOME_PAGES, ROWS
from synth_assets.cli.home_apps import answering, json_body, render, reviewer_of, showing, stored_name, text_of
from synth_assets.cli.row_tables import (
    PAGE_ROWS,
    TABLES,
    Query,
    TableView,
    count_rows,
    filter_choices,
    item_prompt,
    read_page,
    read_row,
)
from synth_assets.cli.session import Session
from synth_assets.cli.why import why_text
from synth_assets.reporting.escaping import metadata_line
from synth_assets.stages.filtering.reviews import OVERRIDDEN
from synth_assets.stats.agreement import agreement_text, agreements
from synth_assets.storage.reviews import (
    Review,
    add_review,
    review_log,
    review_text,
    standing_reviews,
    verdicts_by_reviewer,
)
from synth_assets.text.redaction import holds_secret

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

MAX_NOTE_CHARACTERS, MAX_TEXT_CHARACTERS = 500, 100_000
HIDDEN_FACTS = ("history", "choices")
REVIEW_FILTERS = {
    "": "any review",
    "open": "not reviewed by me",
    "mine": "reviewed by me",
    "second": "reviewed by others, not by me",
    "disagreed": "reviewers disagree",
}

Verdicts = Mapping[str, Mapping[str, str]]
RecallRow = Callable[[str, str], str]


def review_ids(verdicts: Verdicts, reviewer: str, choice: str) -> tuple[frozenset[str] | None, frozenset[str]]:
    """Return the ids of the rows to show (None: all) and of those to leave out, for one of REVIEW_FILTERS."""
    mine = frozenset(row_id for row_id, given in verdicts.items() if reviewer in given)
    if choice == "open":
        return None, mine
    if choice == "mine":
        return mine, frozenset()
    if choice == "second":
        return frozenset(verdicts) - mine, frozenset()
    if choice == "disagreed":  # only rows that the reviewer has judged, so that agreement is measured blindly
        return frozenset(row_id for row_id in mine if len(set(verdicts[row_id].values())) > 1), frozenset()
    return None, frozenset()


def recall_row(row_id: str, reason: str) -> str:
    """Run `synth recall` in a process of its own, because it runs a Dagster job; return what it prints.

    Raises:
        ValueError: the command failed; the message is its error.
    """
    program = [sys.executable, "-c", "from synth_assets.cli.app import main; main()"]
    command = [*program, "recall", f"--reason={reason}", "--", row_id]
    ended = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if ended.returncode:
        raise ValueError(ended.stderr.strip() or f"synth recall ended with exit code {ended.returncode}")
    return ended.stdout.strip()


@dataclass(frozen=True)
class RowsPage:
    """The handlers of the rows page.

    Attributes:
        open: returns the session; called at the first request that needs it.
        recall: recalls a row, given its id and the reason; returns the text to show.
        lock: held while MLflow is read or a row is recalled.
    """

    open: Callable[[], Session]
    recall: RecallRow = recall_row
    lock: threading.Lock = field(default_factory=threading.Lock)

    def routes(self) -> "list[Route]":
        """Return the routes of the page."""
        from starlette.routing import Route

        return [
            Route(ROWS, showing(self.show)),
            Route(f"{ROWS}/summary", answering(self.summary)),
            Route(f"{ROWS}/row", answering(self.row)),
            Route(f"{ROWS}/why", answering(self.why)),
            Route(f"{ROWS}/reviews", answering(self.review), methods=["POST"]),
            Route(f"{ROWS}/recall", answering(self.take_back), methods=["POST"]),
        ]

    def show(self, request: "Request") -> "Response":
        """Return the page with one page of rows."""
        name, view, verdicts = _table(request), _view(request), verdicts_by_reviewer(self._standing())
        query, reviewer = self._query(request, verdicts), reviewer_of(request)
        part = read_page(self._session.home, view, query)
        return render(
            "rows.html.jinja",
            home=HOME_PAGES,
            address=ROWS,
            tables={key: each.title for key, each in TABLES.items()},
            table=name,
            view=view,
            query=query,
            review=request.query_params.get("review", ""),
            review_filters=REVIEW_FILTERS,
            reviewer=reviewer,
            rows=[_listed(view, row, verdicts.get(row[view.row], {}), reviewer) for row in part.rows],
            first=(query.page - 1) * PAGE_ROWS + 1,
            before=_address(request, query.page - 1) if query.page > 1 else "",
            after=_address(request, query.page + 1) if part.more else "",
            agreement=_agreement(verdicts),
        )

    def summary(self, request: "Request") -> dict[str, Any]:
        """Return the number of matching rows and the values of the filters."""
        view, home = _view(request), self._session.home
        rows = count_rows(home, view, self._query(request, verdicts_by_reviewer(self._standing())))
        return {"rows": rows, "choices": filter_choices(home, view)}

    def row(self, request: "Request") -> dict[str, Any]:
        """Return texts, facts and reviews of one row."""
        view, keys = _view(request), request.query_params.getlist("key")
        found = read_row(self._session.home, view, keys)
        if found is None:
            raise ValueError(f"{view.title} has no row {' '.join(keys)}; reload the page")
        texts = [(turn["role"], turn["content"]) for turn in found.get("history") or ()]
        if not view.explained:
            item = item_prompt(self._session.home, keys[0])
            texts += [(name, _plain(item[name])) for name in ("prompt", "choices", "answer") if item.get(name)]
        texts += [(name, found[name] or "") for name in view.texts]
        facts = [
            (name, _plain(value))
            for name, value in found.items()
            if name not in (*view.texts, *HIDDEN_FACTS) and value is not None
        ]
        reviews = _shown_reviews(self._standing().get(keys[0], []), reviewer_of(request))
        return {"texts": texts, "facts": facts, "reviews": reviews}

    def why(self, request: "Request") -> dict[str, str]:
        """Return what `synth why` prints about a row, without the reviews, which `row` returns."""
        with self.lock:
            return {"why": why_text(self._session, request.query_params.get("row", ""), with_reviews=False)}

    def review(self, request: "Request") -> dict[str, Any]:
        """Store a decision; return the reviews of the row and the agreement of the reviewers."""
        body = json_body(request)
        review = _review_of(body)
        add_review(self._session.storage.reviews(), review)
        standing = self._standing()
        verdicts = verdicts_by_reviewer(standing)
        verdict = verdicts.get(review.row_id, {}).get(review.by, "")
        return {
            "verdict": verdict,
            "warning": self._keep_warning(review.row_id) if verdict == "keep" else "",
            "reviews": _shown_reviews(standing.get(review.row_id, []), review.by),
            "agreement": _agreement(verdicts),
        }

    def take_back(self, request: "Request") -> dict[str, str]:
        """Recall a row with the function of `synth recall`."""
        body = json_body(request)
        row_id, reason = text_of(body, "row_id"), metadata_line(text_of(body, "reason").strip(), MAX_NOTE_CHARACTERS)
        if not row_id or not reason:
            raise ValueError("a recall needs a row and a reason")
        with self.lock:
            return {"text": self.recall(row_id, f"{reason} (by {stored_name(text_of(body, 'by'))} on the rows page)")}

    @cached_property
    def _session(self) -> Session:
        return self.open()

    def _query(self, request: "Request", verdicts: Verdicts) -> Query:
        given, view = request.query_params, _view(request)
        page = given.get("page", "1")
        if not page.isdecimal() or not 1 <= int(page) < 10**9:
            raise ValueError(f"page must be a number from 1, got {page!r}")
        only, without = review_ids(verdicts, reviewer_of(request), given.get("review", "") if view.reviewed else "")
        filters = {name: given.get(name, "") for name in view.filters}
        return Query(given.get("q", ""), filters, int(page), only, without)

    def _standing(self) -> dict[str, list[Review]]:
        return standing_reviews(review_log(self._session.storage.reviews()))

    def _keep_warning(self, row_id: str) -> str:
        """Return why a keep does not change the rejection of a row; empty if it does."""
        row = read_row(self._session.home, TABLES["rejected"], [row_id])
        if row is None or row["reason"] in OVERRIDDEN:
            return ""
        return f"The row stays rejected: a keep does not override {row['reason']}."


def _agreement(verdicts: Verdicts) -> list[str]:
    return [agreement_text(each) for each in agreements(verdicts)]


def _shown_reviews(reviews: Sequence[Review], reviewer: str) -> list[str]:
    """Return the reviews of a row; those of others only after the reviewer's own, so that each decides alone."""
    if reviewer not in {review.by for review in reviews}:
        return []
    return [review_text(review.verdict, review.note, review.by, review.at) for review in reviews]


def _review_of(body: Mapping[str, Any]) -> Review:
    """Return the review in a request. Raises ValueError for a wrong or missing field."""
    texts = {name: text_of(body, name) for name in ("instruction", "response") if body.get(name) is not None}
    if long := [name for name, text in texts.items() if len(text) > MAX_TEXT_CHARACTERS]:
        raise ValueError(f"{long[0]} must have at most {MAX_TEXT_CHARACTERS:,} characters, got {len(texts[long[0]]):,}")
    note = metadata_line(text_of(body, "note").strip(), MAX_NOTE_CHARACTERS)
    if holds_secret(note):
        raise ValueError("the note must not contain a secret: it is stored and shown. Describe the secret instead")
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    verdict: Any = text_of(body, "verdict")
    return Review(text_of(body, "row_id"), verdict, stored_name(text_of(body, "by")), now, note, **texts)


def _table(request: "Request") -> str:
    name = request.query_params.get("table", "raw")
    if name not in TABLES:
        raise ValueError(f"table must be one of {', '.join(TABLES)}, got {name!r}")
    return name


def _view(request: "Request") -> TableView:
    return TABLES[_table(request)]


def _address(request: "Request", page: int) -> str:
    values = {**{name: value for name, value in request.query_params.items() if value}, "page": str(page)}
    return f"{ROWS}?{urlencode(values)}"


def _listed(view: TableView, row: Mapping[str, Any], given: Mapping[str, str], reviewer: str) -> dict[str, Any]:
    """Return what the list shows of a row: keys, texts, facts and the reviewer's verdict."""
    names = dict.fromkeys((*view.facts, *view.filters))
    facts = [_fact(name, row[name]) for name in names if row[name] is not None]
    return {
        "keys": [row[name] for name in (view.row, *view.keys)],
        "id": row[view.row],
        "texts": [row[name] or "" for name in view.texts],
        "facts": facts,
        "verdict": given.get(reviewer, ""),
    }


def _fact(name: str, value: object) -> str:
    """Return a value of the list; a number, and a name that could be anything, has the name of its column."""
    return _plain(value) if isinstance(value, str) and name not in {"batch", "topic"} else f"{name} {_plain(value)}"


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "\n".join(f"{number}: {each}" for number, each in enumerate(value))
    return str(value)
