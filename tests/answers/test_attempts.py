from scalequest.answers.attempts import fail_rates
from scalequest.outcomes import MISSING, RIGHT, TIMEOUT, WRONG


def test_a_fail_rate_is_the_share_of_samples_that_are_not_right():
    attempts = [
        {"problem_id": problem, "outcome": outcome}
        for problem, outcomes in {
            "hard": [WRONG, WRONG],
            "easy": [RIGHT, RIGHT],
            # An unreadable or unfinished check is a fail: 3 of 4.
            "mixed": [RIGHT, MISSING, TIMEOUT, WRONG],
        }.items()
        for outcome in outcomes
    ]
    assert fail_rates(attempts) == {"hard": 1.0, "easy": 0.0, "mixed": 0.75}
