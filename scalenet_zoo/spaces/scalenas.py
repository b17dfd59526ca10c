"""Search spaces of multipath networks (ScaleNAS, AutoML-Conf 2022), as YAML files.

    name: scalenas_pose
    width: 32
    head: pose
    modules: [1, 4, 3]
    input: {height: 256, width: 192}
    depths: [2, 3, 4, 5]
    groups: {depths: [[2, 3], [3, 4], [4, 5]], fusion: [0.2, 0.5, 0.8]}

The search varies the topology: the blocks of every branch of every module, and which branches feed which after each
step. In addition to what `spec.Module` requires, a topology is valid if every branch of every module leads to the
output. A segmentation head reads all branches, and a branch always keeps itself, so all topologies are valid. A pose
head reads only the highest-resolution branch, so the other branches of the last module must feed it, directly or
through each other. A branch that does not gets a path to it after the highest-resolution branch's last step. Single
blocks and paths whose output nothing reads are allowed, as in two published networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from scalenet_zoo.arch.multipath_cost import BRANCHES, MultipathCost, multipath_cost
from scalenet_zoo.arch.spec import FUSION_STEPS, ArchSpec, Input, Module, MultipathNetwork, Provenance
from scalenet_zoo.core.documents import Strict
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.spaces.space_file import SpaceFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scalenet_zoo.arch.rounding import Integers

    Bools = NDArray[np.bool_]

Depth = Annotated[int, Field(ge=1, le=FUSION_STEPS)]
Probability = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, eq=False)
class Topologies:
    """Topologies of multipath networks: n of them, or one without the first axis.

    Attributes:
        depth: blocks of each branch, (n, modules, 4); 0 where there is no branch.
        fusion: which branches feed which, (n, modules, to, step, from); true at to = from in the steps of the branch.
    """

    depth: Integers
    fusion: Bools

    def __len__(self) -> int:
        return len(self.depth)

    def __getitem__(self, which: int | slice | list[int] | Integers | Bools | None) -> Topologies:
        """Select some topologies or one; None adds the first axis to a single topology."""
        return Topologies(self.depth[which], self.fusion[which])

    @classmethod
    def joined(cls, parts: Sequence[Topologies]) -> Topologies:
        """Join several sets of topologies, in order."""
        return cls(np.concatenate([part.depth for part in parts]), np.concatenate([part.fusion for part in parts]))


@dataclass(frozen=True)
class Group:
    """A group of topologies, for grouped sampling (ScaleNAS, AutoML-Conf 2022).

    Attributes:
        depths: the depths that each branch is drawn from.
        fusion: the probability of each path.
    """

    depths: tuple[int, ...]
    fusion: float


class Groups(Strict):
    """All groups: each range of depths with each probability of a path; the defaults are the paper's nine groups."""

    depths: Annotated[tuple[Annotated[tuple[Depth, ...], Field(min_length=1)], ...], Field(min_length=1)] = (
        (2, 3),
        (3, 4),
        (4, 5),
    )
    fusion: Annotated[tuple[Probability, ...], Field(min_length=1)] = (0.2, 0.5, 0.8)

    @property
    def all(self) -> list[Group]:
        """Every group."""
        return [Group(depths, fusion) for depths, fusion in product(self.depths, self.fusion)]


