"""The one home of every verdict, outcome and warning: its name, its meaning and the paper's rate."""

from dataclasses import dataclass

# ----------------------------------------------------------------------------------------------------------- answers

RIGHT, WRONG, MISSING, TIMEOUT = "right", "wrong", "no_answer", "timeout"

# --------------------------------------------------------------------------------------------------------- questions

KEPT = "kept"
SOLVABLE, UNSOLVABLE, NO_VERDICT = "solvable", "unsolvable", "no_verdict"


@dataclass(frozen=True)
class Outcome:
    """What removes a generated question.

    Attributes:
        meaning: for readers of the report.
        paper: percent of the paper's 2M questions that its own filter removed, where it reports one. Only as shares of all
            2M do its rates leave its 1M.
    """

    meaning: str
    paper: str = ""


# In the order of the checks. Stage `screen`, which needs no model:
SCREEN_OUTCOMES = {
    "cut": Outcome("did not end within `generate.max_tokens`"),
    "empty": Outcome("no text"),
    "unreadable": Outcome("bytes that are no text: not UTF-8, or U+0000"),
    "language": Outcome("not in the language of `screen.language`", paper="20.1"),
    "too_short": Outcome("fewer words than `screen.min_words`"),
    "contaminated": Outcome("shares a run of words with a benchmark"),
    "template_match": Outcome("a benchmark's question with other numbers, where `screen.template_match` drops them"),
    "exact_duplicate": Outcome("the same as an earlier question"),
    "near_duplicate": Outcome("nearly the same as an earlier question"),
    "semantic_duplicate": Outcome("an earlier question in other words"),
}
DUPLICATES = ("exact_duplicate", "near_duplicate", "semantic_duplicate")
# Stage `filter`, from what a reader and the models say:
MARKED_BAD = "marked_bad"
FILTER_OUTCOMES = {
    MARKED_BAD: Outcome("a reader marked it bad in the report (`filter.marks`)"),
    UNSOLVABLE: Outcome("the judge says it cannot be solved", paper="19.4"),
    NO_VERDICT: Outcome("the judge gave no readable verdict", paper="in the line above"),
    "too_easy": Outcome("among the easiest of its generator", paper="9.2"),
    "over_share": Outcome("more than the mix or `filter.n_questions` takes"),
}
OUTCOMES = SCREEN_OUTCOMES | FILTER_OUTCOMES

# --------------------------------------------------------------------------------------------------------- responses

# What a response's program comes to where answers are programs (`respond.form: program`). The first two are answers.
NO_PROGRAM = "no_program"
PROGRAM_OUTCOMES = {
    "number": "the function that was asked for returns a number",
    "other_function": "a function of another name, or a method, returns a number",
    "text": "the function returns text",
    "printed": "a value is printed and not returned",
    "no_value": "the function returns nothing, or what is no number",
    "no_function": "no function can be called without arguments",
    NO_PROGRAM: "no closed Python block compiles",
    "raised": "the program raised an error",
    "exited": "the program ended its process",
    "timeout": "the program ran into its time limit",
    "killed": "the program died of a signal, as a rule of its memory or its stack",
}

# Why a question gets no training row in stage `reward_select`, in the order of the checks.
SELECT_OUTCOMES = {
    MISSING: "no response ended by itself and gives an answer",
    "crashed": "every program failed on its question's examples",
    "below_pass_rate": "too few responses agree or pass (`reward_select.min_pass_rate`)",
    "above_pass_rate": "too many responses agree or pass (`reward_select.max_pass_rate`)",
    "wrong_arithmetic": "every response writes a wrong calculation (`reward_select.check_arithmetic`)",
    "too_few_agree": "no answer is given by `reward_select.min_agreement` responses",
    "low_reward": "the chosen response scores below `reward_select.min_reward`",
}

# -------------------------------------------------------------------------------------------------------- experiments

# What an experiment says of a claim (scalequest.run.experiment), and the state of its cells.
HOLDS, DOES_NOT_HOLD, UNDECIDED = "holds", "does not hold", "undecided"
FINISHED, KEPT_CELL, MISSING_CELL, OUTDATED, NOT_RUN = "finished", "kept", "missing", "outdated", "not run"

# ---------------------------------------------------------------------------------------------------------- rewrites

# Why the optimizer's rewrite of a question makes no preference pair, in the order of the checks.
REWRITE_OUTCOMES = {
    "refused": "the optimizer refused to answer",
    "cut": "the rewrite did not end within `preferences.max_tokens`",
    "unparsed": "no question was found in the answer",
    "identical": "the rewrite is the original question",
    "over_long": "longer than `preferences.max_growth` times the original",
    "drops_numbers": "fewer numbers than `preferences.min_numbers` of the original's, so mostly a part of its question",
    "leaks_solution": "the rewrite holds its solution",
    "asks_nothing": "the rewrite asks for nothing",
    "original_asks_nothing": "the original asks for nothing, so that asking alone would tell the two apart",
    "is_chosen": "the question is the chosen side of another pair (`preferences.source: solver`)",
    "no_partner": "no question was left to pair it with (`preferences.source: solver`)",
    "original_leaks_solution": "the original holds its solution, so that the leak alone would tell the two apart",
}

# ---------------------------------------------------------------------------------------------------------- warnings

