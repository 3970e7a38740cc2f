"""The sections with free keys, [instruments] and [rates]: files, command line, hashes, what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.cli.arguments import parse
from tradebot.cli.resolve import resolve
from tradebot.cli.show_config import describe
from tradebot.config import model
from tradebot.config.cross_checks import cross_problems
from tradebot.config.model import Config, config_hash, result_hash
from tradebot.config.money import AccountConfig, InstrumentConfig, RateSymbol
from tradebot.config.toml_file import load
from tradebot.config.validation import build, flatten, free_name, free_path
from tradebot.core.currencies import CURRENCIES
from tradebot.core.errors import ConfigError, UsageError
from tradebot.strategy.registry import CHECKS

FILE = """
[rates]
EUR = 1.08
BTC = { symbol = "BTCUSDT" }
[rates.ETH]
symbol = "ETH/BTC"
[instruments."BTC.USDT"]
base = "BTC"
quote = "USDT"
tick_size = 0.01
lot_size = 0.1
min_qty = 0.3
taker_fee = 0.002
maker_fee = -0.0001
[instruments.BTCUSDT]
[account]
allow_short = true
max_leverage = 3
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_says_instruments_rates_and_account(tmp_path: Path) -> None:
    config = load(written(tmp_path, FILE), CHECKS)
    assert config.rates == {"EUR": 1.08, "BTC": RateSymbol("BTCUSDT"), "ETH": RateSymbol("ETH/BTC")}
    assert config.instruments == {
        "BTC.USDT": InstrumentConfig(
            "BTC", "USDT", tick_size=0.01, lot_size=0.1, min_qty=0.3, maker_fee=-0.0001, taker_fee=0.002
        ),
        "BTCUSDT": InstrumentConfig(),
    }
    assert config.account == AccountConfig(10_000.0, True, 3.0)
    assert build(flatten(config)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[rates]\nEUR = 0", "2: rates.EUR: must be more than 0, not 0"),
        ("[rates]\n\nEUR = -1.5", "3: rates.EUR: must be more than 0, not -1.5"),
        ("[rates]\nEUR = inf", "2: rates.EUR: must be a finite number, not inf"),
        ("[rates]\nEUR = true", "2: rates.EUR: must be a number, not true"),
        ("[rates]\nEUR = 'EURUSD'", '2: rates.EUR: must be a number, or a table such as { symbol = "EURUSD" }'),
        ("[rates]\nEUR = {}", '2: rates.EUR: must be a number, or a table such as { symbol = "EURUSDT" }'),
        ("[rates]\nEUR = { symbol = 1 }", "2: rates.EUR: must be text in quotes, not 1"),
        ("[rates]\nEUR = { symbool = 'E' }", '2: rates.EUR: unknown key "symbool" (did you mean symbol?)'),
        ("[rates]\n'A B' = 1", '2: rates."A B": is not a currency: use its letters and digits'),
        ("[rates]\nUSD = 1", "2: rates.USD: USD is the currency of the account: it has no rate"),
        (
            "[rates]\nEURO = 1",
            "2: rates.EURO: unknown currency (did you mean EUR?); a currency of your own is the quote or base of an"
            " entry of [instruments]",
        ),
        (
            "[rates]\nBTC = { symbol = 'BTC' }",
            "2: rates.BTC: BTC is the currency itself: name a market, such as BTC/USD",
        ),
        ("[rates]\nBTC = { symbol = 'ETH/USD' }", "2: rates.BTC: ETH/USD is a price of ETH, not of BTC"),
        ("[rates]\nBTC = { symbol = 'BTC/BTC' }", "2: rates.BTC: depends on itself: BTC -> BTC"),
        (
            "[rates]\nSOL = { symbol = 'SOL/BTC' }\nBTC = { symbol = 'BTC/ETH' }\nETH = { symbol = 'ETH/BTC' }",
            "2: rates.SOL: depends on itself: SOL -> BTC -> ETH -> BTC",
        ),
        ("rates = 1", "1: rates: must be a section, [rates], not 1"),
        ("[instruments.X]\ntick_size = 0", '2: instruments.X.tick_size: must be more than 0, not 0'),
        ("[instruments.X]\nlot_size = -1", '2: instruments.X.lot_size: must be more than 0, not -1'),
        ("[instruments.X]\nmin_qty = -1", '2: instruments.X.min_qty: must be at least 0, not -1'),
        ("[instruments.X]\ntik_size = 1", '2: instruments.X.tik_size: unknown key (did you mean tick_size?)'),
        (
            "[instruments.'A/B']\nlot_size = 0.1\nmin_qty = 0.25",
            '3: instruments."A/B".min_qty: must be a multiple of lot_size, but 0.25 is not a multiple of 0.1',
        ),
        (
            "[instruments.X]\nlot_size = 3e-300\nmin_qty = 1e9",
            '3: instruments."X".min_qty: must be a multiple of lot_size, but 1000000000.0 is not a multiple of 3e-300',
        ),
        (
            "[instruments.X]\nquote = 'USTD'",
            '2: instruments."X".quote: unknown currency (did you mean UST?); give it a rate in [rates] if it is one',
        ),
        (
            "[instruments.X]\nquote = 'EUR'\nbase = 'EUR'",
            '3: instruments."X".base: EUR is the quote, too: a market is between two currencies',
        ),
        (
            "[instruments.X]\ncontract_size = 100\ninverse = true",
            '3: instruments."X".inverse: needs base, the currency that an inverse contract is settled in',
        ),
        ("[instruments]\nX = 1", '2: instruments.X: must be a section, [instruments."X"], not 1'),
        ("[instruments]\n'' = {quote='EUR'}", '2: instruments."".quote: must not be empty'),
        ("instruments = []", "1: instruments: must be a section, [instruments], not a list"),
        ("[instrument.X]\nquote = 'EUR'", "1: instrument: unknown section (did you mean instruments?)"),
        ("[account]\ninitial_balance = 0", "2: account.initial_balance: must be more than 0, not 0"),
        ("[account]\nmax_leverage = 0.5", "2: account.max_leverage: must be at least 1, not 0.5"),
    ],
)  # fmt: skip
def test_one_clear_line_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load(path, CHECKS)
    assert str(error.value) == f"{path}:{message}"


