"""The two kinds of sentences that a run says to its user."""

from __future__ import annotations


class Note(str):
    """Said of a run that goes as planned, which ``-q`` hides as it hides progress. All else that is said warns."""

    __slots__ = ()
