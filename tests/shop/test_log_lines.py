"""A log that an experiment can read."""

import logging

from looplab.shop.log_lines import keep_log


def test_messages_of_info_and_above_are_kept(caplog) -> None:
    logger, lines = keep_log("course.test")
    logger.debug("no")
    logger.info("%s took %.1f s", "it", 0.25)
    logger.error("and failed")
    assert lines == ["it took 0.2 s", "and failed"]
    assert caplog.records == []  # nobody else hears of it
    assert logger is logging.getLogger("course.test")


def test_asking_again_begins_a_new_list() -> None:
    _, before = keep_log("course.test")
    logger, lines = keep_log("course.test")
    logger.info("once")
    assert (before, lines) == ([], ["once"])
