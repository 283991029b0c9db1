"""The relayer of the exchange: sends transactions of wallets that are contracts, after it has looked at their owner's signature.

Owns: the routes under /relayer of the CLOB port, transaction ids. A deposit wallet signs an EIP-712 Batch, a safe a SafeTx, a proxy wallet a
message that begins with "rlx:". One wallet has one action at a time. Who calls: the settler, the official client. What happens then is the chain's
(`mmbot.sim.chain`). What can go wrong: a wrong signature, nonce, deadline, key or form; answered with the relayer's texts.

Source: venue protocol, relayer; the signed forms are those of the official client.
"""

import re
from collections.abc import Callable

from mmbot.sim.auth import address_word, keccak, recover, word
from mmbot.sim.chain import Call, Chain, Reverted, Tx
from mmbot.sim.http import ApiError, Request

ROOT = "/relayer"
SAFE_MULTISEND = "0xA238CBeb142c10Ef7Ad8442C6D1f9E89e07e7761"
PROXY_FACTORY, RELAY_HUB = "0xaB45c5A4B0c941a2F231C04C3f49182e1A254052", "0xD216153c06E857cD7f72665E0aF1d7D82172F494"
RELAY = "0x7db63fE6D62eb73fb01f8009416F4c2bB4fBda6A"
PROXY = keccak(b"proxy((uint8,address,uint256,bytes)[])")[:4]
MULTISEND = keccak(b"multiSend(bytes)")[:4]
_DOMAIN = keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
_SAFE_DOMAIN = keccak(b"EIP712Domain(uint256 chainId,address verifyingContract)")
_CALL = b"Call(address target,uint256 value,bytes data)"
_BATCH = keccak(b"Batch(address wallet,uint256 nonce,uint256 deadline,Call[] calls)" + _CALL)
_SAFE_TX = keccak(b"SafeTx(address to,uint256 value,bytes data,uint8 operation,uint256 safeTxGas,uint256 baseGas,uint256 gasPrice,address gasToken,"
                  b"address refundReceiver,uint256 nonce)")
_PERSONAL = b"\x19Ethereum Signed Message:\n32"
_HEX = re.compile(r"0x(?:[0-9a-fA-F]{2})*")


def _raw(text: object) -> bytes:
    if not isinstance(text, str) or not _HEX.fullmatch(text):
        raise ApiError(400, "invalid payload: not hex")
    return bytes.fromhex(text[2:])


def batch_digest(wallet: str, nonce: int, deadline: int, calls: list[Call], chain_id: int) -> bytes:
    """EIP-712 digest of a deposit wallet's batch."""
    domain = keccak(_DOMAIN + keccak(b"DepositWallet") + keccak(b"1") + word(chain_id) + address_word(wallet))
    hashes = b"".join(keccak(keccak(_CALL) + address_word(c.target) + word(0) + keccak(c.data)) for c in calls)
    return keccak(b"\x19\x01" + domain + keccak(_BATCH + address_word(wallet) + word(nonce) + word(deadline) + keccak(hashes)))


def safe_digest(safe: str, to: str, data: bytes, operation: int, nonce: int, chain_id: int) -> bytes:
    """What a safe's owner signs as a message: the EIP-712 digest of a SafeTx without gas terms."""
    body = keccak(_SAFE_TX + address_word(to) + word(0) + keccak(data) + word(operation) + word(0) * 5 + word(nonce))
    return keccak(b"\x19\x01" + keccak(_SAFE_DOMAIN + word(chain_id) + address_word(safe)) + body)


def _personal(digest: bytes) -> bytes:
    return keccak(_PERSONAL + digest)


