"""Order books as arrays of price points: compiled, pure, fixed memory. The two tokens of a market are one book."""
