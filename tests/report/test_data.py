from scalequest.records import INSTRUCTION, LEDGER, write_rows
from tests.report.finished import (
    DATA,
    FATES,
    LEDGER_ROWS,
    Folder,
    section,
)


def test_each_outcome_has_an_example_with_its_evidence(folder: Folder) -> None:
    markdown, page = folder.run()
    for text in (section(markdown, "A look at the data"), page):
        for i, outcome, _, _ in FATES:
            assert outcome == "kept" or (i in text and outcome in text)
        assert "jaccard 0.900" in text
        assert "difficulty 0.250, lowest kept 0.500" in text
    assert "reward 1.500 · agreement 0.75 · candidates 3 · answer `3\\|4`" in markdown


def test_the_draw_does_not_depend_on_the_order_of_rows(folder: Folder) -> None:
    markdown, page = folder.run()
    write_rows(folder.args.ledger, LEDGER_ROWS[::-1], LEDGER)
    write_rows(folder.args.data, DATA[::-1], INSTRUCTION)
    assert folder.run() == (markdown, page)