# What may be wrong with a step that ran. A stage reports each as 0 or 1 under `warnings`; the report prints the sentence.
# "Above chance" is by two standard errors (scalequest.statistics).
WARNINGS = {
    "one_question": "nearly all questions of the generator are one and the same",
    "no_end": "most questions were cut at max_tokens: the generator has not learned to stop",
    "one_verdict": "the judge gives nearly every question the same verdict, so this filter decides nothing",
    "judge_decides_nothing": "the judge accepts broken problems about as often as sound ones, so its filter removes questions by accident",
    "no_verdicts": "the judge gave no readable verdict on most questions",
    "unreasoned": "the judge answered more than 5% of the questions with a bare yes or no, without the reasoning that `judge.style: reasoned` asks for",
    "one_fail_rate": "the seeds' fail rates differ by no more than the luck of their samples, so there is nothing for the difficulty scorer "
    "to learn",
    "no_correlation": "the difficulty scorer does not rank held-out seeds better than chance, or its error is not below that of the mean",
    "one_class": "nearly all of the solver's answers to the seeds are right, or nearly none, so they say little of what is hard or good",
    "coin_reward": "the reward model ranks right answers above wrong ones of the same held-out seed no better than a coin",
    "best_of_n_is_random": "the answer with the highest reward is right no more often than one drawn at random, on held-out seeds",
    "lost_in_saving": "less than half of what was trained is left in the saved model: the steps are smaller than its precision",
    "few_held_out": "fewer than 8 preference pairs were held out, so nothing shows whether the saved generator prefers rewrites: its margin "
    "is one on pairs that it was trained on, or on too few",
    "no_preference": "the saved generator does not prefer rewrites to their originals better than chance",
    "rewrites_no_better": "chosen questions that were rewritten for an aim are no better at it than the rejected ones, so QPO has nothing to "
    "learn from these pairs",
    "fewer_than_asked": "fewer questions were kept than `filter.n_questions`: the generator that is named `scarcest` in the metrics had "
    "too few for its share, and the others shrank with it",
    "one_response": "most questions got one distinct response only, so best-of-n chooses nothing",
    "wrong_arithmetic": "more than 5% of the arithmetic written in the kept answers is wrong",
    "no_agreement": "most kept answers agree with no other answer to the same question",
    "wrong_checkable": "more than 5% of the kept answers to plain arithmetic questions are wrong",
    "source_changed": "a local model or data file no longer has the bytes that the parameters pin; the outputs are still those of the "
    "pinned bytes",
    "lock_changed": "the lock of the packages names other versions than this stage ran with",
    "score_zero": "a task scored exactly 0: check the parser before believing it",
    "many_unparsed": "more than 5% of the answers of a task could not be parsed",
    "many_cut": "more than 5% of the answers of a task were cut at evaluate.max_tokens: what a cut answer ends in is no answer",
}
# Shares of a task's answers from which `many_unparsed` and `many_cut` are up.
MANY_UNPARSED = MANY_CUT = 0.05
# Above this share of a reasoning judge's answers `unreasoned` is raised.
MANY_UNREASONED = 0.05

# What to do about a warning, for readers of the report.
NEXT_STEPS = {
    "one_question": "train the generator less (`qft.learning_rate`, `qft.epochs`), or raise `generate.temperature`",
    "no_end": "raise `generate.max_tokens` and `qpo_questions.max_tokens`, or train the generator longer (`qft.epochs`)",
    "one_verdict": "take a stronger judge (`models.judge`), or set `filter.require_solvable: false`",
    "judge_decides_nothing": "take a stronger judge (`models.judge`), or set `filter.require_solvable: false`",
    "no_verdicts": "raise `judge.max_tokens`, or set another `judge.style`",
    "unreasoned": "take a stronger judge (`models.judge`), or compare its calibration with that of `judge.style: few_shot`",
    "one_fail_rate": "raise `difficulty_labels.n_samples`, or choose seeds of several levels",
    "no_correlation": "set `filter.drop_easiest_frac` to 0, or label more seeds (`difficulty_labels.n_seeds`)",
    "one_class": "choose easier or harder seeds, or take another solver (`models.solver`)",
    "coin_reward": "set `reward_select.by` to `majority`, or train on more seeds (`difficulty_labels.n_seeds`)",
    "best_of_n_is_random": "set `reward_select.by` to `majority`, or label more seeds with more samples (`difficulty_labels`)",
    "rewrites_no_better": "take a stronger optimizer (`models.optimizer`) or another `preferences.style`, or measure more pairs "
    "(`preference_check.n_pairs`)",
    "fewer_than_asked": "raise `generators.*.n_questions` of the scarcest generator, or change `filter.shares`",
    "one_response": "raise `respond.temperature`",
    "no_agreement": "set `reward_select.by` to `majority`, or take a stronger solver (`models.solver`)",
    "wrong_arithmetic": "take a stronger solver (`models.solver`), or easier questions (`filter.drop_easiest_frac`)",
    "wrong_checkable": "take a stronger solver (`models.solver`); do not publish these answers as right",
    "source_changed": "restore the file, or pin its new hash and run the stage (`scalequest verify stages` names both)",
    "lock_changed": "run `make setup` and the stage again, or restore the lock (`scalequest verify stages` names the packages)",
    "score_zero": "read the samples of the evaluation",
    "many_unparsed": "read the samples of the evaluation; more `evaluate.max_tokens` may let them end",
    "many_cut": "raise `evaluate.max_tokens`",
    "lost_in_saving": "raise `qpo.learning_rate` or the number of pairs: the step is smaller than the saved precision",
    "few_held_out": "raise `qpo.holdout_frac`, or sample more pairs (`qpo_questions.n_questions`)",
    "no_preference": "look at the pairs, and raise `qpo_questions.n_questions` or `qpo.learning_rate`",
}
