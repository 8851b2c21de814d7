"""What heads train on: the cached rows of all modalities side by side, and the variants that training may draw.

Shape letters: M heads of the stack, N clips of the table, B clips of a batch, D width, V variants, m modalities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cache.features.table import FeatureTable
from fuse.model.fusion import Standardiser
from fuse.model.heads.base import columns_of


@dataclass(frozen=True)
class CachedRows:
    """Raw rows on one device.

    Attributes:
        widths: modality to width, in the order of concatenation.
        rows_ND: raw features; 0 where absent.
        absent_Nm: which modalities a clip lacks; None where no clip lacks any, under no variant.
        labels_N: class of each clip.
        variants: per signal (`audio`, `video`) and modality that it changes, rows_VND and absent_VN.
    """

    widths: Mapping[str, int]
    rows_ND: Tensor
    absent_Nm: Tensor | None
    labels_N: Tensor
    variants: Mapping[str, Mapping[str, tuple[Tensor, Tensor]]]

    _standardisers: dict[tuple[int, ...], Standardiser] = field(init=False, default_factory=dict, repr=False)

    def standardiser(self, train: tuple[int, ...]) -> Standardiser:
        """Mean and SD of these clips; the identity without any. All stacks of a fold share one.

        Raises:
            ValueError: all of them lack a modality.
        """
        if train not in self._standardisers:
            fitted = Standardiser(self.widths)
            self._standardisers[train] = fitted.fit(self.raw(train)) if train else fitted
        return self._standardisers[train]

    @property
    def columns(self) -> dict[str, slice]:
        """Each modality's columns."""
        return columns_of(self.widths)

    def variant_count(self, signal: str) -> int:
        """V: how many variants of a signal there are to draw from."""
        return next(len(rows_VND) for rows_VND, _ in self.variants[signal].values())

    def take(self, index_MB: Tensor) -> tuple[Tensor, Tensor | None]:
        """Copies of raw rows_MBD and absent_MBm of these clips, as they are."""
        absent_MBm = None if self.absent_Nm is None else self.absent_Nm[index_MB]
        # Whole rows are copied; indexed by a table of numbers, they would be gathered one number after the other.
        return self.rows_ND.index_select(0, index_MB.flatten()).view(*index_MB.shape, -1), absent_MBm

    def raw(self, index: Sequence[int]) -> dict[str, Tensor]:
        """Raw rows of some clips by modality, on the CPU, NaN where absent."""
        rows_BD, absent_Bm = self.take(torch.tensor(index, device=self.rows_ND.device))
        parts = {name: rows_BD[:, columns].cpu() for name, columns in self.columns.items()}
        if absent_Bm is not None:
            for number, part in enumerate(parts.values()):
                part[absent_Bm[:, number].cpu()] = torch.nan
        return parts

    def put_variants(
        self, signal: str, rows_MBD: Tensor, absent_MBm: Tensor | None, index_MB: Tensor, which_MB: Tensor
    ) -> None:
        """Replace, in place, a signal's modalities by variant number `which_MB` of each clip; -1 leaves it."""
        head, place = (which_MB >= 0).nonzero(as_tuple=True)
        which, clip = which_MB[head, place], index_MB[head, place]
        names = list(self.widths)
        for name, (rows_VND, absent_VN) in self.variants[signal].items():
            rows_MBD[head, place, self.columns[name]] = rows_VND[which, clip]
            if absent_MBm is not None:
                absent_MBm[head, place, names.index(name)] = absent_VN[which, clip]


def torch_device(name: str) -> torch.device:
    """Where heads are trained.

    Raises:
        ValueError: a GPU is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda: torch finds no GPU here; set device=auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def cached_rows(main: FeatureTable, variants: Mapping[str, Sequence[FeatureTable]], device: torch.device) -> CachedRows:
    """Join tables by clip id; a clip that failed under a variant keeps its own row there.

    Variants are looked at one after the other, so that a sequence which loads them needs no room for all.
    """
    joined = {signal: _variant_rows(main, tables, device) for signal, tables in variants.items() if tables}
    absent_Nm = torch.stack([torch.from_numpy(~main.present[name]) for name in main.features], dim=1)
    somewhere = absent_Nm.any() or any(absent.any() for one in joined.values() for _, absent in one.values())
    widths = {name: values.shape[1] for name, values in main.features.items()}
    return CachedRows(
        widths,
        _side_by_side(main, widths).to(device),
        absent_Nm.to(device) if somewhere else None,
        torch.from_numpy(main.labels).to(device),
        joined,
    )


def _side_by_side(main: FeatureTable, widths: Mapping[str, int]) -> Tensor:
    """rows_ND, 0 where absent; every number is copied once, into its place."""
    rows_ND = torch.empty((len(main.clips), sum(widths.values())))
    for name, columns in columns_of(widths).items():
        rows_ND[:, columns] = torch.from_numpy(main.features[name])
    return rows_ND.nan_to_num_()


def _variant_rows(
    main: FeatureTable, tables: Sequence[FeatureTable], device: torch.device
) -> dict[str, tuple[Tensor, Tensor]]:
    found: dict[str, Tensor] = {}
    for number in range(len(tables)):
        _put_variant(found, main, tables[number], (number, len(tables)))
    # Their absences before their zeros.
    absent = {name: rows_VND[:, :, 0].isnan().to(device) for name, rows_VND in found.items()}
    return {name: (rows_VND.nan_to_num_().to(device), absent[name]) for name, rows_VND in found.items()}


def _put_variant(found: dict[str, Tensor], main: FeatureTable, variant: FeatureTable, place: tuple[int, int]) -> None:
    """A variant's rows in the main table's order, NaN where the clip lacks the modality under it.

    `place`: its number, and how many variants there are.
    """
    number, count = place
    position = {clip.clip_id: row for row, clip in enumerate(variant.clips)}
    rows = torch.tensor([position.get(clip.clip_id, -1) for clip in main.clips])
    lacks = rows < 0
    for name, values in variant.features.items():
        own = torch.from_numpy(main.features[name])
        rows_VND = found.get(name)
        if rows_VND is None:
            rows_VND = found[name] = torch.empty((count, *own.shape))
        torch.index_select(torch.from_numpy(values), 0, rows.clamp_min(0), out=rows_VND[number])
        rows_VND[number][lacks] = own[lacks]
