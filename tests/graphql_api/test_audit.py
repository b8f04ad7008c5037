"""GraphQL over HTTP, as the audits of npm `graphql-http` hold servers to it: the reference of that specification."""

import json
from collections import Counter
from pathlib import Path

from tests.node import run_node
from tests.program import serving

AUDIT = Path(__file__).with_name("audit.mjs")


async def audit(url: str) -> tuple[dict[str, str], Counter[str]]:
    """Run every audit; give what failed by its id, and how many audits there are of each strength."""
    results = json.loads(await run_node(AUDIT, url))
    failed = {each["id"]: f"{each['name']}: {each['reason']}" for each in results if each["status"] != "ok"}
    return failed, Counter(each["name"].split()[0] for each in results)


async def test_all_that_must_should_and_may_hold_of_a_server_holds(database_url: str, tmp_path: Path) -> None:
    with serving(tmp_path, DATABASE_URL=database_url) as program:
        address = program.address()
        failed, strengths = await audit(f"{address}/graphql")
        assert failed == {}
        assert strengths == {"MUST": 13, "SHOULD": 23, "MAY": 25}
        # They see faults where there are some.
        failed, _ = await audit(f"{address}/health")
        assert {"22EB", "2C94", "4655"} <= set(failed)
