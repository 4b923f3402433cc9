"""Jobs of models in memory go first before another model is loaded, and never for too long."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.engine.base import ResidentModel
from darkroom.queue.affinity import Affinity, Candidate, Models, choose
from darkroom.queue.fairness import ClientQueue, in_turn, joining
from darkroom.queue.leases import Leases
from darkroom.queue.store import Store
from darkroom.requests import Scope
from darkroom.storage.clients import Tokens
from darkroom.storage.database import Database
from tests.engine import tiny
from tests.queue.conftest import accept
from tests.serving import running

LOAD_S = 10.0
A, B = Candidate(1, "ann", "a"), Candidate(2, "bob", "b")
AGAIN = Candidate(3, "ann", "a")


def models(*resident: str, in_use: str = "", room: str = "", load_s: float = LOAD_S) -> Models:
    """Models in memory, the least recently used first, and those that fit beside them."""
    loaded = {name: ResidentModel(load_s, 1) for name in resident}
    return Models(loaded, lambda name: name in loaded or name in room, set(in_use))


def chosen(
    due: Candidate,
    others: list[Candidate],
    known: Models,
    *,
    held_s: float = 0.0,
    unused_s: float = 0.0,
    affinity_s: float = 20.0,
) -> Candidate | None:
    return choose(due, others, known, held_s=held_s, unused_s=unused_s, affinity_s=affinity_s)


@pytest.mark.parametrize(
    "known",
    [models("a", "b"), models("a", room="b"), models(room="b"), models("a", in_use="ab")],
    ids=["in memory", "fits beside", "nothing loaded", "being loaded"],
)
def test_a_job_that_evicts_nothing_is_never_held(known: Models) -> None:
    assert chosen(B, [AGAIN], known) == B


def test_jobs_of_the_model_in_memory_go_before_an_eviction() -> None:
    assert chosen(B, [B, AGAIN], models("a")) == AGAIN


def test_not_those_that_would_be_loaded_too() -> None:
    third = Candidate(4, "cy", "c")

    assert chosen(B, [B, third], models("a", room="c")) is None
    assert chosen(B, [B, third], models("a"), unused_s=LOAD_S) == B


@pytest.mark.parametrize(
    ("load_s", "affinity_s", "hold_s"), [(10.0, 20.0, 10.0), (60.0, 20.0, 20.0), (10.0, 0.0, 0.0)]
)
def test_the_hold_ends_with_the_load_time_or_the_setting(
    load_s: float, affinity_s: float, hold_s: float
) -> None:
    known = models("a", load_s=load_s, in_use="a")

    if hold_s:
        assert chosen(B, [AGAIN], known, held_s=hold_s - 0.1, affinity_s=affinity_s) == AGAIN
    assert chosen(B, [AGAIN], known, held_s=hold_s, affinity_s=affinity_s) == B


def test_a_model_that_nobody_else_used_lately_goes_at_once() -> None:
    assert chosen(B, [], models("a"), unused_s=LOAD_S - 0.1) is None
    assert chosen(B, [], models("a"), unused_s=LOAD_S) == B
    assert chosen(B, [], models("a", in_use="a"), unused_s=LOAD_S) is None  # nor could it go


def test_the_least_recently_used_idle_model_is_the_one_that_goes() -> None:
    assert models("a", "b", "c", in_use="a").next_unloaded == "b"
    assert models("a", "b", in_use="ab").next_unloaded == "a"
    assert models().next_unloaded is None


def test_while_a_model_waits_for_room_only_its_jobs_are_claimed() -> None:
    known = models("a", in_use="ab")  # b cannot be loaded before a's jobs have ended

    assert chosen(AGAIN, [AGAIN], known, held_s=99) is None
    assert chosen(AGAIN, [AGAIN, B], known) == B


def test_while_a_model_is_loaded_beside_those_in_memory_go_on_and_no_other_load_begins() -> None:
    known = models("a", in_use="ab", room="b")

    assert chosen(AGAIN, [], known) == AGAIN
    assert chosen(Candidate(4, "cy", "c"), [AGAIN], known, held_s=99) == AGAIN


def test_the_last_use_by_another_client_counts_however_many_there_were() -> None:
    now = [0.0]
    affinity = Affinity(20.0, lambda: now[0])
    for client in ("ann", "cy", "dee", "bob"):
        now[0] += 1
        affinity.used("a", client)
    now[0] += LOAD_S - 1  # after the last use, and later than that after the one before

    assert affinity.next(B, list, models("a")) == B
    assert affinity.next(Candidate(9, "eve", "b"), list, models("a")) is None
    assert affinity.unused_s("a") == LOAD_S - 1


# --- in time -------------------------------------------------------------------------------

STEP_S = 0.5


@dataclass
class Memory:
    """A worker whose memory holds one model, under the queue's rules, in simulated time."""

    load_s: float
    affinity_s: float
    places: int = 2
    now: float = 0.0
    loaded: str | None = None
    loading_until: float | None = None
    loads: int = 0
    queue: list[Candidate] = field(default_factory=list)
    running: list[tuple[Candidate, float]] = field(default_factory=list)  # seconds to do
    seconds: dict[int, float] = field(default_factory=dict)
    tickets: dict[str, int] = field(default_factory=dict)
    held: dict[int, float] = field(default_factory=dict)  # seconds, by job
    held_now: int | None = None
    ended: list[Candidate] = field(default_factory=list)
    on_end: Callable[[Candidate], None] = lambda _: None

    def __post_init__(self) -> None:
        self.affinity = Affinity(self.affinity_s, lambda: self.now)
        self.numbers = count(1)

    def accept(self, client: str, model: str, seconds: float) -> None:
        latest = max(self.tickets.values(), default=0)
        if client not in (job.client for job in self.queue):
            self.tickets[client] = joining(self.tickets.get(client), latest)
        job = Candidate(next(self.numbers), client, model)
        self.seconds[job.sequence] = seconds
        self.queue.append(job)

    def _due(self) -> tuple[Candidate, list[Candidate]]:
        """The next job in fair order, and those that may go before it."""
        queues: dict[str, ClientQueue] = {}
        for job in self.queue:
            known = queues.get(job.client, ClientQueue(0, job.sequence))
            queues[job.client] = ClientQueue(known.jobs + 1, known.oldest)
        firsts: dict[tuple[str, str], Candidate] = {}
        for client in in_turn(queues, self.tickets, [], 99):
            for job in self.queue:
                if job.client == client:
                    firsts.setdefault((client, job.model), job)
        others = list(firsts.values())
        return others[0], others

    def _models(self) -> Models:
        loaded = {self.loaded: ResidentModel(self.load_s, 1)} if self.loaded else {}
        in_use = {job.model for job, _ in self.running}
        return Models(loaded, lambda name: name in loaded or not loaded, in_use)

    def claim(self) -> None:
        """Claim all that may be claimed now."""
        self.held_now = None
        while self.queue and len(self.running) < self.places:
            (due, others), known = self._due(), self._models()
            picked = self.affinity.next(due, others.copy, known)
            if picked != due and not known.arriving:
                self.held_now = due.sequence
            if picked is None:
                return
            self.queue.remove(picked)
            self.affinity.used(picked.model, picked.client)
            self.tickets[picked.client] = max(self.tickets.values()) + 1
            self.running.append((picked, self.seconds[picked.sequence]))
            if picked == due:
                self.held_now = None

    def pass_time(self) -> None:
        """One step: loads and jobs go on, and what has ended makes room."""
        if self.held_now is not None:
            self.held[self.held_now] = self.held.get(self.held_now, 0.0) + STEP_S
        self.now += STEP_S
        wanted = next((job.model for job, _ in self.running if job.model != self.loaded), None)
        busy = any(job.model == self.loaded for job, _ in self.running)
        if self.loading_until is not None:
            if self.now >= self.loading_until:
                self.loaded, self.loading_until = wanted, None
        elif wanted is not None and not busy:
            self.loaded, self.loading_until = None, self.now + self.load_s
            self.loads += 1
        left = []
        for job, seconds in self.running:
            rest = seconds - STEP_S if job.model == self.loaded else seconds
            if rest > 0:
                left.append((job, rest))
            else:
                self.affinity.used(job.model, job.client)
                self.ended.append(job)
                self.on_end(job)
        self.running = left


ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 30), st.sampled_from("xyz"), st.sampled_from("abc"), st.integers(1, 6)
    ),
    max_size=30,
)