class Relayer:
    """``routes`` of the relayer. ``wallets``: funder address -> EOA, as the exchange has learnt it from orders."""

    def __init__(self, chain: Chain, wallets: dict[str, str]):
        self.chain, self.wallets = chain, wallets
        self._by_id: dict[str, Tx] = {}
        self.routes: dict[tuple[str, str], Callable] = {
            ("GET", f"{ROOT}/v1/account/transactions/params"): self._params, ("GET", f"{ROOT}/relay-payload"): self._payload,
            ("GET", f"{ROOT}/deployed"): lambda r: {"deployed": True}, ("POST", f"{ROOT}/submit"): self._submit,
            ("GET", f"{ROOT}/v1/account/transactions/"): self._transaction,
        }

    @staticmethod
    def _key(owner: str, kind: str) -> str:
        return f"{owner.lower()} {kind}"

    def _params(self, r: Request) -> dict:
        return {"address": r.arg("address"), "nonce": str(self.chain.nonces.get(self._key(r.arg("address"), r.arg("type")), 0))}

    def _payload(self, r: Request) -> dict:
        return self._params(r) | {"address": RELAY}

    def _transaction(self, r: Request) -> dict:
        tx = self._by_id.get(r.tail) or next((t for t in self.chain.txs.values() if t.relayer_id == r.tail), None)
        if tx is None:
            raise ApiError(404, "transaction not found")
        return {"transaction_id": r.tail, "state": f"STATE_{tx.state}", "transaction_hash": tx.hash if tx.block else "", "error_msg": tx.error or None}

    def _submit(self, r: Request) -> dict:
        body = r.json(dict)
        owner, kind = str(body.get("from")), str(body.get("type"))
        if r.headers.get("RELAYER_API_KEY") and r.headers.get("RELAYER_API_KEY_ADDRESS", "").lower() != owner.lower():
            raise ApiError(401, "relayer api key belongs to another address")
        if not r.headers.get("RELAYER_API_KEY") and not r.headers.get("POLY_BUILDER_API_KEY"):
            raise ApiError(401, "invalid authorization")
        read = {"WALLET": self._wallet, "SAFE": self._safe, "PROXY": self._proxy}.get(kind)
        if read is None:
            raise ApiError(400, f"unsupported transaction type {kind}")
        try:
            nonce = int(body["nonce"])
            wallet, calls, signer = read(body, nonce)
        except (KeyError, TypeError, ValueError) as e:
            raise ApiError(400, f"invalid payload: {e}") from None
        if signer.lower() != owner.lower() or self.wallets.get(wallet.lower(), owner).lower() != owner.lower():
            raise ApiError(400, "invalid signature")
        self._in_turn(wallet, self._key(owner, kind), nonce)
        now_ms = self.chain.exchange.clock.now_ns() // 1_000_000
        tx = Tx("0x" + keccak(r.body).hex(), wallet, nonce, self._key(owner, kind), calls, self.chain.exchange.new_uuid())
        self._by_id[tx.relayer_id] = tx
        self.chain.submit(tx, now_ms)
        return {"transactionID": tx.relayer_id, "state": "STATE_NEW", "transactionHash": ""}

    def _in_turn(self, wallet: str, key: str, nonce: int) -> None:
        have = self.chain.nonces.get(key, 0)
        if nonce != have:
            raise ApiError(400, f"batch nonce {nonce} does not match on-chain nonce {have}")
        if wallet.lower() in self.chain.busy:
            raise ApiError(400, "wallet busy: it has an active action")

    # ---- what was signed: (wallet, calls, who signed) ----

    def _wallet(self, body: dict, nonce: int) -> tuple[str, list[Call], str]:
        params = body["depositWalletParams"]
        wallet, deadline = params["depositWallet"], int(params["deadline"])
        calls = [Call(c["target"], _raw(c["data"])) for c in params["calls"]]
        if deadline * 1000 < self.chain.exchange.clock.now_ns() // 1_000_000:
            raise ApiError(400, "batch deadline has passed")
        if any(int(c["value"]) for c in params["calls"]):
            raise ApiError(400, "invalid payload: value")
        return wallet, calls, recover(batch_digest(wallet, nonce, deadline, calls, self.chain.chain_id), _raw(body["signature"]))

    def _safe(self, body: dict, nonce: int) -> tuple[str, list[Call], str]:
        safe, to, data, operation = body["proxyWallet"], body["to"], _raw(body["data"]), int(body["signatureParams"]["operation"])
        signature = _raw(body["signature"])
        digest = _personal(safe_digest(safe, to, data, operation, nonce, self.chain.chain_id))
        signer = recover(digest, signature[:64] + bytes([signature[64] - 4]))       # eth_sign: v is raised by 4
        return safe, _many(data) if operation == 1 and to.lower() == SAFE_MULTISEND.lower() else [Call(to, data)], signer

    def _proxy(self, body: dict, nonce: int) -> tuple[str, list[Call], str]:
        from eth_abi import decode

        data, terms = _raw(body["data"]), body["signatureParams"]
        payload = (b"rlx:" + _raw(body["from"]) + _raw(body["to"]) + data
                   + b"".join(word(int(v)) for v in (terms["relayerFee"], terms["gasPrice"], terms["gasLimit"], nonce))
                   + _raw(terms["relayHub"]) + _raw(terms["relay"]))
        if body["to"].lower() != PROXY_FACTORY.lower() or data[:4] != PROXY:
            raise ApiError(400, "invalid payload: not a call of the proxy factory")
        calls = [Call(to, inner) for _, to, _, inner in decode(["(uint8,address,uint256,bytes)[]"], data[4:])[0]]
        return body["proxyWallet"], calls, recover(_personal(keccak(payload)), _raw(body["signature"]))


def _many(data: bytes) -> list[Call]:
    """The calls in a safe's multiSend."""
    from eth_abi import decode

    if data[:4] != MULTISEND:
        raise ValueError("not a multiSend")
    packed, calls = decode(["bytes"], data[4:])[0], []
    while packed:
        size = int.from_bytes(packed[53:85], "big")
        calls.append(Call("0x" + packed[1:21].hex(), packed[85:85 + size]))
        packed = packed[85 + size:]
    return calls


__all__ = ["Relayer", "Reverted"]
