"""What a stack's batches hold: variants, absences and mixtures in the shares asked for, each head's own."""

from __future__ import annotations

import weakref

import numpy as np
import torch

from cache.conditions import JointCondition, parse_joint
from cache.corpus.clips import Clip
from cache.corpus.ravdess import LABELS
from cache.features.table import FeatureTable
from fuse.runs.tables import Variants
from fuse.stack.batches import StackBatch, StackLoader
from fuse.stack.job import Job
from fuse.stack.rows import CachedRows, cached_rows

CLIPS = 400
ALL = tuple(range(CLIPS))
SPREAD = 0.08  # three standard deviations of a share of 400


def batches(rows: CachedRows, jobs: list[Job], size: int = CLIPS) -> list[StackBatch]:
    width = rows.rows_ND.shape[1]
    return list(StackLoader(rows, jobs, torch.zeros(len(jobs), width), torch.ones(len(jobs), width), size).epoch(0))


def cached(absent: bool = False) -> CachedRows:
    """Audio of width 2 that holds the clip's number, text of width 1; two variants of the sound that reach both."""
    numbers_N = torch.arange(CLIPS, dtype=torch.float32)
    rows_ND = torch.stack([numbers_N, numbers_N, numbers_N], dim=1)
    absent_Nm = torch.zeros(CLIPS, 2, dtype=torch.bool)
    absent_Nm[:, 1] = torch.arange(CLIPS) % 4 == 0
    audio_VND = torch.stack([rows_ND[:, :2] + 1000, rows_ND[:, :2] + 2000])
    text_VND = torch.stack([rows_ND[:, 2:] + 1000, rows_ND[:, 2:] + 2000])
    gone_VN = torch.zeros(2, CLIPS, dtype=torch.bool)
    variants = {"audio": {"audio": (audio_VND, gone_VN), "text": (text_VND, gone_VN | True)}}
    return CachedRows(
        {"audio": 2, "text": 1}, rows_ND, absent_Nm if absent else None, torch.arange(CLIPS) % 8, variants
    )