@given(ARRIVALS, st.integers(0, 12), st.integers(0, 12), st.integers(1, 4))
@settings(deadline=None)
def test_every_job_runs_and_none_is_held_for_longer_than_the_bound(
    arrivals: list[tuple[int, str, str, int]], load_s: int, affinity_s: int, places: int
) -> None:
    worker = Memory(float(load_s), float(affinity_s), places)
    arrivals = sorted(arrivals)
    worst_s = sum((job[3] + 3 * load_s + affinity_s + 3 * STEP_S) for job in arrivals) + 60
    while worker.now <= worst_s and len(worker.ended) < len(arrivals):
        while arrivals_due := [a for a in arrivals if a[0] <= worker.now][len(worker.seconds) :]:
            _, client, model, seconds = arrivals_due[0]
            worker.accept(client, model, float(seconds))
        worker.claim()
        worker.pass_time()

    assert len(worker.ended) == len(arrivals)
    assert all(held <= min(load_s, affinity_s) + STEP_S for held in worker.held.values())


def alternating(affinity_s: float) -> int:
    """The loads of two clients with a model each, who send the next of 8 jobs after an answer."""
    worker = Memory(load_s=20.0, affinity_s=affinity_s)
    left = {"ann": 7, "bob": 7}

    def again(job: Candidate) -> None:
        if left[job.client]:
            left[job.client] -= 1
            worker.accept(job.client, job.model, STEP_S)

    worker.on_end = again
    worker.accept("ann", "a", STEP_S)
    worker.accept("bob", "b", STEP_S)
    while len(worker.ended) < 16:
        worker.claim()
        worker.pass_time()
    return worker.loads


