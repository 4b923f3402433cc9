"""What a database takes of a fleet is measured by jobs that are really done."""

import pytest
from sqlalchemy import create_engine

from benchmarks import fleet
from tests.postgres import Server


@pytest.mark.slow
def test_each_number_of_workers_does_all_of_it(postgres_server: Server) -> None:
    place = postgres_server.migrated()

    rates = fleet.measure(place, jobs=8)

    assert rates.keys() == fleet.STEPS.keys()
    assert all(tuple(by_number) == fleet.WORKERS for by_number in rates.values())
    assert all(rate > 0 for by_number in rates.values() for rate in by_number.values())
    engine = create_engine(place)
    with engine.connect() as connection:
        query = "SELECT status, count(*) FROM jobs GROUP BY status"
        assert [tuple(row) for row in connection.exec_driver_sql(query)] == [
            ("succeeded", 8 * len(fleet.WORKERS))
        ]
    engine.dispose()
    postgres_server.drop(place)
