"""The exchange simulator's funded test account: well-known, worthless constants, used by paper mode when [account] is empty.

Owns: the development key everybody knows (address 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266) and the API key the simulator accepts.
"""

PAPER_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
PAPER_API_KEY = "7d1c2f0e-5b1a-4c0e-9a5f-1f2e3d4c5b6a"
PAPER_API_SECRET = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PAPER_API_PASSPHRASE = "9f0c2d"
