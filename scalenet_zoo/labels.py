"""What a network's outputs are called and how they are drawn: classes, or joints."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from scalenet_zoo.spec import Strict

Byte = Annotated[int, Field(ge=0, le=255)]
Index = Annotated[int, Field(ge=0)]
LabelName = Annotated[str, Field(min_length=1, max_length=200)]


class Labels(Strict):
    """Classes or joints of a data set; they travel with checkpoints and exports in `pretrained_cfg["labels"]`.

    Attributes:
        names: one a class or joint, or none where they are not known.
        colours: red, green, blue of each class of a segmentation, or none.
        flip_pairs: joints that change places when a picture is mirrored: left and right.
        skeleton: joints that a line connects.
        sigmas: how far people disagree about each joint, for COCO's object keypoint similarity (OKS).
    """

    names: Annotated[tuple[LabelName, ...], Field(max_length=1_000_000)] = ()
    colours: tuple[tuple[Byte, Byte, Byte], ...] = ()
    flip_pairs: tuple[tuple[Index, Index], ...] = ()
    skeleton: tuple[tuple[Index, Index], ...] = ()
    sigmas: tuple[Annotated[float, Field(gt=0, le=10)], ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        count = len(self.names)
        for field in ("colours", "sigmas"):
            if (found := len(getattr(self, field))) not in (0, count):
                raise ValueError(f"{field}: found {found}, expected {count}, as there are names")
        for field in ("flip_pairs", "skeleton"):
            for pair in getattr(self, field):
                if max(pair) >= count:
                    raise ValueError(f"{field}: found {list(pair)}, expected numbers of joints below {count}")
        return self

    @classmethod
    def of(cls, pretrained_cfg: Mapping[str, Any]) -> Self:
        """The labels that a network's `pretrained_cfg` holds; empty ones if it has none.

        Raises:
            pydantic.ValidationError: they are not valid.
        """
        return cls.model_validate(pretrained_cfg.get("labels", {}), strict=False)

    def to_cfg(self) -> dict[str, Any]:
        """As `pretrained_cfg["labels"]` has them: plain lists, for JSON."""
        return self.model_dump(mode="json", exclude_defaults=True)