def test_a_currency_of_ones_own_has_an_entry_and_a_rate(tmp_path: Path) -> None:
    text = "[rates]\nGOLD = 60.5\n[instruments.X]\nquote = 'GOLD'\n"
    assert load(written(tmp_path, text), CHECKS).rates == {"GOLD": 60.5}


def set_keys(*sets: str, tmp_path: Path | None = None, text: str = "") -> Config:
    words = [f"--set={each}" for each in sets]
    if tmp_path is not None:
        words.append(f"--config={written(tmp_path, text)}")
    return resolve(parse(words), {"HOME": "/h"}, with_secrets=False).config


def test_the_command_line_sets_them_with_and_without_quotes(tmp_path: Path) -> None:
    config = set_keys(
        'instruments."BTC.USDT".tick_size=0.5', "instruments.SOL/USDC.lot_size=2", "rates.EUR=1.1",
        "rates.BTC=BTCUSDT", "rates.ETH.symbol=ETHUSDT", "instruments.SOL/USDC.inverse=false",
        tmp_path=tmp_path, text=FILE,
    )  # fmt: skip
    assert config.instruments["BTC.USDT"].tick_size == 0.5
    assert config.instruments["BTC.USDT"].lot_size == 0.1, "the file's other keys stay"
    assert config.instruments["SOL/USDC"] == InstrumentConfig(lot_size=2.0)
    assert config.rates == {"EUR": 1.1, "BTC": RateSymbol("BTCUSDT"), "ETH": RateSymbol("ETHUSDT")}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("rates=1", "--set rates: is a section; name one of its keys, for example rates.EUR"),
        ("rates.A_B=1", "--set rates.A_B: unknown key; write it as in rates.EUR"),
        ("rates.EUR=0", "--set rates.EUR: must be more than 0, not 0.0"),
        ("rates.EUR=nan", "--set rates.EUR: must be a finite number, not nan"),
        ("rates.EURO=1", "--set rates.EURO: rates.EURO: unknown currency (did you mean EUR?)"),
        ("instruments.X.lotsize=1", "--set instruments.X.lotsize: unknown key (did you mean lot_size?)"),
        ("instruments.X.lot_size=x", '--set instruments."X".lot_size: must be a number, not "x"'),
        ("instruments.X.inverse=1", '--set instruments."X".inverse: must be true or false, not "1"'),
    ],
)
def test_mistakes_on_the_command_line(word: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        set_keys(word)
    assert str(error.value).startswith(message)


def test_the_same_key_twice_is_a_mistake_however_it_is_written() -> None:
    with pytest.raises(UsageError, match="is given twice"):
        set_keys("rates.EUR=1", "rates.EUR.symbol=EURUSD")


def test_show_config_gives_a_file_that_says_the_same(tmp_path: Path) -> None:
    settings = resolve(parse([f"--config={written(tmp_path, FILE)}"]), {"HOME": "/h"}, with_secrets=False)
    text = "\n".join(describe(settings, {"HOME": "/h"}))
    assert 'BTC = { symbol = "BTCUSDT" }' in text and f"# {tmp_path}/c.toml:4" in text
    assert '[instruments."BTC.USDT"]' in text
    assert load(written(tmp_path, text), CHECKS) == settings.config


CHANGES: list[dict[str, Any]] = [
    {"rates.EUR": 1.08},
    {"rates.EUR": RateSymbol("EURUSDT")},
    {free_name("instruments", "A", "lot_size"): 0.1},
    {free_name("instruments", "A", "inverse"): False},
]


def test_hashes_see_what_differs_from_the_default_only() -> None:
    base = Config()
    hashes = [(config_hash(c), result_hash(c, True, ())) for c in (base, *map(build, CHANGES))]
    assert len({one for one, _ in hashes}) == len({two for _, two in hashes}) == len(hashes)
    entry = build({free_name("instruments", "A", "lot_size"): 0.1})
    assert model._normalised(entry)["instruments.A"] == {"lot_size": 0.1}, "a later key changes no hash"
    explicit = build({free_name("instruments", "A", "contract_size"): 1.0})
    assert config_hash(explicit) == hashes[-1][0], "a default that is written out is no difference"


SYMBOLS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20).filter(str.strip)


@given(SYMBOLS, st.sampled_from(["lot_size", "quote"]), st.sampled_from(sorted(CURRENCIES)))
def test_names_and_paths_are_inverse(symbol: str, leaf: str, currency: str) -> None:
    assert free_path(free_name("instruments", symbol, leaf)) == ("instruments", symbol, leaf)
    assert free_path(free_name("rates", currency)) == ("rates", currency)
    config = build({free_name("instruments", symbol, "lot_size"): 2.0})
    assert config.instruments == {symbol: InstrumentConfig(lot_size=2.0)}
    assert build(flatten(config)) == config


def test_the_commented_examples_are_valid(tmp_path: Path) -> None:
    lines = (Path(__file__).parents[3] / "etc/tradebot/example.toml").read_text().splitlines()
    start = lines.index(next(line for line in lines if line.startswith("# [instruments")))
    block = [line.removeprefix("# ") for line in lines[start : lines.index("", lines.index("", start) + 1)]]
    config = load(written(tmp_path, "\n".join(block)), CHECKS)
    assert list(config.instruments) == ["BTCUSDT"] and list(config.rates) == ["EUR", "BTC"]
    assert config.instruments["BTCUSDT"].taker_fee == 0.001
    assert cross_problems(config) == []