class MultipathSpace(SpaceFile):
    """A search space of multipath networks.

    Attributes:
        width: channels of the highest-resolution branch.
        head: the networks' head, which is also their task.
        modules: the numbers of modules with 2, 3 and 4 branches.
        input: the image for which costs are computed.
        depths: the numbers of blocks that a branch may have.
        groups: the groups to sample from.
    """

    packaged: ClassVar[str] = "scalenas"
    width: Annotated[int, Field(ge=1, le=8_192)]
    head: Literal["segmentation", "pose"]
    modules: tuple[Annotated[int, Field(ge=1, le=20)], ...] = (1, 4, 3)
    input: Input
    depths: Annotated[tuple[Depth, ...], Field(min_length=1)] = (2, 3, 4, 5)
    groups: Annotated[Groups, Field(validate_default=True)] = Groups()

    @field_validator("modules")
    @classmethod
    def _three(cls, modules: tuple[int, ...]) -> tuple[int, ...]:
        if len(modules) != BRANCHES - 1:
            raise ValueError("expected three numbers: of modules with 2, with 3 and with 4 branches")
        return modules

    @field_validator("depths")
    @classmethod
    def _rising(cls, depths: tuple[int, ...]) -> tuple[int, ...]:
        if list(depths) != sorted(set(depths)):
            raise ValueError("expected rising numbers")
        return depths

    @field_validator("groups")
    @classmethod
    def _of_its_depths(cls, groups: Groups, info: ValidationInfo) -> Groups:
        """By default, each group has two neighbouring depths."""
        if "depths" in groups.model_fields_set or "depths" not in info.data:  # invalid depths are reported elsewhere
            return groups
        depths = info.data["depths"]
        return groups.model_copy(update={"depths": tuple(pairwise(depths)) or (depths,)})

    @model_validator(mode="after")
    def _groups_within(self) -> Self:
        for depths in self.groups.depths:
            if not set(depths) <= set(self.depths):
                raise ValueError(f"groups.depths: found {list(depths)}, expected some of {list(self.depths)}")
        return self

    # --- branches and paths -------------------------------------------------------------------------

    @cached_property
    def branches(self) -> tuple[int, ...]:
        """The number of branches of each module."""
        return tuple(branches for branches, count in enumerate(self.modules, start=2) for _ in range(count))

    @cached_property
    def _there(self) -> Bools:
        """Which branches each module has, (modules, 4)."""
        there: Bools = np.arange(BRANCHES) < np.array(self.branches)[:, None]
        return there

    @cached_property
    def connections(self) -> Bools:
        """Which paths a topology may have, (modules, to, step, from)."""
        both = self._there[:, :, None] & self._there[:, None, :] & ~np.eye(BRANCHES, dtype=bool)
        steps = np.arange(FUSION_STEPS) < self.depths[-1]
        return both[:, :, None, :] & steps[:, None]

    @property
    def largest(self) -> Topologies:
        """The topology with all blocks and paths; every network of the space is a part of it."""
        return self.canonical(np.full_like(self._there, self.depths[-1], dtype=np.int64), self.connections)

    @property
    def smallest(self) -> Topologies:
        """The topology with the fewest blocks and only the paths that validity requires."""
        return self.canonical(
            np.full_like(self._there, self.depths[0], dtype=np.int64), np.zeros_like(self.connections)
        )

    def canonical(self, depth: Integers, fusion: Bools) -> Topologies:
        """Turn any arrays into valid topologies; valid topologies stay as they are.

        Args:
            depth: (..., modules, 4); values where there is no branch do not matter.
            fusion: (..., modules, to, step, from); values at to = from and where no path can be do not matter.
        """
        depth = np.where(self._there, depth, 0)
        goes_on = np.arange(FUSION_STEPS) < depth[..., None]
        itself = np.eye(BRANCHES, dtype=bool)[:, None, :]
        fusion = ((fusion & self.connections) | itself) & goes_on[..., None]
        if self.head == "pose":
            last, last_step = fusion[..., -1, :, :, :], depth[..., -1, 0] - 1
            idle = ~_read_by_first(last)
            last[..., 0, :, :] |= (np.arange(FUSION_STEPS) == last_step[..., None])[..., None] & idle[..., None, :]
        return Topologies(depth, fusion)

    # --- sampling -----------------------------------------------------------------------------------

    def sample_group(self, rng: np.random.Generator, group: Group, count: int) -> Topologies:
        """Draw topologies of a group: depths uniformly, each path with the group's probability."""
        shape = (count, len(self.branches), BRANCHES)
        depth = rng.choice(group.depths, shape)
        return self.canonical(depth, rng.random((*shape, FUSION_STEPS, BRANCHES)) < group.fusion)

    def sample(self, rng: np.random.Generator, count: int) -> Topologies:
        """Draw topologies, each from a group that is drawn for it; all groups are equally likely."""
        groups = self.groups.all
        chosen = rng.integers(len(groups), size=count)
        by_group = Topologies.joined(
            [self.sample_group(rng, group, int((chosen == g).sum())) for g, group in enumerate(groups)]
        )
        return by_group[np.argsort(np.argsort(chosen, kind="stable"))]

    # --- genomes ------------------------------------------------------------------------------------

    @cached_property
    def gene_options(self) -> tuple[int, ...]:
        """The number of values that each gene of a genome may take: genes of depths, then genes of paths."""
        return (len(self.depths),) * int(self._there.sum()) + (2,) * int(self.connections.sum())

    def encode(self, topologies: Topologies) -> Integers:
        """Encode topologies as genomes (n, genes): indices in `depths`, then 1 for each path that exists, else 0."""
        places = np.searchsorted(self.depths, topologies.depth[:, self._there])
        return np.concatenate([places, topologies.fusion[:, self.connections]], axis=1, dtype=np.int64)

    def decode(self, genomes: Integers) -> Topologies:
        """Decode genomes (n, genes) to topologies; genes of paths past a branch's depth do not matter."""
        shape = (len(genomes), len(self.branches), BRANCHES)
        depth, fusion = np.zeros(shape, dtype=np.int64), np.zeros((*shape, FUSION_STEPS, BRANCHES), dtype=bool)
        places, paths = np.split(genomes, [self._there.sum()], axis=1)
        depth[:, self._there] = np.asarray(self.depths)[places]
        fusion[:, self.connections] = paths
        return self.canonical(depth, fusion)

    def keys(self, topologies: Topologies) -> list[str]:
        """Name each topology: the digits of its depths, then its paths as bits in hexadecimal."""
        depths = topologies.depth[:, self._there]
        paths = np.packbits(topologies.fusion[:, self.connections], axis=1)
        return [f"{''.join(map(str, row))}-{bits.tobytes().hex()}" for row, bits in zip(depths, paths, strict=True)]

    def from_keys(self, keys: Sequence[str]) -> Topologies:
        """Make topologies from the names that `keys` gave them.

        Raises:
            InputError: a name is not valid, or names a topology outside of the space.
        """
        branches, paths = int(self._there.sum()), int(self.connections.sum())
        depth = np.zeros((len(keys), *self._there.shape), dtype=np.int64)
        fusion = np.zeros((len(keys), *self.connections.shape), dtype=bool)
        for n, key in enumerate(keys):
            depths, _, bits = key.partition("-")
            try:
                packed = np.frombuffer(bytes.fromhex(bits), np.uint8)
                depth[n][self._there] = list(map(int, depths))
                fusion[n][self.connections] = np.unpackbits(packed)[:paths]
            except ValueError:  # not digits, or too few or too many
                raise InputError(
                    f"{key!r}: found no name of a topology, expected {branches} depths and {paths} paths,"
                    f" as in the space {self.name}"
                ) from None
        topologies = self.canonical(depth, fusion)
        for key, again, chosen in zip(keys, self.keys(topologies), depth[:, self._there], strict=True):
            if key != again or not set(chosen.tolist()) <= set(self.depths):
                raise InputError(
                    f"{key!r}: found a topology outside of the space {self.name}, expected one of its topologies"
                )
        return topologies

    # --- networks -----------------------------------------------------------------------------------

    def to_modules(self, topology: Topologies) -> tuple[Module, ...]:
        """Convert one topology to the modules of a spec."""
        return tuple(
            Module(
                depth=tuple(depth[:branches].tolist()),
                fusion=tuple(
                    tuple(tuple(row) for row in steps)
                    for steps in fusion[:branches, :, :branches].astype(np.int64).tolist()
                ),
            )
            for branches, depth, fusion in zip(self.branches, topology.depth, topology.fusion, strict=True)
        )

    def from_modules(self, modules: Sequence[Module]) -> Topologies:
        """Convert the modules of a spec to a topology.

        Raises:
            InputError: it is not a topology of the space.
        """
        if (found := tuple(len(module.depth) for module in modules)) != self.branches:
            raise InputError(
                f"modules: found {list(found)} branches, expected {list(self.branches)}, as in the space {self.name}"
            )
        depth = np.zeros((len(modules), BRANCHES), dtype=np.int64)
        fusion = np.zeros((len(modules), BRANCHES, FUSION_STEPS, BRANCHES), dtype=bool)
        for m, (module, branches) in enumerate(zip(modules, self.branches, strict=True)):
            if not set(module.depth) <= set(self.depths):
                raise InputError(
                    f"modules.{m}.depth: found {list(module.depth)},"
                    f" expected some of {list(self.depths)}, as in the space {self.name}"
                )
            depth[m, :branches] = module.depth
            fusion[m, :branches, :, :branches] = module.fusion
        topology = self.canonical(depth, fusion)
        if (topology.fusion != fusion).any():  # a spec's module is canonical otherwise
            raise InputError(
                f"modules.{len(modules) - 1}.fusion: found a branch that feeds no output, expected every branch to lead"
                " to the highest-resolution branch, which the pose head reads"
            )
        return topology

    def network(self, topology: Topologies) -> MultipathNetwork:
        """Convert one topology to the network part of a spec."""
        return MultipathNetwork(width=self.width, head=self.head, modules=self.to_modules(topology))

    def spec(self, topology: Topologies, classes: int, name: str = "candidate", image: Input | None = None) -> ArchSpec:
        """Make the spec of one topology, for images of the space's size or for `image`."""
        provenance = Provenance(source=f"the space {self.name}")
        return ArchSpec.create(name, self.head, image or self.input, classes, self.network(topology), provenance)

    def cost(self, topologies: Topologies, classes: int) -> MultipathCost:
        """Compute the cost of the networks of n topologies.

        Raises:
            BudgetError: a cost does not fit in 64 bits.
        """
        return multipath_cost(topologies.depth, topologies.fusion, self.width, self.head, self.input, classes)


def _read_by_first(fusion: Bools) -> Bools:
    """Mark the branches whose inputs the first branch's output depends on, (..., 4), in (..., to, step, from)."""
    read = np.zeros((*fusion.shape[:-3], BRANCHES), dtype=bool)
    read[..., 0] = True
    for step in reversed(range(FUSION_STEPS)):
        read |= (read[..., :, None] & fusion[..., :, step, :]).any(axis=-2)
    return read
