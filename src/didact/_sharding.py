"""Trajectories of a batch, split over the devices of the mesh in use.

With `jax.set_mesh(didact.batch_mesh())` in force, what is done for each trajectory of a batch is
done by the device that holds it: drawing, laying out, scoring. Parameters, optimisers and buffer
are held by every device, and gradients are summed over the devices. Without a mesh nothing here
changes a program.
"""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
from jax.sharding import AxisType, Mesh, PartitionSpec
from jaxtyping import PyTree

AXIS = "batch"


def batch_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:  # pyright: ignore[reportInvalidTypeForm]
    """A mesh over devices (default: all, those of other processes among them) along which the
    trajectories of a batch are split.

    ```python
    with jax.set_mesh(didact.batch_mesh()):
        state = didact.init(experiment)
        state, info = didact.train_chunk(experiment, state, 100, capacity=100)
    ```

    The batch size must be a multiple of the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (AXIS,), (AxisType.Auto,), devices=devices)


def num_shards() -> int:
    """Into how many parts batches are split: 1 without a mesh."""
    return jax.sharding.get_abstract_mesh().shape.get(AXIS, 1)


def require_even(batch_size: int) -> None:
    """`ValueError` for a batch that the devices of the mesh cannot share evenly."""
    if batch_size % num_shards():
        raise ValueError(
            f"a batch of {batch_size} cannot be split over {num_shards()} devices: make "
            "batch_size a multiple of them."
        )


def by_shard(
    function: Callable[..., PyTree], shared: PyTree, *parts: PyTree, batch_axis: int = 0
) -> PyTree:
    """`function(shared, *parts)`, where each device has its part of the arrays in `parts`, which
    hold a batch along `batch_axis`, and of the result, which holds one along its first axis. A
    batch that cannot be split evenly is done whole, by each device.
    """
    leaves = jax.tree.leaves(eqx.filter(parts, eqx.is_array))
    if num_shards() == 1 or any(leaf.shape[batch_axis] % num_shards() for leaf in leaves):
        return function(shared, *parts)
    arrays, static = eqx.partition((shared, parts), eqx.is_array)

    def part(arrays: tuple[PyTree, PyTree]) -> PyTree:
        shared, parts = eqx.combine(arrays, static)
        return function(shared, *parts)

    split = PartitionSpec(*[None] * batch_axis, AXIS)
    # Carries of loops start the same on all devices and end differently, which the check of
    # varying axes does not take.
    return jax.shard_map(
        part,
        in_specs=((PartitionSpec(), split),),
        out_specs=PartitionSpec(AXIS),
        check_vma=False,
    )(arrays)
