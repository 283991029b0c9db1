"""Polymarket: the formats of its market and user channels, of Gamma (which markets exist) and of RTDS (Chainlink prices)."""
