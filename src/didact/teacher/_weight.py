"""The asymmetric weight of a squared residual."""

from jaxtyping import Array, Float


def asymmetric_weight(residual: Array, asymmetry: Float[Array, ""] | float) -> Array:
    """w(δ) = 1 + C·1[δ > 0]: of two errors of one size, to draw too rarely is the worse."""
    return 1 + asymmetry * (residual > 0)