def test_two_clients_who_alternate_between_models_cost_few_loads() -> None:
    assert alternating(affinity_s=20.0) <= 4
    assert alternating(affinity_s=0.0) >= 15


# --- in the queue --------------------------------------------------------------------------


def offered(worker: Leases) -> list[tuple[str, str]]:
    """Client and model of the jobs that may go before the next one, in order."""
    seen: list[Candidate] = []
    worker.claim(busy=False, pick=lambda _, others: seen.extend(others()))  # type: ignore[func-returns-value]
    return [(job.client, job.model) for job in seen]


def test_the_first_job_of_each_client_and_model_may_go_before(store: Store, worker: Leases) -> None:
    for client, model in ("ann", "a"), ("bob", "b"), ("ann", "b"), ("ann", "a"), ("bob", "b"):
        accept(store, client, model=model)

    assert offered(worker) == [("ann", "a"), ("ann", "b"), ("bob", "b")]


def test_no_less_urgent_job_and_none_behind_an_isolated_one(store: Store, worker: Leases) -> None:
    accept(store, "cy", model="c")
    worker.claim(busy=False)
    worker.recover_own()  # from now on it is isolated
    accept(store, "cy", model="a")
    accept(store, "ann", model="a", urgency=5)
    accept(store, "ann", model="b", urgency=1)
    accept(store, "bob", model="b")

    assert offered(worker) == [("ann", "b"), ("bob", "b")]


def test_an_isolated_job_is_not_passed_over(store: Store, worker: Leases) -> None:
    isolated = accept(store, "cy", model="c")
    worker.claim(busy=False)
    worker.recover_own()
    accept(store, "cy", model="a")

    assert worker.claim(busy=True, pick=lambda _, others: others()[-1]) is None
    claim = worker.claim(busy=False, pick=lambda _, others: others()[-1])
    assert claim is not None
    assert claim.job_id == isolated


def test_what_is_picked_is_claimed(store: Store, worker: Leases) -> None:
    accept(store, "ann", model="b")
    accept(store, "ann", model="a")

    claim = worker.claim(busy=False, pick=lambda _, others: others()[-1])

    assert claim is not None
    assert claim.request.model == "a"  # type: ignore[union-attr]


# --- with the real worker ------------------------------------------------------------------


@pytest.mark.slow
def test_on_a_server_with_room_for_one_model(tmp_path: Path) -> None:
    """Two clients, a model each; each sends the next of 8 jobs when it has its answer."""
    folder = tiny.sd1(tmp_path / "models" / "a")
    shutil.copytree(folder, tmp_path / "models" / "b")
    weights = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    room_for_one = {
        "DARKROOM_MODELS__DEFAULT": "a",
        "DARKROOM_ENGINE__MEMORY_BUDGET_BYTES": str(weights * 3 // 2),
    }
    with running(tmp_path, **room_for_one) as server:
        opened = Database(tmp_path / "darkroom.db")
        loads_before = server.log.read_text().count("loading model")

        def draw(model: str) -> list[int]:
            _, token = Tokens(opened).create(model, Scope.USE)
            headers = {"Authorization": f"Bearer {token}"}
            with httpx2.Client(base_url=server.url, timeout=120, headers=headers) as client:
                body = {"prompt": "a fox", "model": model, "num_inference_steps": 1}
                return [client.post("/txt2img", json=body).status_code for _ in range(8)]

        with ThreadPoolExecutor(2) as clients:
            answers = list(clients.map(draw, "ab"))
        opened.close()

        assert answers == [[200] * 8] * 2
        assert server.log.read_text().count("loading model") - loads_before <= 4
