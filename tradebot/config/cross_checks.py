"""Checks between the values of a configuration, each of which is valid by itself. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tradebot.config.model import Config
from tradebot.config.money import mistakes
from tradebot.config.validation import free_name


class Problem(NamedTuple):
    """What is wrong with `key` in combination with `other`; the caller adds their places."""

    key: str
    other: str
    text: str


def cross_problems(config: Config, unsure: Iterable[str] = ()) -> list[Problem]:
    """What is wrong between keys that are each valid by themselves; rules that need a key of `unsure` are left out."""
    problems = []
    short, long = config.strategy.short_window, config.strategy.long_window
    if short >= long:
        text = f"must be smaller than strategy.long_window, but {short} is not smaller than {long}"
        problems.append(Problem("strategy.short_window", "strategy.long_window", text))
    if config.execution.post_only and config.execution.order_type == "market":
        text = 'needs execution.order_type = "limit": a market order always takes'
        problems.append(Problem("execution.post_only", "execution.order_type", text))
    for section, url, file in (
        ("engine", config.engine.ws_url, config.engine.ws_url_file),
        ("notify", config.notify.webhook_url, config.notify.webhook_url_file),
    ):
        if url is not None and file is not None:
            key = f"{section}.{'ws' if section == 'engine' else 'webhook'}_url"
            problems.append(Problem(f"{key}_file", key, f"{key} is set, too; keep one of them"))
    for mistake in mistakes(config.instruments, config.rates):
        name = free_name(mistake.section, *mistake.key)
        problems.append(Problem(name, name, mistake.text))
    return [problem for problem in problems if not {problem.key, problem.other} & set(unsure)]