def test_a_share_of_the_clips_is_drawn_from_variants_evenly_and_whole() -> None:
    (batch,) = batches(cached(), [Job(ALL, ALL, augment=0.5), Job(ALL, ALL, augment=0.0, seed=1)])
    which_MB = (batch.rows.values_MBD[..., 0] // 1000).long()
    assert abs((which_MB[0] == 0).float().mean() - 0.5) < SPREAD
    assert abs((which_MB[0] == 1).float().mean() - 0.25) < SPREAD
    assert (which_MB[1] == 0).all()
    # Sound and the text that is heard in it come from one variant.
    assert torch.equal(batch.rows.values_MBD[..., 0] // 1000, batch.rows.values_MBD[..., 2] // 1000)


def test_a_modality_that_a_variant_lacks_is_absent_there() -> None:
    (batch,) = batches(cached(absent=True), [Job(ALL, ALL, augment=0.5)])
    assert batch.rows.absent_MBm is not None
    drawn_B = batch.rows.values_MBD[0, :, 0] >= 1000
    assert batch.rows.absent_MBm[0, drawn_B, 1].all()
    assert abs(batch.rows.absent_MBm[0, ~drawn_B, 1].float().mean() - 0.25) < SPREAD


def test_modalities_are_withheld_but_never_the_last_one() -> None:
    (batch,) = batches(cached(absent=True), [Job(ALL, ALL, modality_dropout=0.6), Job(ALL, ALL)])
    absent_MBm = batch.rows.absent_MBm
    assert absent_MBm is not None
    assert not absent_MBm[0].all(1).any()
    numbers_B = batch.rows.values_MBD[0, :, 0].long()
    whole_B = numbers_B % 4 > 0
    assert not absent_MBm[0, ~whole_B, 0].any()
    assert abs(absent_MBm[0, whole_B].any(1).float().mean() - (1 - 0.4**2)) < SPREAD
    assert torch.equal(absent_MBm[1, :, 1], batch.rows.values_MBD[1, :, 0].long() % 4 == 0)


def test_every_training_clip_comes_once_per_epoch_and_fillers_weigh_nothing() -> None:
    jobs = [Job(tuple(range(100)), ALL), Job(tuple(range(40, 90)), ALL, seed=5)]
    seen: list[list[int]] = [[], []]
    for batch in batches(cached(), jobs, size=32):
        assert batch.weight_MB.shape[1] == 32
        for head, (values_BD, weight_B) in enumerate(zip(batch.rows.values_MBD, batch.weight_MB, strict=True)):
            seen[head] += values_BD[weight_B > 0, 0].long().tolist()
    assert [sorted(one) for one in seen] == [list(range(100)), list(range(40, 90))]
    assert seen[1] != sorted(seen[1])


def test_a_mixture_is_of_two_clips_and_of_their_labels() -> None:
    (batch,) = batches(cached(), [Job(ALL, ALL, mixup=0.5)])
    assert batch.share_M is not None
    assert batch.partner_labels_MB is not None
    share, mixed_B = batch.share_M[0], batch.rows.values_MBD[0, :, 0]
    plain = batches(cached(), [Job(ALL, ALL)])[0].rows.values_MBD[0, :, 0]
    partner_B = (mixed_B - share * plain) / (1 - share)
    assert torch.equal(partner_B.round().long() % len(LABELS), batch.partner_labels_MB[0])
    assert sorted(partner_B.round().long().tolist()) == list(ALL)


def test_tables_are_joined_by_clip_and_a_clip_that_failed_keeps_its_own_row() -> None:
    clips = tuple(Clip(f"c{number}", "x.wav", "happy", "1") for number in range(3))
    values = torch.arange(6, dtype=torch.float32).reshape(3, 2).numpy()
    present = {"audio": torch.ones(3, dtype=torch.bool).numpy()}
    main = FeatureTable(clips, {"audio": values}, present, (), False, "clean", label_names=LABELS)
    turned = FeatureTable(
        (clips[2], clips[0]), {"audio": values[[2, 0]] + 100}, present, ("c1",), False, "noisy", label_names=LABELS
    )
    rows_VND, absent_VN = cached_rows(main, {"audio": [turned]}, torch.device("cpu")).variants["audio"]["audio"]
    assert rows_VND[0].tolist() == [[100.0, 101.0], [2.0, 3.0], [104.0, 105.0]]
    assert not absent_VN.any()


def test_variants_are_loaded_one_after_the_other() -> None:
    # All of them were in memory at once, beside what was made of them.
    clips = tuple(Clip(f"c{number}", "x.wav", "happy", "1") for number in range(3))
    alive: list[weakref.ref[FeatureTable]] = []

    def load(condition: JointCondition) -> FeatureTable:
        assert not any(one() for one in alive)
        values = np.full((3, 2), len(alive), np.float32)
        present = {"audio": np.ones(3, np.bool_)}
        table = FeatureTable(clips, {"audio": values}, present, (), False, condition.name, label_names=LABELS)
        alive.append(weakref.ref(table))
        return table

    names = ["noise-white-10db", "noise-white-0db"]
    main = load(parse_joint("clean"))
    alive.clear()
    variants = Variants([parse_joint(name) for name in names], load)
    rows_VND, _ = cached_rows(main, {"audio": variants}, torch.device("cpu")).variants["audio"]["audio"]
    assert rows_VND[:, 0, 0].tolist() == [0.0, 1.0]


def test_heads_that_differ_in_pace_alone_are_given_one_copy_of_their_rows() -> None:
    several = [Job(ALL, ALL, seed=1, augment=0.5, lr=lr, dropout=lr) for lr in (0.1, 0.2, 0.3)]
    (shared,) = batches(cached(absent=True), several)
    (alone,) = batches(cached(absent=True), several[:1])
    assert shared.rows.values_MBD.shape == (3, CLIPS, 3)
    assert shared.rows.values_MBD.stride(0) == 0
    assert torch.equal(shared.rows.values_MBD[2], alone.rows.values_MBD[0])
    (mixed,) = batches(cached(), [several[0], Job(ALL, ALL, seed=2), several[1]])
    assert torch.equal(mixed.rows.values_MBD[0], mixed.rows.values_MBD[2])
    assert not torch.equal(mixed.rows.values_MBD[0], mixed.rows.values_MBD[1])
