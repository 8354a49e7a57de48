"""Targets that come, go and change: which jobs run, and what becomes of what they knew."""

from dataclasses import replace

from collectors.scrapers.jobs import REST_S, Jobs
from collectors.scrapers.settings import ScrapeTarget

A = ScrapeTarget("http://a:1", service="a", profiles={"heap": 60, "allocs": 30})


def jobs_at(now):
    return Jobs(clock=lambda: now[0])


def test_one_profile_at_one_address_is_one_job_whoever_names_it():
    other = replace(A, service="other", seconds=20, profiles={"profile": 60, "allocs": 10})
    started = jobs_at([0.0]).want([A, other, replace(A, address="http://a:1/")])
    assert [(job.profile, job.target.service, job.interval_s) for job in started] == [
        ("heap", "a", 60), ("allocs", "a", 30), ("profile", "other", 60),
    ]  # fmt: skip


def test_another_path_is_another_job():
    started = jobs_at([0.0]).want([A, replace(A, path="/b"), replace(A, paths={"heap": "/c?gc=1"})])
    assert [job.labels for job in started] == [
        ("http://a:1", "heap"), ("http://a:1", "allocs"),
        ("http://a:1/b", "heap"), ("http://a:1/b", "allocs"), ("http://a:1/c?gc=1", "heap"),
    ]  # fmt: skip
    assert replace(A, paths={"profile": "/p?x=1"}).url("profile") == "http://a:1/p?x=1&seconds=10"


def test_a_change_of_labels_keeps_the_job():
    jobs = jobs_at([0.0])
    heap, allocs = jobs.want([A])
    assert jobs.want([replace(A, version="v2", profiles={"heap": 10, "allocs": 30})]) == []
    assert (heap.target.version, heap.interval_s, heap.ended) == ("v2", 10, False)
    assert allocs.target.version == "v2"


def test_a_target_that_comes_back_goes_on_where_it_stood():
    now = [0.0]
    jobs = jobs_at(now)
    heap, allocs = jobs.want([A])
    assert jobs.want([]) == []
    assert heap.ended
    # Its last request is still under way: it is not begun twice.
    assert jobs.want([A]) == []
    assert not heap.ended
    jobs.want([])
    assert jobs.left(heap)
    assert jobs.left(allocs)
    now[0] = REST_S
    again = {job.profile: job for job in jobs.want([A])}
    assert again["allocs"].growth is allocs.growth
    assert again["heap"].growth is not heap.growth
    jobs.want([])
    assert jobs.left(again["allocs"])
    now[0] += REST_S + 1
    assert {job.profile: job for job in jobs.want([A])}["allocs"].growth is not allocs.growth


def test_another_pod_at_the_same_address_begins_anew():
    jobs = jobs_at([0.0])
    first = jobs.want([replace(A, namespace="ns", pod="one")])
    second = jobs.want([replace(A, namespace="ns", pod="two")])
    assert [job.ended for job in first] == [True, True]
    assert [job.growth for job in first] != [job.growth for job in second]
    # The series of the address are still in use.
    assert [jobs.left(job) for job in first] == [False, False]
    jobs.want([])
    assert [jobs.left(job) for job in second] == [True, True]
    third = jobs.want([replace(A, namespace="ns", pod="one")])
    assert not {id(job.growth) for job in third} & {id(job.growth) for job in first + second}


def test_what_rests_is_bounded():
    jobs = jobs_at([0.0])
    for number in range(300):
        (job,) = jobs.want([ScrapeTarget(f"http://a:{number + 1}", profiles={"allocs": 30})])
        jobs.want([])
        jobs.left(job)
    assert len(jobs._resting) == 128
