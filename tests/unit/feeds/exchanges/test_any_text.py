"""Every adapter and any text: broken frames, any JSON, no JSON. Only Unparseable is raised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.feeds.exchanges import (
    test_binance,
    test_bitfinex,
    test_bitget,
    test_bitstamp,
    test_bybit,
    test_coinbase,
    test_crypto_com,
    test_gateio,
    test_gemini,
    test_kraken,
    test_kraken_futures,
    test_kucoin,
    test_okx,
)
from tests.unit.frames import NewExchange, frames_like, survives, survives_mutations
from tradebot.feeds.exchanges import EXCHANGES

# A connection of Bitfinex understands trades only after the answer to its subscription.
NEW: dict[str, NewExchange] = {**EXCHANGES, "bitfinex": test_bitfinex.subscribed}
SAMPLES = {
    "binance": test_binance.SAMPLES,
    "bitfinex": test_bitfinex.SAMPLES,
    "bitget": test_bitget.SAMPLES,
    "bitstamp": test_bitstamp.SAMPLES,
    "bybit": test_bybit.SAMPLES,
    "coinbase": test_coinbase.SAMPLES,
    "crypto_com": test_crypto_com.SAMPLES,
    "gateio": test_gateio.SAMPLES,
    "gemini": test_gemini.SAMPLES,
    "kraken": test_kraken.SAMPLES,
    "kraken_futures": test_kraken_futures.SAMPLES,
    "kucoin": test_kucoin.SAMPLES,
    "mockws": ['{"symbol":"A","price":1.5,"volume":2,"ts":3,"event_id":"e","seq":7}'],
    "okx": test_okx.SAMPLES,
}
ANY_TEXT = {name: frames_like(samples) for name, samples in SAMPLES.items()}


def test_no_adapter_is_left_out() -> None:
    assert SAMPLES.keys() == EXCHANGES.keys()


@pytest.mark.parametrize("name", SAMPLES)
def test_no_mutation_of_a_frame_raises_anything_else(name: str) -> None:
    survives_mutations(NEW[name], SAMPLES[name])


@pytest.mark.parametrize("name", SAMPLES)
@given(data=st.data())
def test_no_text_raises_anything_else(name: str, data: st.DataObject) -> None:
    survives(NEW[name], data.draw(ANY_TEXT[name]))
