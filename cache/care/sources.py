"""`python -m cache verify --sources`: are the media files still those that the features were computed from?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cache.care.verify import Damage, stores_in
from cache.corpus.clips import Corpus
from cache.features.rows import State
from cache.features.store import open_store
from cache.features.units import unit_size
from cache.media import Source


def changed_sources(features_dir: Path, corpus: Corpus) -> Iterator[Damage]:
    """Hash every media file once and compare it with what each array recorded of it.

    Raises:
        ValueError: a store cannot be read, or the corpus has clips that it lacks.
    """
    now = {clip.clip_id: Source.of(corpus.source(clip), stretch=clip.stretch).sha256 for clip in corpus.clips}
    for path in stores_in(features_dir):
        store = open_store(path)
        lacking = sorted(set(now) - set(store.clip_ids))
        if lacking:
            raise ValueError(
                f"{path} lacks {len(lacking)} clips of the corpus, first {lacking[0]}; name its own corpus"
            )
        for array in store.arrays():
            states, sources = store.states(array), store.column(array, "source")
            for row, clip_id in enumerate(store.clip_ids):
                recorded, found = sources[row], now.get(clip_id, sources[row])
                # Imported features record no media file.
                if recorded and states[row] != State.PENDING and recorded != found:
                    problem = f"the file of {clip_id} {f'is now {found[:12]}' if found else 'is not there'}"
                    unit = row // unit_size(len(store.clip_ids))
                    was = f"{problem}, was {recorded[:12]}; make features computes it again"
                    yield Damage(path.name, array, "source", was, unit, range(row, row + 1))
