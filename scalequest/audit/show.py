"""The answers as text for a terminal and as Mermaid for a page. Every function takes what
``facts``, ``rows`` or ``search`` made.
"""

import json
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

WIDTH = 120
SHOWN_STAGES = 4  # of those with one and the same change of environment
SHORT = 10  # digits of a hash in text; --json has all of them


def short(md5: str) -> str:
    """A hash as it is shown: enough to find it by, and to name it to `scalequest audit`."""
    return md5[:SHORT]


def _line(label: str, text: str, indent: int = 2) -> str:
    start = f"{' ' * indent}{label:<11} "
    return textwrap.fill(text, WIDTH, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False, break_long_words=False)  # fmt: skip


def _quote(label: str, text: str | None) -> str:
    """A text of any number of lines under its label."""
    lines = (text or "").strip().splitlines() or ["(empty)"]
    return "\n".join([_line(label, lines[0]), *(" " * 14 + line for line in lines[1:])])


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _param(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _params(params: dict[str, Any]) -> str:
    return ", ".join(f"{key}={_param(value)}" for key, value in params.items())


def _size(artifact: dict[str, Any]) -> str:
    facts = [f"{artifact[key]:,} {key}" for key in ("bytes", "files", "rows") if artifact.get(key) is not None]
    return f" ({', '.join(facts)})" if facts else ""


# --------------------------------------------------------------------------------------------------------------- chain


def chain_text(facts: dict[str, Any]) -> str:
    """The chain, nearest stage first."""
    target, revision = facts["target"], facts["revision"]
    commit = f" ({revision['commit'][:7]})" if revision["commit"] and revision["name"] != revision["commit"] else ""
    lines = [f"{target['path']}  {target['md5']}{_size(target)}", f"revision {revision['name']}{commit}"]
    for name, scores in facts["scores"].items():
        lines += [f"scored by {name}: {line}" for line in _scores(scores)]
    lines += environments({stage["stage"]: stage["environment"] for stage in facts["stages"]})
    lines.append(f'its MLflow run: mlflow.search_runs(filter_string="{facts["mlflow"]}", search_all_experiments=True)')
    for stage in facts["stages"]:
        lines += ["", *_stage(stage)]
    return "\n".join(lines)


def _scores(scores: dict[str, Any]) -> Iterator[str]:
    for task, values in scores.items():
        if isinstance(values, dict) and "n" in values:
            parts = [f"{name} {100 * values[name]:.1f} ± {100 * values.get(f'{name}_stderr', 0):.1f} %" for name in values if f"{name}_stderr" in values]  # fmt: skip
            yield f"{task} {', '.join(parts)} of {values['n']} items"


def environments(stages: dict[str, list[str]]) -> Iterator[str]:
    """One line per distinct environment, with its stages where there is more than one."""
    found: dict[str, list[str]] = {}
    for stage, lines in stages.items():
        found.setdefault(", ".join(lines) or "packages and machine that were not recorded", []).append(stage)
    for text, names in found.items():
        which = f"{', '.join(names)}: " if len(found) > 1 else ""
        yield textwrap.fill(f"{which}made with {text}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _stage(stage: dict[str, Any]) -> Iterator[str]:
    yield stage["stage"]
    for out in stage["outs"]:
        yield _line("wrote", f"{out['path']} {short(out['md5'])}{_size(out)}")
    for item in stage["inputs"]:
        stale = "  STALE: remade since with other bytes" if item["stale"] else ""
        yield _line("read", f"{item['path']} {short(item['md5'])} from {', '.join(item['made_by'])}{stale}")
    yield _line("code", code_text(stage["code"]))
    if earlier := stage["code"].get("taken_over"):
        yield _line("TAKEN OVER", f"outputs {earlier['text']}")
    if stage["params"]:
        yield _line("params", _params(stage["params"]))
    if counts := {k: v for k, v in stage["metrics"].items() if isinstance(v, int | float)}:
        yield _line("metrics", ", ".join(f"{key} {_number(value)}" for key, value in counts.items()))


def code_text(code: dict[str, Any]) -> str:
    """Whether the code was clean, and which commit has it."""
    if code["clean"]:
        text = f"clean, commit {code['commit'][:7]}"
    else:
        text = "DIRTY: " + ", ".join(
            f"{path} is in no commit" if not commit else f"{path} is that of commit {commit[:7]}"
            for path, commit in code["dirty"].items()
        )
    since = f"; changed since: {', '.join(code['changed_since'])} (dvc repro would run it again)"
    return text + (since if code["clean"] and code["changed_since"] else "")


def chain_mermaid(facts: dict[str, Any]) -> str:
    """The chain as a drawing: stages, and on each arrow what was handed over."""
    ids = {stage["stage"]: f"s{number}" for number, stage in enumerate(facts["stages"])}
    lines = ["flowchart LR"]
    for stage in reversed(facts["stages"]):
        mark = "" if stage["code"]["clean"] else "<br/>dirty code"
        lines.append(f'  {ids[stage["stage"]]}["{stage["stage"]}{mark}"]')
    target = facts["target"]
    lines.append(f'  target(["{target["path"]}<br/>{short(target["md5"])}"])')
    for stage in reversed(facts["stages"]):
        for item in stage["inputs"]:
            for maker in item["made_by"]:
                lines.append(f'  {ids[maker]} -->|"{item["path"]}<br/>{short(item["md5"])}"| {ids[stage["stage"]]}')
    lines.append(f"  {ids[facts['stages'][0]['stage']]} --> target")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------- difference


def diff_text(facts: dict[str, Any]) -> str:
    """Causes first, furthest upstream first; then what followed."""
    first, second = facts["first"], facts["second"]
    lines = [
        f"{facts['target']}: {'the same bytes' if facts['same'] else 'other bytes'}",
        f"  {first['revision']}: {first['md5']}",
        f"  {second['revision']}: {second['md5']}",
    ]
    own = [found for found in facts["differences"] if found["causes"] or not found["inputs"]]
    if not facts["differences"]:
        return "\n".join([*lines, "", "nothing differs: same stages, inputs, parameters and code"])
    lines += ["", "why, the furthest upstream first:" if own else "no stage differs in anything of its own:"]
    for found in own:
        lines.append(f"  {found['stage']}")
        lines += [_line("", f"{c['what']}: {_param(c['first'])} → {_param(c['second'])}") for c in found["causes"]]
        if not found["causes"]:
            elsewhere = any(found["stage"] in change["stages"] for change in facts["environments"])
            why = "; its environment differs, see below" if elsewhere else ": it did not repeat"
            lines.append(_line("", f"same inputs, parameters and code, yet other bytes{why}"))
        if not found["outs"]:
            lines.append(_line("", "its output is the same all the same"))
    for change in facts["environments"]:
        names = change["stages"]
        where = ", ".join(names) if len(names) <= SHOWN_STAGES else f"{len(names)} stages"
        lines += ["", f"environment of {where}:", _line("", f"{change['first']} → {change['second']}")]
    lines += ["", "what follows:"]
    for found in facts["differences"]:
        outs = [f"{o['path']} {short(o['first'])} → {short(o['second'])}" for o in found["outs"]]
        if outs:
            lines.append(_line(found["stage"], ", ".join(outs)) if len(found["stage"]) < 12 else f"  {found['stage']}\n{_line('', ', '.join(outs))}")  # fmt: skip
    return "\n".join(lines)


# ----------------------------------------------------------------------------------------------------------------- row


def _given(made: dict[str, Any]) -> list[str]:
    """A question that no model wrote: the user's file, and its row there."""
    source = made["given"]
    place = source.get("path") or source.get("file", "")
    whose = f"{source['repo']} at {source['commit'][:12]}, " if "repo" in source else ""
    return [
        f"brought by a user: stage {made['stage']}",
        _line("file", f"{whose}{place}, sha256 {source.get('sha256')}"),
        _line("place", f"row {made['row']} of the file, from 0"),
        _quote("question", made["question"]),
    ]


def row_text(life: dict[str, Any]) -> str:
    """One row's life, from its generator to the models that were trained on it."""
    made = life["generated"]
    lines = [f"row {life['id']} of {life['revision']}", ""]
    if "given" in made:
        lines += _given(made)
    else:
        lines.append(f"generated by {made['stage']}")
        lines.append(_line("model", _model(made["model"])))
        lines.append(_line("place", f"shard {made['shard']}, row {made['row']}; the shard's seed {made['seed']}"))
        lines.append(_line("ended", f"{made['finish_reason']} after {made['n_tokens']} tokens"))
        lines.append(_quote("completion", made["completion"]))
    for step in ("screen", "judge", "difficulty", "filter"):
        if step in life:
            lines += ["", *_STEPS[step](life[step])]
    if "responses" in life:
        lines += ["", *_responses(life)]
    elif "filter" in life:
        lines += ["", "never answered: it did not pass the filters"]
    lines += [
        "",
        *_models(life["models"], "models trained on it", "no model in any revision or experiment was trained on it"),
    ]
    return "\n".join(lines)


def _model(model: dict[str, str] | None) -> str:
    return f"{model['path']} {short(model['md5'])}" if model else "not in the lock"


def _settings(step: dict[str, Any]) -> str:
    return _line("settings", _params(step["settings"]))


def _screen(step: dict[str, Any]) -> Iterator[str]:
    yield f"screen: {step['verdict']}"
    if step["matched"]:
        yield _line("matched", step["matched"])
    if "matched_question" in step:
        yield _quote("its text", step["matched_question"])
    if step["evidence"]:
        yield _quote("evidence", step["evidence"])
    yield _settings(step)


def _judge(step: dict[str, Any]) -> Iterator[str]:
    yield f"judge: {step['verdict']}"
    yield _line("model", _model(step["model"]))
    yield _quote("wrote", step["completion"])
    if step["finish_reason"] != "stop":
        yield _line("ended", step["finish_reason"])


def _difficulty(step: dict[str, Any]) -> Iterator[str]:
    yield f"difficulty: {step['score']:.4f} (higher is harder)"
    yield _line("model", _model(step["model"]))


def _filter(step: dict[str, Any]) -> Iterator[str]:
    yield f"filter: {step['outcome']}"
    if step["difficulty"] is not None and step["min_difficulty"] is not None:
        sign = "≥" if step["difficulty"] >= step["min_difficulty"] else "<"
        yield _line("difficulty", f"{step['difficulty']:.4f} {sign} {step['min_difficulty']:.4f}, the generator's cut")
    yield _settings(step)


_STEPS = {"screen": _screen, "judge": _judge, "difficulty": _difficulty, "filter": _filter}


def _reward(row: dict[str, Any]) -> str:
    return "no reward" if row["reward"] is None else f"reward {row['reward']:.4f}"


def _responses(life: dict[str, Any]) -> Iterator[str]:
    responses, kept = life["responses"], life["training_row"]
    unscored = life["selection"].get("reward_select.waits_for") == "responses"
    scored = "not scored" if unscored else f"scored by {_model(responses['reward_model'])}"
    yield f"answered {len(responses['rows'])} times by {_model(responses['model'])}, {scored}"
    for row in responses["rows"]:
        reward = _reward(row)
        mark = "  ← kept" if row.get("kept") else ""
        yield f"  #{row['sample']}  {reward}, {row['finish_reason']} after {row['n_tokens']} tokens{mark}"
        yield _quote("", row["response"])
    yield ""
    if kept:
        yield (
            f"training row: final answer {kept['final_answer']}, {_reward(kept)}, agreement {kept['agreement']:.2f}, "
            f"{kept['n_candidates']} candidates"
        )
        if (n := sum(row["kept"] for row in responses["rows"])) > 1:
            yield f"and {n - 1} more of the question, marked above: every response that gives this answer (reward_select.keep)"
    else:
        yield f"no training row: no response ended with an answer, or none met the settings ({_params(life['selection'])})"


def _models(models: list[dict[str, Any]], title: str, none: str) -> Iterator[str]:
    if not models:
        yield none
        return
    yield f"{title}:"
    for version in dict.fromkeys(model["version"] for model in models):
        yield f"  {version}"
        for model in (m for m in models if m["version"] == version):
            how = "read it itself" if model["direct"] else f"through {' → '.join(model['way'][1:-1])}"
            other = ", with another response to the question" if model["row"] == "other response" else ""
            yield f"    {model['path']} {short(model['md5'])}: {how}{other}"


# ---------------------------------------------------------------------------------------------------------------- data


def data_text(found: dict[str, Any]) -> str:
    """Where a file or a hash was read and written, and which models came of it."""
    lines = [f"{found['asked']}: {found['found_as']}", *(f"  {value}" for value in found["hashes"]), ""]
    seen: dict[tuple[str, str], list[str]] = {}
    for place in found["places"]:
        seen.setdefault((place["version"], place["role"]), []).append(place["stage"])
    for version in dict.fromkeys(place["version"] for place in found["places"]):
        lines.append(version)
        lines += [_line(role, ", ".join(dict.fromkeys(stages))) for (v, role), stages in seen.items() if v == version]
    return "\n".join(
        [
            *lines,
            "",
            *_models(found["models"], "models made from it", "no model in any revision or experiment was made from it"),
        ]
    )


def contains_text(found: dict[str, Any]) -> str:
    """How many rows of each table hold the text, and the first few."""
    hits = [step for step in found["steps"] if step["rows"]]
    lines = [f"{found['text']!r} in {found['revision']}{', in either case' if found['ignore_case'] else ''}", ""]
    if not hits:
        return "\n".join([*lines, f"nowhere: {_searched(found['steps'])} searched"])
    for step in hits:
        lines.append(f"{step['path']} ({step['stage']}): {step['rows']:,} rows")
        for row in step["first"]:
            lines += [_quote(row["id"] if number == 0 else "", f"{column}: … {text} …") for number, (column, text) in enumerate((k, v) for k, v in row.items() if k != "id")]  # fmt: skip
    if found["outcomes"]:
        lines += ["", "what became of the generated questions that hold it: " + ", ".join(f"{name} {n:,}" for name, n in found["outcomes"].items())]  # fmt: skip
    if none := [step for step in found["steps"] if not step["rows"]]:
        lines.append(f"not in {_searched(none)}")
    return "\n".join(lines)


def _searched(steps: Iterable[dict[str, Any]]) -> str:
    return ", ".join(step["path"] for step in steps)
