"""/jobs: listing, watching, cancelling."""

import threading
from itertools import islice

import httpx2

from tests.serving import RunningServer, parse_events


def test_events_tell_the_whole_story_in_order(server: RunningServer) -> None:
    job = server.submit(num_inference_steps=4)

    events = list(server.events(job["id"]))

    kinds = [event["event"] for event in events]
    assert kinds[:2] == ["queued", "started"]
    assert kinds[-2:] == ["image", "succeeded"]
    assert "preview" in kinds
    steps = [event["data"]["step"] for event in events if event["event"] == "progress"]
    assert steps == [1, 2, 3, 4]
    ids = [event["id"] for event in events]
    assert ids == sorted(set(ids))
    assert events[0]["data"]["position"] is not None
    preview = next(event for event in events if event["event"] == "preview")
    assert preview["data"]["image"].startswith("data:image/webp;base64,")
    image = next(event for event in events if event["event"] == "image")["data"]["image"]
    assert server.http.get(image["url"]).status_code == 200


def test_last_event_id_replays_what_was_missed(server: RunningServer) -> None:
    job = server.submit(num_inference_steps=3)
    everything = list(server.events(job["id"]))

    rest = list(server.events(job["id"], after=everything[2]["id"]))

    assert rest == everything[3:]


def test_a_stream_with_nothing_left_tells_the_browser_to_stop(server: RunningServer) -> None:
    job = server.submit()
    last = list(server.events(job["id"]))[-1]

    answer = server.http.get(
        f"/jobs/{job['id']}/events", headers={"last-event-id": str(last["id"])}
    )

    assert answer.status_code == 204


def test_the_stream_of_all_jobs_names_each(server: RunningServer) -> None:
    with server.http.stream("GET", "/events") as answer:
        lines = answer.iter_lines()
        assert next(lines) == "retry: 1000"  # subscribed from here on
        job = server.submit()
        for event in parse_events(lines):
            if event["event"] == "succeeded":
                break

    assert event["data"]["job_id"] == job["id"]


def test_an_idle_stream_shows_signs_of_life(idle_server: RunningServer) -> None:
    with idle_server.http.stream("GET", "/events") as answer:
        assert ": still here" in islice(answer.iter_lines(), 5)


def test_a_queued_job_is_cancelled_at_once(idle_server: RunningServer) -> None:
    job = idle_server.submit()

    cancelled = idle_server.http.delete(f"/jobs/{job['id']}").json()

    assert cancelled["status"] == "cancelled"
    assert [event["event"] for event in idle_server.events(job["id"])] == ["queued", "cancelled"]


def test_a_running_job_stops_within_a_step(server: RunningServer) -> None:
    job = server.submit(num_inference_steps=150)
    events = server.events(job["id"])
    next(event for event in events if event["event"] == "progress")

    server.http.delete(f"/jobs/{job['id']}")

    assert [event["event"] for event in events][-1] == "cancelled"
    final = server.http.get(f"/jobs/{job['id']}").json()
    assert final["progress"]["step"] < final["progress"]["steps"]
    assert final["images"] == []


def test_a_finished_job_stays_finished(server: RunningServer) -> None:
    job = server.txt2img().json()

    assert server.http.delete(f"/jobs/{job['id']}").json()["status"] == "succeeded"


def test_who_waits_for_a_job_that_is_cancelled_is_told(server: RunningServer) -> None:
    with server.http.stream("GET", "/events") as stream:
        events = parse_events(stream.iter_lines())
        with httpx2.Client(base_url=server.url, timeout=60) as other:

            def cancel() -> None:
                event = next(event for event in events if event["event"] == "progress")
                other.delete(f"/jobs/{event['data']['job_id']}")

            thread = threading.Thread(target=cancel)
            thread.start()
            answer = server.txt2img(num_inference_steps=150)
            thread.join()

    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:darkroom:problem:cancelled"


def test_a_queued_job_knows_its_place(idle_server: RunningServer) -> None:
    first, second = idle_server.submit(), idle_server.submit()

    assert second["position"] == first["position"] + 1


def test_who_waits_hears_when_it_moves_up(idle_server: RunningServer) -> None:
    first, second = idle_server.submit(), idle_server.submit()

    with idle_server.http.stream("GET", f"/jobs/{second['id']}/events") as answer:
        events = parse_events(answer.iter_lines())
        logged = next(events)
        with httpx2.Client(base_url=idle_server.url, timeout=60) as other:
            other.delete(first["url"])
        news = next(events)

    assert logged["data"]["position"] == second["position"]
    assert (news["id"], news["event"]) == (None, "queued")
    assert news["data"]["position"] == second["position"] - 1


def test_jobs_are_listed_newest_first_a_page_at_a_time(idle_server: RunningServer) -> None:
    ids = [idle_server.submit()["id"] for _ in range(5)]

    seen, cursor = [], ""
    while len(seen) < 5:
        page = idle_server.http.get(f"/jobs?limit=2{cursor}").json()
        seen += [job["id"] for job in page["jobs"]]
        cursor = f"&cursor={page['next_cursor']}"

    assert seen[:5] == ids[::-1]


def test_jobs_are_listed_by_status(idle_server: RunningServer) -> None:
    job = idle_server.submit()
    idle_server.http.delete(f"/jobs/{job['id']}")

    page = idle_server.http.get("/jobs?status=cancelled&limit=100").json()

    assert job["id"] in [listed["id"] for listed in page["jobs"]]
    assert {listed["status"] for listed in page["jobs"]} == {"cancelled"}


def test_a_finished_server_predicts_how_long_a_job_takes(server: RunningServer) -> None:
    server.txt2img()

    job = server.submit(num_inference_steps=20)
    server.http.delete(job["url"])
    assert job["eta_seconds"] > 0
