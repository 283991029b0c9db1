"""The exchange's well-known test account: worthless, public, the same on every machine.

Owns: the private key and API credentials that paper mode uses when the config names none. The key is the first development key
of the Ethereum tool chains; nobody may ever fund it. Read by the exchange (which funds it with play money) and by the bot's
credentials in the paper profile.
"""

PAPER_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
PAPER_ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
PAPER_API_KEY = "7d1c2f0e-5b1a-4c0e-9a5f-1f2e3d4c5b6a"
PAPER_API_SECRET = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PAPER_API_PASSPHRASE = "9f0c2d"
