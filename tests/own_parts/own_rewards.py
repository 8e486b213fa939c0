"""Rewards from outside the package: one that answers at once, and one that awaits a judge."""

import asyncio


def digits(completion: str) -> float:
    return sum(character.isdigit() for character in completion) / 8


async def judged(completion: str, at_most: int = 8) -> float:
    await asyncio.sleep(0)  # a request to a judge
    return sum(character.isdigit() for character in completion) / at_most
