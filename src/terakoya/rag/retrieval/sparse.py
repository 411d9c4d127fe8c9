"""BM25 as sparse vectors: the weight of a term in a passage and in a query. Inverse document frequencies are the
store's part, which knows how many passages hold a term at the moment of the search.

The dot product of the two vectors, each query entry times its inverse document frequency, is the BM25 score.
Source: Robertson and Zaragoza 2009, eq. 3.15.
"""

from __future__ import annotations

from terakoya.domain.documents import SparseVector, Terms

K1 = 0.6
"""How soon the repetition of a term stops to count."""
B = 0.75
"""How much long passages are held back: 0 not at all, 1 in proportion to their length."""


def passage_vector(terms: Terms, average_length: float, *, k1: float = K1, b: float = B) -> SparseVector:
    """Return the BM25 weights of a passage's terms.

    ``average_length``: terms a passage, pinned per collection, so that all its weights are of one scale; 0 means that
    lengths do not count.
    """
    length = sum(terms.values()) / average_length if average_length > 0 else 1.0
    norm = k1 * (1 - b + b * length)
    return SparseVector(tuple(terms), tuple(count * (k1 + 1) / (count + norm) for count in terms.values()))


def query_vector(terms: Terms) -> SparseVector:
    """Return the weights of a query's terms: what it says twice counts twice."""
    return SparseVector(tuple(terms), tuple(map(float, terms.values())))
