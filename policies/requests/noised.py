"""One round of a model family with noise, on private sources: sums of persons' clipped parts.

`family` names one of `policies.requests.noised_families.NOISED`, under the name that the exact family has too: a policy
opens both by it. All steps of a run have the same price. docs/protocol.md section 11.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import ClassVar, Literal, Self

from policies.requests.exact import FamilyStep, Setting
from policies.requests.families import Shape
from policies.requests.noised_families import MOMENTS, NOISED, NOISED_SHAPES
from policies.requests.noised_networks import NOISED_NETWORKS, SILO, has_own_noise, protected, unit_of
from policies.requests.statistic import Extent, Statistic
from policies.requests.tables import Table
from policies.units import counted


class NoisedStep(FamilyStep):
    """One round of a family with noise: the first counts persons, each later one sums their clipped gradients."""

    kind: Literal["noised-step"] = "noised-step"
    release: Literal["private"] = "private"
    shapes: ClassVar[Mapping[str, Shape]] = NOISED_SHAPES
    clip_key: ClassVar[str] = "options.clip"

    @property
    def clip_norm(self) -> Decimal:
        """The norm of a person's gradient; 0 where the products of cells are summed, which nothing clips."""
        options = {one.name: one.value for one in self.options}
        if options.get("method") == MOMENTS:
            return Decimal(0)
        return Decimal(options.get("clip", self.shape.options["clip"].default))

    @property
    def has_own_noise(self) -> bool:
        return has_own_noise(self._named)

    @property
    def unit(self) -> str:
        return unit_of(self._named)

    @property
    def _named(self) -> Mapping[str, str]:
        """The options that the request names, of a network; none of any other family."""
        return {one.name: one.value for one in self.options} if self.family in NOISED_NETWORKS else {}

    def divided_by(self, silos: int) -> Self:
        """Return the step that divides the sum of the silos' changes by so many, where its unit is the silo.

        One that names another number, or has another unit, is returned as it is.
        """
        if self.unit != SILO or "silos" in self._named:
            return self
        options = sorted((*self.options, Setting(name="silos", value=str(silos))), key=lambda one: one.name)
        return self.model_copy(update={"options": tuple(options)})

    def statistics(self, table: Table) -> Mapping[Statistic, Extent]:
        extents = NOISED[self.family].extents(self.task(table))
        return {Statistic(name): extent for name, extent in extents.items()}

    def in_words(self, table_name: str) -> str:
        of = f" of {self.label}" if self.label else ""
        by = f" from {', '.join(self.features)}" if self.features else ""
        beside = f" with {', '.join(map(str, self.parts))}" if self.parts else ""
        run = f"a run of at most {counted(self.steps, 'step')} ({self.release}){self.whose_in_words}"
        hidden = "".join(f"; {one}" for one in protected(self._named))
        return f"fit a {self.family}{of}{by}{beside} in {table_name}, {run}{hidden}"
