"""Seeds of independent random streams."""

import hashlib


def stream_seed(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose: what one stream draws never changes another."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
