"""Every outcome and warning that a stage can report, with its meaning."""

RIGHT, WRONG, MISSING, TIMEOUT = "right", "wrong", "no_answer", "timeout"

# What a step may fall into with a weak model. A stage reports each as 0 or 1 under `degenerate`; the report prints the text.
DEGENERATE = {
    "one_question": "the generator asks one and the same question",
    "no_end": "most questions were cut at max_tokens: the generator has not learned to stop",
    "one_verdict": "the judge gives every question the same verdict, so this filter decides nothing",
    "no_verdicts": "the judge gave no readable verdict on most questions",
    "one_fail_rate": "every seed has the same fail rate, so there is nothing for the difficulty scorer to learn",
    "no_correlation": "the difficulty scorer does not rank held-out seeds better than chance",
    "one_class": "the solver's answers to the seeds are all right or all wrong, so they say little of what is hard or good",
    "coin_reward": "the reward model tells right from wrong on held-out seeds no better than a coin",
    "one_response": "most questions got one distinct response only, so best-of-n chooses nothing",
    "score_zero": "a task scored exactly 0: check the parser before believing it",
    "many_unparsed": "more than 5% of the answers of a task could not be parsed",
}
