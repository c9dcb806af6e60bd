"""Many solutions with their tests in one sandbox, each in confined processes of its own: to start a sandbox takes ten times as long.

What is run is what `scalequest.answers.sandbox_child` runs for one solution. The tests of all are in the keeper's memory, so
this is for solutions that are known. It is started as that module is, and imports the standard library only.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from scalequest.answers import sandbox_child

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalequest.answers.sandbox import Program, Verdict

AT_ONCE = 64


def run_many(programs: "Sequence[Program]") -> "list[Verdict]":
    """As ``run_programs``."""
    batches = [programs[at : at + AT_ONCE] for at in range(0, len(programs), AT_ONCE)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [verdict for batch in pool.map(run_batch, batches) for verdict in batch]


def run_batch(programs: "Sequence[Program]") -> "list[Verdict]":
    """The verdicts of programs that one sandbox runs."""
    from scalequest.answers import sandbox
    from scalequest.answers.sandbox_tests import need_one_process

    together = [need_one_process(program.setup, program.tests) for program in programs]
    work = [
        {"parts": {"setup": p.setup, "solution": p.solution}, "tests": p.tests, "together": t}
        for p, t in zip(programs, together, strict=True)
    ]
    limits, lines = sandbox.Limits(), []
    with sandbox._keeper({"programs": work}, limits) as report:
        report.read(limits.wall_s, lines.append, each=True)
        isolation = report.isolation
    broken = [line for line in lines if "broken" in line or "refused" in line]
    assert not broken, broken
    ended = [line for line in lines if "outcome" in line]
    ended += [{"outcome": sandbox.TIMEOUT, "detail": ""}] * (len(programs) - len(ended))  # the keeper was ended
    return [
        sandbox.Verdict(line["outcome"], line["detail"], isolation, not one)
        for line, one in zip(ended, together, strict=True)
    ]


def run_one_by_one(settings: dict[str, Any], isolation: str, user: int, report: int, library: Any) -> None:
    """In the keeper: run every solution with its tests as if it were the only one."""
    for program in settings["programs"]:
        tests = os.memfd_create("tests")
        os.write(tests, program["tests"].encode(errors="surrogatepass"))
        os.lseek(tests, 0, os.SEEK_SET)
        sandbox_child.run(settings | program, isolation, user, report, tests, library)
        os.close(tests)
        if isolation == sandbox_child.NAMESPACES:
            sandbox_child.empty_folder()


def main() -> None:
    """Be the keeper."""
    sandbox_child.run_one_by_one = run_one_by_one
    sandbox_child.main()
