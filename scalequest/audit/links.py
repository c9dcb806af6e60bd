"""The links of a run: everything that dvc.lock claims, compared with the files.

`scalequest verify` prints the broken ones. `scalequest publish` looks at the rows first, and refuses a run with a broken one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import md5
from typing import Any

from scalequest.audit.chain import MODELS, code_hashes, folder_files, folder_hash, hash_of
from scalequest.audit.facts import environment_of
from scalequest.audit.lock import PARAMS, Artifact, Lock, Stage, flatten, parse_yaml
from scalequest.audit.outside import LOCKS, changed_sources, other_versions
from scalequest.audit.repository import Repository, Revision
from scalequest.audit.rules import METRICS, RULES, Rule
from scalequest.audit.tables import Store, Tables, pull_command, read_metrics
from scalequest.errors import UserError
from scalequest.runtime.environment import local_runs
from scalequest.runtime.facts import leaves


@dataclass(frozen=True)
class Broken:
    """A link that does not hold: where, what is there and what was expected, and the next step."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class Check:
    """One group of checks: how many links were looked at, and those that are broken."""

    name: str
    links: int
    broken: tuple[Broken, ...]


class Verifier:
    """Checks one revision; in the workspace the files there too."""

    def __init__(self, repository: Repository, lock: Lock, store: Store) -> None:
        self.repository, self.lock, self.store = repository, lock, store
        self.tables = Tables(lock, store)
        self.links = 0

    @property
    def revision(self) -> Revision:
        """What is checked."""
        return self.lock.revision

    @property
    def used(self) -> list[Stage]:
        """The stages of the run; others that the lock still has are of an earlier one."""
        return [stage for stage in self.lock.stages.values() if stage.name not in self.lock.unused]

    def run(self, names: list[str]) -> Iterator[Check]:
        """The checks of these names, in the order of ``CHECKS``."""
        for name, check in CHECKS.items():
            if name in names:
                self.links = 0
                broken = tuple(check(self))
                yield Check(name, self.links, broken)

    # -------------------------------------------------------------------------------------------------------- the lock

    def stages(self) -> Iterator[Broken]:
        """Every stage has run, with the parameters of its revision and on what the stages before it wrote last."""
        for name in (name for name in self.lock.absent if name not in self.lock.unused):
            yield Broken(f"stage {name}", f"dvc.yaml has it, dvc.lock has no entry: it never ran to its end; run: dvc repro {name}")  # fmt: skip
        content = self.repository.read(self.revision, PARAMS) or b"{}"
        params = parse_yaml(content, PARAMS)
        flat = flatten(params)
        for stage in self.used:
            for key, value in stage.params.items():
                self.links += 1
                found = flat.get(key, "nothing")
                if found != value:
                    yield Broken(f"stage {stage.name}, parameter {key}", f"dvc.lock says it ran with {value!r}, {PARAMS} of {self.revision} says {found!r}; run: dvc repro {stage.name}")  # fmt: skip
            yield from self._ran_as_recorded(stage)
            yield from self._reads_what_was_written(stage)
        yield from self._outside(params)

    def _outside(self, params: dict[str, Any]) -> Iterator[Broken]:
        """Local sources have their pinned bytes, and stages ran with the packages that the revision's lock files name."""
        self.links += 1
        for stage, what in changed_sources(params, self.repository.root):
            if stage in self.lock.unused:
                continue
            yield Broken(f"source of {stage}", f"{what}; run: dvc repro -f {stage}")
        locks = {path: self.repository.read(self.revision, path) for paths in LOCKS.values() for path in paths}
        texts = {path: content.decode() for path, content in locks.items() if content is not None}
        made = {stage.name: environment_of(self.repository, self.lock, stage) for stage in self.used}
        for change, stages in other_versions(made, texts).items():
            more = f" and {len(stages) - 3} more" if len(stages) > 3 else ""
            yield Broken(f"packages of {', '.join(stages[:3])}{more}", f"made with {change}; run: make setup && dvc repro -f -s {' '.join(stages)}")  # fmt: skip

    def _ran_as_recorded(self, stage: Stage) -> Iterator[Broken]:
        """The lock gives the stage's bytes the parameters and inputs that they were written with here.

        The facts of this checkout's runs know; where it did not write these bytes, nothing is known. Code is left out: an
        edit that changes no byte may be accepted with `dvc commit`.
        """
        wrote = {out.path: out.md5 for out in stage.outs}
        runs = [run for run in local_runs(self.repository.root, stage.name) if run["outs"] == wrote]
        self.links += bool(runs)
        differences = [list(self._misrecorded(stage, run)) for run in runs]
        if runs and all(differences):
            yield min(differences, key=len)[0]

    def _misrecorded(self, stage: Stage, run: dict[str, Any]) -> Iterator[Broken]:
        ran, step = dict(leaves(run["params"])), f"run: dvc repro -f -s {stage.name}"
        for key, value in stage.params.items():
            if key in ran and ran[key] != value:
                yield Broken(f"stage {stage.name}, parameter {key}", f"dvc.lock says it ran with {value!r}, it wrote these bytes with {ran[key]!r}; {step}")  # fmt: skip
        for dep in stage.deps:
            if self.lock.makers(dep.path) and run["deps"].get(dep.path, dep.md5) != dep.md5:
                yield Broken(f"stage {stage.name} ← {dep.path}", f"dvc.lock says it read {dep.md5}, it wrote these bytes from {run['deps'][dep.path]}; {step}")  # fmt: skip

    def _reads_what_was_written(self, stage: Stage) -> Iterator[Broken]:
        for dep in stage.deps:
            makers = self.lock.makers(dep.path)
            if not makers:
                yield from self._code(stage, dep)
                continue
            self.links += 1
            written = next((out for _, out in makers if out.path == dep.path), None)
            if written is None:
                yield from self._reads_parts(stage, dep, makers)
            elif written.md5 != dep.md5:
                maker = makers[0][0].name
                yield Broken(f"stage {stage.name} ← {dep.path}", f"it read {dep.md5}, {maker} wrote {written.md5}; run: dvc repro {stage.name}")  # fmt: skip

    def _reads_parts(self, stage: Stage, dep: Artifact, makers: list[tuple[Stage, Artifact]]) -> Iterator[Broken]:
        """A folder above several outputs: its hash is made again from theirs."""
        files: dict[str, str] = {}
        for _, out in makers:
            inside = out.path.removeprefix(f"{dep.path}/")
            listing = self._listing(out) if out.is_folder else {"": out.md5}
            if not listing:
                return  # reported under "hashes"
            files |= {f"{inside}/{name}" if name else inside: value for name, value in listing.items()}
        if (given := folder_hash(files)) == dep.md5:
            return
        others = folder_files(self.repository, self.revision, dep.path, files)
        if others and folder_hash(files | others) == dep.md5:
            shown = ", ".join(f"{dep.path}/{name}" for name in sorted(others)[:3]) + ", ..." * (len(others) > 3)
            what = f"it also read {len(others)} file{'s' * (len(others) > 1)} that no stage of this run writes ({shown}). Another run left them: delete them, and run: dvc repro {stage.name}"  # fmt: skip
        else:
            names = ", ".join(maker.name for maker, _ in makers)
            what = f"it read {dep.md5}, what {names} wrote gives {given}; run: dvc repro {stage.name}"
        yield Broken(f"stage {stage.name} ← {dep.path}", what)

    def _code(self, stage: Stage, dep: Artifact) -> Iterator[Broken]:
        """Code is an input like any other: what ran must be what the revision has."""
        self.links += 1
        found = hash_of(dep, self._code_hashes)
        if found != dep.md5:
            yield Broken(f"stage {stage.name} ← {dep.path}", f"it ran with {dep.md5}, {self.revision} has {found or 'no such file'}; run: dvc repro {stage.name}")  # fmt: skip

    @cached_property
    def _code_hashes(self) -> dict[str, str]:
        paths = {d.path for s in self.lock.stages.values() for d in s.deps if not self.lock.makers(d.path)}
        return code_hashes(self.repository, self.revision, sorted(paths))

    # ---------------------------------------------------------------------------------------------------------- hashes

    def hashes(self) -> Iterator[Broken]:
        """Every output's bytes have the hash that the lock names, in the cache and, for the workspace, in the working folder."""
        for stage, out in self.lock.outs():
            if stage.name in self.lock.unused:
                continue
            if kept := [path for path in self._kept_by_git if path == out.path or path.startswith(f"{out.path}/")]:
                yield from self._in_git(stage, out, kept)
                continue
            yield from self._in_cache(stage, out)
            if self.revision.commit is None:
                yield from self._in_workspace(stage, out)

    @cached_property
    def _kept_by_git(self) -> set[str]:
        """Files of outputs that DVC does not cache (metrics, the report): DVC makes Git ignore all others."""
        paths = [out.path for _, out in self.lock.outs()]
        if self.revision.commit is not None:
            return set(self.repository.listing(self.revision, paths))
        listed = self.repository.git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *paths)
        return set(listed.decode().split("\0")) - {""}

    def _in_git(self, stage: Stage, out: Artifact, files: list[str]) -> Iterator[Broken]:
        self.links += 1
        contents = self.repository.read_all(self.revision, files)
        found = hash_of(out, {path: md5(content).hexdigest() for path, content in contents.items()}) or "no such file"
        if found != out.md5:
            yield Broken(f"stage {stage.name} → {out.path}", f"dvc.lock says {out.md5}, {self.revision} has {found}; run: dvc repro -f -s {stage.name}")  # fmt: skip

    def _in_cache(self, stage: Stage, out: Artifact) -> Iterator[Broken]:
        for name, value in self._objects(out):
            self.links += 1
            path = self.store.object(value)
            where = f"stage {stage.name} → {out.path}{name}"
            if not path.is_file():
                yield Broken(where, f"{value} is not in the cache ({path}). Run `{pull_command(self.repository.root, self.revision, [out.path])}`, or `dvc repro` if no remote has it")  # fmt: skip
            elif (found := self.store.hash(path)) != value.removesuffix(".dir"):
                yield Broken(where, f"the cache's {path} holds {found}, not {value}: the object is damaged. Run `rm -f {path} && {pull_command(self.repository.root, self.revision, [out.path])}`, or `dvc repro` after the removal if no remote has it")  # fmt: skip

    def _objects(self, out: Artifact) -> list[tuple[str, str]]:
        """The cache objects of an output: of a folder its list, then its files."""
        if not out.is_folder:
            return [("", out.md5)]
        return [
            (" (its list of files)", out.md5),
            *((f"/{name}", value) for name, value in sorted(self._listing(out).items())),
        ]

    def _listing(self, out: Artifact) -> dict[str, str]:
        """Files of a folder; empty where the cache has no list of them, or a damaged one, which its own hash shows."""
        try:
            return self.store.listing(out) or {}
        except UserError:
            return {}

    def _in_workspace(self, stage: Stage, out: Artifact) -> Iterator[Broken]:
        path = self.repository.root / out.path
        where = f"stage {stage.name} → {out.path}"
        if not path.exists():
            self.links += 1
            yield Broken(
                where,
                f"not in the workspace. Run `dvc checkout {out.path}`, or `dvc repro` if the cache does not have it",
            )
            return
        if not out.is_folder:
            self.links += 1
            if (found := self.store.hash(path)) != out.md5:
                yield Broken(where, f"dvc.lock says {out.md5}, the workspace has {found}. Run `dvc checkout {out.path}` to restore it, or `dvc repro -f -s {stage.name}` to make it again")  # fmt: skip
            return
        there = {file.relative_to(path).as_posix(): self.store.hash(file) for file in path.rglob("*") if file.is_file()}
        listing = self._listing(out)
        if not listing:
            self.links += 1
            if folder_hash(there) != out.md5:
                yield Broken(where, f"dvc.lock says {out.md5}, the workspace has {folder_hash(there)}. Run `dvc checkout {out.path}` to restore it")  # fmt: skip
            return
        for name in sorted(listing.keys() | there.keys()):
            self.links += 1
            if listing.get(name) != there.get(name):
                yield Broken(f"{where}/{name}", f"expected {listing.get(name, 'no such file')}, the workspace has {there.get(name, 'no such file')}. Run `dvc checkout {out.path}` to restore it")  # fmt: skip

    # ---------------------------------------------------------------------------------------------------------- counts

    def counts(self) -> Iterator[Broken]:
        """Nothing is lost and nothing comes from nowhere between one table and the next, and the metrics say the same numbers."""
        for rule in RULES:
            if self.tables.outputs(rule.left) and self.tables.outputs(rule.right):
                yield from self._same_rows(rule)
        yield from self._samples()
        yield from self._metrics()

    def _same_rows(self, rule: Rule) -> Iterator[Broken]:
        self.links += 1
        sides = [
            f"SELECT {name} AS id FROM {self.tables.source(kind)} {where}"
            for kind, name, where in ((rule.left, rule.left_id, rule.left_where), (rule.right, rule.right_id, rule.right_where))
        ]  # fmt: skip
        if (
            rule.right == "instruct"
            and self.tables.outputs("instruct")[0][0].params.get("reward_select.keep") == "all_agreeing"
        ):
            # A question has several rows, each with another response: its id once, and once more for each response twice there.
            rows = self.tables.source("instruct")
            twins = f"SELECT id FROM {rows} GROUP BY id, hash(response) HAVING count(*) > 1"
            sides[1] = f"SELECT DISTINCT id FROM {rows} UNION ALL {twins}"
        # Number and sum of hashes, in one pass without memory: equal for equal ids. Only where they differ are the ids compared.
        one, two = (self.tables.query(f"SELECT count(*) AS n, sum(hash(id)::HUGEINT) AS sum FROM ({side})")[0] for side in sides)  # fmt: skip
        if one == two:
            return
        # By number on each side: a row that is there twice is as wrong as one that is missing.
        row = self.tables.query(
            "SELECT count(*) FILTER (x > y) AS lost, min(id) FILTER (x > y) AS first_lost, count(*) FILTER (x < y) AS more, "
            "min(id) FILTER (x < y) AS first_more FROM (SELECT id, sum(l) AS x, sum(r) AS y FROM "
            f"(SELECT id, 1 AS l, 0 AS r FROM ({sides[0]}) UNION ALL SELECT id, 0, 1 FROM ({sides[1]})) GROUP BY id)"
        )[0]
        end = f"({rule.says}); run: dvc repro -f -s {self.tables.outputs(rule.right)[0][0].name}"
        if row["lost"] and not rule.subset:
            yield Broken(f"{rule.left} → {rule.right_name}", f"{row['lost']} rows of {rule.left} have none in {rule.right_name}, the first is {row['first_lost']} {end}")  # fmt: skip
        if row["more"]:
            yield Broken(f"{rule.left} → {rule.right_name}", f"{row['more']} rows of {rule.right_name} have none in {rule.left}, the first is {row['first_more']} {end}")  # fmt: skip

    def _samples(self) -> Iterator[Broken]:
        """Every kept question has as many responses as were asked for."""
        for stage, _ in self.tables.outputs("responses"):
            self.links += 1
            wanted = stage.params["respond.n_samples"]
            questions = self.tables.value(f"SELECT count(*) FROM {self.tables.source('filtered')}")
            found = self.tables.value(f"SELECT count(*) FROM {self.tables.source('responses')}")
            if found != questions * wanted:
                yield Broken("filtered → responses", f"{found} responses to {questions} questions, respond.n_samples {wanted} makes {questions * wanted}; run: dvc repro -f -s {stage.name}")  # fmt: skip

    def _metrics(self) -> Iterator[Broken]:
        for base, key, kind, where in METRICS:
            for stage in (s for s in self.used if s.base == base):
                out = stage.out(stage.option("metrics") or "")
                values = read_metrics(self.repository, self.revision, out) if out else None
                if values is None or not self.tables.outputs(kind) or (key == "rows" and key not in values):
                    continue  # a metrics file that is not what the lock names is reported under "hashes"
                self.links += 1
                only = stage.name if kind in ("questions", "qpo_questions", "preferences") else None
                counted = "DISTINCT id" if (base, key) == ("reward_select", "kept") else "*"
                found = self.tables.value(f"SELECT count({counted}) FROM {self.tables.source(kind, only)} {where}")
                if found != values.get(key):
                    yield Broken(f"stage {stage.name} → {out.path if out else ''}", f"it says {key} {values.get(key)}, the data have {found} rows; run: dvc repro -f -s {stage.name}")  # fmt: skip

    # ------------------------------------------------------------------------------------------------------------ rows

    def rows(self) -> Iterator[Broken]:
        """Every training row is a kept question with a response that was sampled for it, and its
        generator goes back to a fetched model.
        """
        if not self.tables.outputs("instruct"):
            yield Broken("training rows", "no stage has written any; run: dvc repro reward_select")
            return
        own = self._answered_as_they_are()
        instruct, filtered, questions, responses = (
            self.tables.source(kind)
            for kind in ("instruct", "filtered", "filtered" if own else "questions", "responses")
        )
        # Texts are compared by their hashes, of 64 bits: a million whole texts in a join would not fit the memory.
        rows = f"SELECT id, generator, hash(question) AS question, hash(response) AS response, reward FROM {instruct}"
        sampled = (
            f"SELECT i.id, i.response, i.reward, r.id AS response_id FROM ({rows}) i JOIN (SELECT id, question_id, hash(response) AS response "
            f"FROM {responses}) r ON i.id = r.question_id AND i.response = r.response"
        )
        if "reward" in self.lock.unused:
            # Nothing was scored, so a reward comes from nowhere.
            rewarded = f"SELECT s.id, s.response FROM ({sampled}) s WHERE s.reward IS NULL"
        else:
            rewards = self.tables.source("rewards")
            rewarded = f"SELECT s.id, s.response FROM ({sampled}) s JOIN {rewards} w ON s.response_id = w.id AND s.reward = w.reward"
        for what, sql in (
            ("no question that passed the filters", f"({rows}) i ANTI JOIN (SELECT id, hash(question) AS question FROM {filtered}) f USING (id, question)"),
            ("no generated question of that text", f"({rows}) i ANTI JOIN (SELECT id, generator, hash(question) AS question FROM {questions}) q USING (id, generator, question)"),
            ("no sampled response of that text and reward", f"({rows}) i ANTI JOIN ({rewarded}) s USING (id, response)"),
        ):  # fmt: skip
            self.links += 1
            found = self.tables.query(f"SELECT count(*) AS n, min(id) AS first FROM {sql}")[0]
            if found["n"]:
                yield Broken("training rows", f"{found['n']} have {what}, the first is {found['first']}; see: scalequest audit --row {found['first']}; run: dvc repro -f -s reward_select")  # fmt: skip
        used = {r["generator"] for r in self.tables.query(f"SELECT DISTINCT generator FROM {instruct}")}
        yield from self._reach(used)

    def _answered_as_they_are(self) -> list[Stage]:
        """The stage that brought the questions that `respond` reads, if a user did."""
        return [stage for stage, _ in self.tables.outputs("filtered") if stage.base == "own_filtered"]

    def _reach(self, generators: set[str]) -> Iterator[Broken]:
        """The generators' chains end in stages that read nothing but code: where models are fetched and seeds collected.

        A user's own questions end in the file that their stage's parameters pin.
        """
        stages = [*(stage for stage, _ in self.tables.outputs("questions")), *self._answered_as_they_are()]
        made = {stage.option("generator") or stage.name: stage for stage in stages}
        for generator in sorted(generators):
            self.links += 1
            stage = made.get(generator)
            if stage is None:
                yield Broken(f"generator {generator}", f"training rows name it, no stage of dvc.lock generates under that name; there are: {', '.join(sorted(made))}")  # fmt: skip
                continue
            if stage.base.startswith("own_"):
                continue
            chain = self.lock.order(stage.name)
            for needed in chain:
                lost = [d for d in needed.deps if d.path.startswith((MODELS, "data/")) and not self.lock.makers(d.path)]
                for dep in lost:
                    yield Broken(f"stage {needed.name} ← {dep.path}", f"{dep.md5}: no stage of dvc.lock makes it, so rows of {generator} lead back to nothing; run: dvc repro {stage.name}")  # fmt: skip
            if not any(out.path.startswith(MODELS) for needed in chain for out in needed.outs if not self._reads_data(needed)):  # fmt: skip
                yield Broken(f"generator {generator}", "its chain ends in no fetched model; run: dvc repro")

    def _reads_data(self, stage: Stage) -> bool:
        return any(self.lock.makers(dep.path) for dep in stage.deps)


CHECKS: dict[str, Callable[[Verifier], Iterator[Broken]]] = {
    "stages": Verifier.stages,
    "hashes": Verifier.hashes,
    "counts": Verifier.counts,
    "rows": Verifier.rows,
}


def verify(repository: Repository, lock: Lock, names: list[str]) -> Iterator[Check]:
    """Run checks on one revision; a check that cannot read its data says so as a broken link."""
    verifier = Verifier(repository, lock, Store(repository))
    try:
        yield from verifier.run(names)
    except UserError as error:
        yield Check("data", verifier.links, (Broken("data", str(error)),))
