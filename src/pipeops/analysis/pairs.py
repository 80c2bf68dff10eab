"""Table 1's Diff. over pairs of other seeds, and the permutation test that belongs to it.

Runs of one seed share their first steps, O at least, and so resemble each other more than runs of two seeds
do. Same compares two seeds by its nature. Diff. must too, or it is too small where the seed matters.

The test stays valid without the pairs of one seed. A labelling permutes the orderings within each seed, so a
pair of one seed is a pair of two orderings under every labelling: leaving these pairs out takes the same ones
from every labelling. Where all pairs have a distance, even the p-value stays what it was, since both versions
fall with the one sum that a labelling changes, that of the pairs of one ordering.
"""

import numpy as np

from pipeops.analysis.curves import FloatArray


def pairs_of_other_seeds(distances: FloatArray) -> FloatArray:
    """Return the distances of two orderings with different seeds, shape (pairs,), in percentage points.

    Args:
        distances: Shape (orderings, seeds, orderings, seeds), symmetric; NaN where there is no distance.
    """
    first, second, s, t = _different(distances)
    return distances[first, s, second, t][s != t]


def pairs_of_one_seed(distances: FloatArray) -> FloatArray:
    """Return the distances of two orderings with the same seed: as :func:`pairs_of_other_seeds`."""
    first, second, s, t = _different(distances)
    return distances[first, s, second, t][s == t]


def without_pairs_of_one_seed(distances: FloatArray) -> FloatArray:
    """Return the distances, with NaN for those of two orderings with the same seed.

    ``commutativity.permutation_p_value`` of these tests whether curves of different orderings *and seeds* are
    further apart than those of one ordering.
    """
    num_orderings, num_seeds = distances.shape[:2]
    one_seed = np.eye(num_seeds, dtype=bool)[np.newaxis, :, np.newaxis, :]
    two_orderings = ~np.eye(num_orderings, dtype=bool)[:, np.newaxis, :, np.newaxis]
    return np.where(one_seed & two_orderings, np.nan, distances)


def _different(distances: FloatArray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """First and second ordering, and the seed of each, of all pairs of runs of different orderings."""
    first, second, s, t = np.indices(
        (*distances.shape[:1], *distances.shape[:1], *(distances.shape[1:2] * 2))
    )
    upper = first < second
    return first[upper], second[upper], s[upper], t[upper]
